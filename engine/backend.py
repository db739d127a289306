"""The one door: every change is an action, everything else a query.

`run_action` is one transaction: the idempotency key, the action's own check and writes, its locks,
the operation, its event and its outbox row, or none of them. After the commit the workflow is
started at once; where that fails the relay does it from the outbox, and Temporal being down costs
nothing but time. Called inside an open transaction it joins that: then all of it happens only if
the outer commits.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Protocol, TypeVar
from uuid import UUID

import structlog
from pydantic import Field
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.base import Frozen
from domain.context import ActionContext, PriorityClass
from domain.errors import Refused
from engine.acceptance import LOCK_WAIT_MAX_S, Acceptance, Judged, Terms
from engine.actions.base import Action, Params, Tx
from engine.batches import (
    PARENT,
    Batch,
    BatchOptions,
    BatchReceipt,
    check_size,
    described,
)
from engine.clock import Clock, utc_now
from engine.keys import Key, fingerprint, keep_key, replayed
from engine.previews import shown
from engine.public import RateLimit, refuse_private
from engine.queries.base import FixedQuery, Query, QueryParams
from engine.refusals import refused_event, remember
from engine.roles import Roles
from engine.rows import context_of
from engine.views import DryRunView
from store import inventory, plumbing
from store.database import Database
from store.rows import Row
from store.unit_of_work import Propagation, current_unit

log = structlog.get_logger()

Accepted = TypeVar("Accepted")

DELIVERIES_AT_ONCE = 4
"""Operations of one transaction that Temporal is told of at a time. Higher: a batch's first starts
are a little sooner, and requests wait for a connection meanwhile."""


class Options(Frozen):
    """How a caller wants an action to be taken.

    dry_run       validate, authorise, show locks and plan, and change nothing
    lock_wait_s   how long to wait for locks that others hold; 0 refuses at once
    priority      a less urgent class than the table would give
    """

    dry_run: bool = False
    lock_wait_s: float = Field(default=0.0, ge=0, le=LOCK_WAIT_MAX_S)
    priority: PriorityClass | None = None


class Receipt(Frozen):
    """The answer to an action: its operation, and whether it had been accepted before."""

    operation_id: UUID
    replayed: bool = False


class Deliverer(Protocol):
    """Tells Temporal what an accepted operation needs."""

    async def deliver(self, operation_id: UUID) -> None:
        """Tell it now; failures are kept for the relay, never raised."""
        ...


class Backend:
    """Accepts actions and answers queries; see the module."""

    def __init__(
        self,
        database: Database,
        actions: Iterable[Action[Any, Any]],
        queries: Iterable[Query[Any, Any]],
        deliverer: Deliverer | None = None,
        clock: Clock = utc_now,
        roles: Roles | None = None,
    ) -> None:
        self.database = database
        self.acceptance = Acceptance(actions, roles or Roles())
        self._queries = {query.params: query for query in queries}
        self._deliverer = deliverer
        self._clock = clock
        self._limit = RateLimit()
        self._deliveries: set[asyncio.Task[None]] = set()

    async def run_action(
        self,
        params: Params,
        context: ActionContext,
        idempotency_key: str | None = None,
        options: Options | None = None,
    ) -> Receipt:
        """Accept an action, or raise why not; then only an audit event of the refusal is written.

        With a key, the same request again gives the first answer; another request, or the same with
        other options, is refused under it.
        """
        options = options or Options()
        terms = Terms(lock_wait_s=options.lock_wait_s, asked=options.priority)
        action = self.acceptance.action_of(params)

        async def accept(tx: Tx) -> Receipt:
            with self._audited(action, params, context):
                return Receipt(operation_id=await self._accept(tx, params, terms))

        def again(operation_id: UUID) -> Receipt:
            return Receipt(operation_id=operation_id, replayed=True)

        key = self._key(idempotency_key, [params], options)
        await self._prepare([params], context)
        receipt = await self._once(context, key, accept, again)
        log.info(
            "action accepted",
            kind=action.kind,
            operation_id=str(receipt.operation_id),
            principal=context.principal,
            correlation_id=context.correlation_id,
            replayed=receipt.replayed,
        )
        return receipt

    async def run_multiple_actions(
        self,
        items: Sequence[Params],
        context: ActionContext,
        options: BatchOptions | None = None,
        idempotency_key: str | None = None,
    ) -> BatchReceipt:
        """Accept up to a thousand actions, of one or many kinds, as children of one operation.

        Returns at once; what is refused is a child that failed. Invalid: BATCH_EMPTY,
        BATCH_TOO_LARGE, and with `all_or_nothing` BATCH_REFUSED, which has every item's reasons.
        Denied when its principal may do nothing of it. The key covers all items and options.
        """
        check_size(len(items))
        options = options or BatchOptions()
        whole = described(self.acceptance, items, options)

        async def accept(tx: Tx) -> BatchReceipt:
            with self._audited(PARENT, whole, context):
                receipt = await Batch(self.acceptance, tx, items, options).accept()
                await self.write_out(tx)
            return receipt

        def again(operation_id: UUID) -> BatchReceipt:
            return BatchReceipt(operation_id=operation_id, replayed=True)

        key = self._key(idempotency_key, items, options)
        await self._prepare(items, context)
        receipt = await self._once(context, key, accept, again)
        log.info(
            "batch accepted",
            operation_id=str(receipt.operation_id),
            principal=context.principal,
            correlation_id=context.correlation_id,
            **receipt.model_dump(exclude={"operation_id"}),
        )
        return receipt

    async def dry_run_multiple(
        self,
        items: Sequence[Params],
        context: ActionContext,
        options: BatchOptions | None = None,
    ) -> tuple[DryRunView, ...]:
        """What `run_multiple_actions` would do with each item now: done, and rolled back.

        Denied when its principal may do nothing of it.
        """
        check_size(len(items))

        async def attempt(connection: AsyncConnection) -> tuple[DryRunView, ...]:
            tx = self.transaction(connection, context)
            everything = await connection.begin_nested()
            views = await Batch(self.acceptance, tx, items, options or BatchOptions()).preview()
            await everything.rollback()
            return views

        await self._prepare(items, context)
        return await self.database.write(attempt)

    async def run_child(
        self,
        params: Params,
        parent: Row,
        terms: Terms,
        *,
        reason: str = "",
        incident_id: UUID | None = None,
    ) -> UUID:
        """Accept an action as a part of an operation, in the transaction that is open.

        It inherits whose request it is, as part of what, and the urgency; who asked was authorised
        with the parent. `incident_id`: it serves this incident, where its parent serves none.
        Conflict (`TRANSACTION_REQUIRED`) outside a transaction.
        """
        part = {"reason": reason or parent["reason"], "parent_id": parent["id"]}
        part |= {"incident_id": incident_id or parent["incident_id"]}
        context = context_of(parent).model_copy(update=part)

        async def accept(connection: AsyncConnection) -> UUID:
            tx = self.transaction(connection, context)
            return await self._accept(tx, params, replace(terms, internal=True, lenient=True))

        return await self.database.write(accept, Propagation.MANDATORY)

    async def dry_run(
        self, params: Params, context: ActionContext, options: Options | None = None
    ) -> DryRunView:
        """What `run_action` would do now: every problem, the locks, the steps. Changes nothing."""
        options = options or Options()
        terms = Terms(lock_wait_s=options.lock_wait_s, asked=options.priority)

        async def judge(connection: AsyncConnection) -> Judged:
            return await self.acceptance.judge(self.transaction(connection, context), params, terms)

        await self._prepare([params], context)
        return shown(await self.database.read(judge), options.lock_wait_s)

    async def run_query(self, params: QueryParams) -> Any:
        """Answer a query from one consistent view."""
        query = self._queries[type(params)]
        if isinstance(query, FixedQuery):
            return query.tell(params)

        async def answer(connection: AsyncConnection) -> Any:
            return await query.answer(connection, params, self._clock())

        return await self.database.read(answer)

    async def run_public_query(self, params: QueryParams, source: str) -> Any:
        """Answer a query without authentication; Denied unless it is declared public.

        `source` is the address that asks: each has its own rate limit.
        """
        refuse_private(self._queries[type(params)])
        self._limit.take(source)
        return await self.run_query(params)

    async def close(self) -> None:
        """Wait for the starts under way."""
        await asyncio.gather(*self._deliveries, return_exceptions=True)

    def transaction(
        self,
        connection: AsyncConnection,
        context: ActionContext,
        operation_id: UUID | None = None,
        attempt: int = 1,
    ) -> Tx:
        """What actions work with inside one transaction."""
        return self.acceptance.transaction(
            connection, self._clock(), context, operation_id, attempt
        )

    async def write_out(self, tx: Tx) -> None:
        """Write what was collected; once it is committed, tell Temporal without a relay's delay."""
        if tx.writes.to_tell:
            current_unit().on_commit(partial(self._deliver, tuple(tx.writes.to_tell)))
        await tx.writes.flush()

    async def _prepare(self, items: Iterable[Params], context: ActionContext) -> None:
        """Fetch ahead what the plans need from outside the database; for nobody who is denied."""
        for params in items:
            action = self.acceptance.action_of(params)
            if self.acceptance.denied(context.principal, action) is None:
                await action.prepare(params, self._look)

    async def _look(self, entity: str, entity_id: UUID) -> Row | None:
        return await self.database.read(lambda c: inventory.get(c, entity, entity_id))

    def _key(self, text: str | None, items: Sequence[Params], options: Frozen) -> Key | None:
        if text is None:
            return None
        kinds = (self.acceptance.action_of(params).kind for params in items)
        return Key(text, fingerprint(zip(kinds, items, strict=True), options))

    async def _once(
        self,
        context: ActionContext,
        key: Key | None,
        accept: Callable[[Tx], Awaitable[Accepted]],
        again: Callable[[UUID], Accepted],
    ) -> Accepted:
        """Accept in one transaction, or give again what the key stands for."""

        async def work(connection: AsyncConnection) -> Accepted:
            if key is not None:
                known = await plumbing.find_key(connection, context.principal, key.text)
                if known is not None:
                    return again(replayed(known, key.fingerprint))
            tx = self.transaction(connection, context)
            accepted = await accept(tx)
            if key is not None:
                await keep_key(tx, key.text, key.fingerprint)
            return accepted

        return await self.database.write(work)

    async def _accept(self, tx: Tx, params: Params, terms: Terms) -> UUID:
        operation_id = await self.acceptance.accept(tx, params, terms)
        await self.write_out(tx)
        return operation_id

    @contextmanager
    def _audited(
        self, action: Action[Any, Any], params: Params, context: ActionContext
    ) -> Iterator[None]:
        """Remember a refusal, though the transaction that it ends leaves nothing behind."""
        try:
            yield
        except Refused as error:
            if action.audited:
                row = refused_event(action, params, context, error, self._clock())
                current_unit().on_rollback(lambda: remember(self.database, row))
            raise

    async def _deliver(self, operation_ids: tuple[UUID, ...]) -> None:
        if self._deliverer is None:
            return
        task = asyncio.create_task(_deliver_all(self._deliverer, operation_ids))
        self._deliveries.add(task)
        task.add_done_callback(self._deliveries.discard)


async def _deliver_all(deliverer: Deliverer, operation_ids: tuple[UUID, ...]) -> None:
    waiting = iter(operation_ids)

    async def deliver() -> None:
        for operation_id in waiting:
            await deliverer.deliver(operation_id)

    await asyncio.gather(*(deliver() for _ in operation_ids[:DELIVERIES_AT_ONCE]))
