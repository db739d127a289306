"""What keeps an open operation from going on."""

from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from domain.operations import OperationState
from engine.acceptance import Acceptance
from engine.actions.batch import RunBatch
from engine.queries.lock_waits import lock_waits
from engine.views import BlockView
from store import control, operations, plumbing
from store.rows import Row


async def blocks(
    connection: AsyncConnection, door: Acceptance, row: Row, now: datetime
) -> tuple[BlockView, ...]:
    """Everything that an operation waits for now; nothing while it is at work."""
    if row["reason_code"] == control.LOCK_HELD:
        return await lock_waits(connection, door, row, now)
    if row["held"] and row["parent_id"] is not None:
        return (await _batch(connection, row),)
    if row["waiting_for"]:
        return (BlockView(what="reason", detail=row["waiting_for"]),)
    if row["run_id"] is None and row["state"] == OperationState.PENDING:
        return await _queue(connection, row)
    return ()


async def _batch(connection: AsyncConnection, row: Row) -> BlockView:
    parent = await operations.get(connection, row["parent_id"])
    urgent_first = parent is None or RunBatch.model_validate(parent["params"]).urgent_first
    before = await control.held_before(connection, row, urgent_first=urgent_first)
    return BlockView(
        what="batch",
        detail=f"its batch lets only so many run at a time; {before} others go before it",
        operation_id=row["parent_id"],
        position=before,
    )


async def _queue(connection: AsyncConnection, row: Row) -> tuple[BlockView, ...]:
    position = await plumbing.position(connection, row["id"])
    if position is None:
        return ()
    posted = await plumbing.posted(connection, row["id"])
    why = (posted or {}).get("last_error")
    detail = f"it is not started yet, and {position} others are started first"
    if why:
        detail += f"; the last try: {why}"
    return (BlockView(what="queue", detail=detail, position=position),)
