"""Rows of batches: let children go, count them, stop or cancel what is left.

A look is repeatable and may race with anything: what it lets go is started through the outbox of
the same transaction, and a child that ended or was cancelled meanwhile is not held any more. Many
children are ended in several short transactions rather than in one that others would wait for.
"""

from collections import Counter
from functools import partial
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from activities.batches import BatchProgress
from domain.errors import NotFound
from domain.operations import OperationState
from engine.actions.base import Tx
from engine.actions.batch import RunBatch
from engine.backend import Backend
from engine.batches import STOPPED
from engine.cancelling import cancel_operation, cancel_unbegun
from engine.closing import BATCH
from engine.rows import context_of
from store import batches, operations
from store.database import Database
from store.rows import Row

AT_A_TIME = 100
"""Children that one transaction ends. Higher: other writers wait longer for it."""

CANCELLED = "batch_cancelled"
"""The reason code of children that never began because their batch was cancelled."""


class BatchRecords:
    """Implements the port of `activities.batches`."""

    def __init__(self, database: Database, backend: Backend) -> None:
        self._database = database
        self._backend = backend

    async def advance(self, operation_id: UUID) -> BatchProgress:
        """Let held children go up to the limit, urgent ones first, and count all of them."""
        progress = None
        while progress is None:
            progress = await self._database.write(partial(self._look, operation_id=operation_id))
        return progress

    async def cancel_rest(self, operation_id: UUID) -> str:
        """Cancel held children, ask the others to cancel; a sentence with both numbers."""
        cancel = partial(self._cancel_held, operation_id=operation_id)
        never, asked = 0, 0
        while ended := await self._database.write(cancel):
            never += ended
        after: UUID | None = None
        while ids := await self._database.write(
            partial(self._ask, operation_id=operation_id, after=after)
        ):
            asked, after = asked + len(ids), ids[-1]
        return f"{never} cancelled before they began, {asked} asked to cancel"

    async def _look(self, connection: AsyncConnection, operation_id: UUID) -> BatchProgress | None:
        """One look; None: there is more to stop than one transaction should."""
        parent, params, tx = await self._batch(connection, operation_id)
        failed = None
        if params.stop_on_error:
            failed = await batches.first_failed(connection, operation_id)
        if failed is not None:
            late = await batches.held(connection, operation_id, after=failed, limit=AT_A_TIME)
            await cancel_unbegun(tx, late, STOPPED, "never began: an action before it failed")
            if len(late) == AT_A_TIME:
                return None
        progress = await _counted(connection, operation_id, stopped=failed is not None)
        if parent["state"] != OperationState.CANCELLING:
            progress = await _let_go(tx, progress, params)
        done = progress.total - progress.open - progress.held
        await batches.show_progress(connection, operation_id, done)
        await self._backend.write_out(tx)
        return progress

    async def _cancel_held(self, connection: AsyncConnection, operation_id: UUID) -> int:
        _parent, _params, tx = await self._batch(connection, operation_id)
        rows = await batches.held(connection, operation_id, limit=AT_A_TIME)
        await cancel_unbegun(tx, rows, CANCELLED, "cancelled with its batch before it began")
        return len(rows)

    async def _ask(
        self, connection: AsyncConnection, operation_id: UUID, after: UUID | None
    ) -> list[UUID]:
        _parent, _params, tx = await self._batch(connection, operation_id)
        rows = await batches.released(connection, operation_id, after=after, limit=AT_A_TIME)
        for row in rows:
            await cancel_operation(tx, row)
        await self._backend.write_out(tx)
        return [row["id"] for row in rows]

    async def _batch(
        self, connection: AsyncConnection, operation_id: UUID
    ) -> tuple[Row, RunBatch, Tx]:
        row = await operations.get(connection, operation_id)
        if row is None or row["kind"] != BATCH:
            raise NotFound("OPERATION_NOT_FOUND", f"there is no batch {operation_id}")
        tx = self._backend.transaction(connection, context_of(row), operation_id, row["attempt"])
        return row, RunBatch.model_validate(row["params"]), tx


async def _counted(
    connection: AsyncConnection, operation_id: UUID, *, stopped: bool
) -> BatchProgress:
    found = Counter[str]()
    for state, held, count in await batches.counts(connection, operation_id):
        is_open = state in operations.OPEN
        found["held" if is_open and held else "open" if is_open else state] += count
    return BatchProgress(
        total=found.total(),
        succeeded=found[OperationState.SUCCEEDED],
        failed=found[OperationState.FAILED] + found[OperationState.NEEDS_ATTENTION],
        cancelled=found[OperationState.CANCELLED],
        open=found["open"],
        held=found["held"],
        stopped=stopped,
    )


async def _let_go(tx: Tx, progress: BatchProgress, params: RunBatch) -> BatchProgress:
    free = params.at_once - progress.open
    if free <= 0 or progress.held == 0:
        return progress
    urgent_first = params.urgent_first
    ids = await batches.turns(tx.connection, tx.operation_id, free, urgent_first=urgent_first)
    await batches.let_go(tx.connection, ids)
    for operation_id in ids:
        tx.writes.post_soon(operation_id, tx.now)
    changes = {"open": progress.open + len(ids), "held": progress.held - len(ids)}
    return progress.model_copy(update=changes)
