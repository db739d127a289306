"""The one door: every change is an action, everything else a query.

`run_action` is one transaction: the idempotency key, the action's own check and writes, its locks,
the operation, its event and its outbox row, or none of them. After the commit the workflow is
started at once; where that fails the relay does it from the outbox, and Temporal being down costs
nothing but time.
"""

import asyncio
import hashlib
import json
from collections.abc import Iterable
from datetime import timedelta
from typing import Any, Protocol
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.base import Frozen
from domain.context import ActionContext
from domain.errors import Conflict, Invalid
from domain.operations import OperationState
from engine.actions.base import Accepted, Action, Params, Tx
from engine.clock import Clock, utc_now
from engine.queries.base import Query, QueryParams
from store import incidents, operations, plumbing
from store.database import Database
from store.ids import new_id
from store.rows import Row

log = structlog.get_logger()

DIRECT_START_S = 2.0
"""How long after the commit a start is left to the process that accepted it."""


class Receipt(Frozen):
    """The answer to an action: its operation, and whether it had been accepted before."""

    operation_id: UUID
    replayed: bool = False


class Deliverer(Protocol):
    """Starts the workflow of an accepted operation."""

    async def deliver(self, operation_id: UUID) -> None:
        """Start it unless it runs already; failures are kept for the relay, never raised."""
        ...


class Backend:
    """Accepts actions and answers queries; see the module."""

    def __init__(
        self,
        database: Database,
        actions: Iterable[Action[Any]],
        queries: Iterable[Query[Any, Any]],
        deliverer: Deliverer | None = None,
        clock: Clock = utc_now,
    ) -> None:
        self._database = database
        self._actions = {action.params: action for action in actions}
        self._queries = {query.params: query for query in queries}
        self._deliverer = deliverer
        self._clock = clock
        self._deliveries: set[asyncio.Task[None]] = set()

    async def run_action(
        self, params: Params, context: ActionContext, idempotency_key: str | None = None
    ) -> Receipt:
        """Accept an action, or raise why not; nothing is written then.

        With a key, the same request again gives the first answer; another request under the same
        key is refused.
        """
        action = self._actions[type(params)]
        fingerprint = _fingerprint(action.kind, params)

        async def accept(connection: AsyncConnection) -> Receipt:
            if idempotency_key is not None:
                found = await plumbing.find_key(connection, context.principal, idempotency_key)
                if found is not None:
                    return _replayed(found, fingerprint)
            tx = Tx(connection, self._clock(), new_id(), context)
            accepted = await action.accept(tx, params)
            await self._write(tx, action, accepted)
            if idempotency_key is not None:
                await _keep_key(tx, idempotency_key, fingerprint)
            return Receipt(operation_id=tx.operation_id)

        receipt = await self._database.write(accept)
        if action.workflow is not None and not receipt.replayed:
            self._deliver(receipt.operation_id)
        log.info(
            "action accepted",
            kind=action.kind,
            operation_id=str(receipt.operation_id),
            principal=context.principal,
            correlation_id=context.correlation_id,
            replayed=receipt.replayed,
        )
        return receipt

    async def run_query(self, params: QueryParams) -> Any:
        """Answer a query from one consistent view."""
        query = self._queries[type(params)]

        async def answer(connection: AsyncConnection) -> Any:
            return await query.answer(connection, params, self._clock())

        return await self._database.read(answer)

    async def close(self) -> None:
        """Wait for the starts under way."""
        await asyncio.gather(*self._deliveries, return_exceptions=True)

    async def _write(self, tx: Tx, action: Action[Any], accepted: Accepted) -> None:
        await operations.insert(tx.connection, _operation_row(tx, action, accepted))
        for entity_type, entity_id in sorted(accepted.locks):
            await _lock(tx, entity_type, entity_id)
        await plumbing.append_event(tx.connection, _event_row(tx, action, accepted))
        if accepted.order is not None:
            due_at = tx.now + timedelta(seconds=DIRECT_START_S)
            await plumbing.post(tx.connection, new_id(), tx.operation_id, due_at)
        if accepted.incident_id is not None:
            await incidents.link_operation(tx.connection, accepted.incident_id, tx.operation_id)

    def _deliver(self, operation_id: UUID) -> None:
        if self._deliverer is None:
            return
        task = asyncio.create_task(self._deliverer.deliver(operation_id))
        self._deliveries.add(task)
        task.add_done_callback(self._deliveries.discard)


async def _lock(tx: Tx, entity_type: str, entity_id: UUID) -> None:
    held = await plumbing.lock_holder(tx.connection, entity_type, entity_id)
    if held is not None:
        raise Conflict(
            "OBJECT_BUSY",
            f"another operation ({held['kind']}, {held['state']}) works on this {entity_type}",
            next_step=f"wait for it: `holdfast op show {held['operation_id']}`",
            holder_operation_id=str(held["operation_id"]),
        )
    await plumbing.take_lock(tx.connection, entity_type, entity_id, tx.operation_id, tx.now)


def _operation_row(tx: Tx, action: Action[Any], accepted: Accepted) -> Row:
    context, done = tx.context, accepted.order is None
    state = OperationState.SUCCEEDED if done else OperationState.PENDING
    return {
        "id": tx.operation_id,
        "kind": action.kind,
        "state": state.value,
        "target_type": accepted.target_type,
        "target_id": accepted.target_id,
        "target_name": accepted.target_name,
        "cluster_id": accepted.cluster_id,
        "parent_id": context.parent_id,
        "incident_id": accepted.incident_id or context.incident_id,
        "priority": int(context.priority),
        "principal": context.principal,
        "reason": context.reason,
        "correlation_id": context.correlation_id,
        "workflow": action.workflow if not done else None,
        "order": accepted.order.model_dump(mode="json") if accepted.order else None,
        "summary": accepted.summary or None,
        "created_at": tx.now,
        "started_at": tx.now if done else None,
        "finished_at": tx.now if done else None,
    }


def _event_row(tx: Tx, action: Action[Any], accepted: Accepted) -> Row:
    word = "done" if accepted.order is None else "accepted"
    return {
        "id": new_id(),
        "type": f"{action.kind}.{word}",
        "subject_type": accepted.target_type,
        "subject_id": accepted.target_id,
        "principal": tx.context.principal,
        "correlation_id": tx.context.correlation_id,
        "operation_id": tx.operation_id,
        "data": {"name": accepted.target_name} | accepted.data,
        "at": tx.now,
    }


def _fingerprint(kind: str, params: Params) -> str:
    # Secrets print as asterisks in a dump, so their own digest takes their place here.
    plain = json.dumps(_revealed(params.model_dump()), sort_keys=True, default=str)
    return hashlib.sha256(f"{kind}\n{plain}".encode()).hexdigest()


def _revealed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _revealed(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_revealed(item) for item in value]
    reveal = getattr(value, "get_secret_value", None)
    return value if reveal is None else hashlib.sha256(reveal().encode()).hexdigest()


def _replayed(found: Row, fingerprint: str) -> Receipt:
    if found["fingerprint"] != fingerprint:
        raise Invalid(
            "IDEMPOTENCY_KEY_REUSED",
            "this idempotency key was used for another request",
            next_step="use a fresh key for each new request",
            operation_id=str(found["operation_id"]),
        )
    return Receipt(operation_id=found["operation_id"], replayed=True)


async def _keep_key(tx: Tx, key: str, fingerprint: str) -> None:
    row: Row = {"principal": tx.context.principal, "key": key, "fingerprint": fingerprint}
    row |= {"operation_id": tx.operation_id, "created_at": tx.now}
    await plumbing.keep_key(tx.connection, row)
