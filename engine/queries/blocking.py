"""What keeps an open operation from going on, and when it may be expected to end."""

from datetime import datetime, timedelta
from statistics import median

from sqlalchemy.ext.asyncio import AsyncConnection

from domain.operations import OperationState
from engine.views import BlockView
from store import control, locks, plumbing
from store.rows import Row

LATEST = 20
"""How many of the newest successful operations of a kind a prediction looks at."""


async def blocks(connection: AsyncConnection, row: Row) -> tuple[BlockView, ...]:
    """Everything that an operation waits for now; nothing while it is at work."""
    if row["reason_code"] == control.LOCK_HELD:
        return await _locks(connection, row)
    if row["held"] and row["parent_id"] is not None:
        return (await _batch(connection, row),)
    if row["waiting_for"]:
        return (BlockView(what="reason", detail=row["waiting_for"]),)
    if row["run_id"] is None and row["state"] == OperationState.PENDING:
        return await _queue(connection, row)
    return ()


async def _locks(connection: AsyncConnection, row: Row) -> tuple[BlockView, ...]:
    """Who holds its target, and how many get it first; a lock on anything else is told in words."""
    entity = (row["target_type"], row["target_id"])
    held = (await locks.held(connection, [entity])).get(entity, [])
    found = [
        BlockView(
            what="lock",
            detail=f"{one.kind} ({one.state}) holds this {row['target_type']}",
            operation_id=one.operation_id,
            kind=one.kind,
        )
        for one in held
    ]
    before = await control.lock_waiters_before(connection, row)
    if before:
        detail = f"{before} others wait for this {row['target_type']} and get it first"
        found.append(BlockView(what="lock", detail=detail, position=before))
    return tuple(found) or (BlockView(what="reason", detail=row["waiting_for"] or ""),)


async def _batch(connection: AsyncConnection, row: Row) -> BlockView:
    before = await control.held_before(connection, row)
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


async def predicted_end(connection: AsyncConnection, row: Row, now: datetime) -> datetime | None:
    """When a running operation may be expected to end; None where nothing honest can be said.

    What is counted goes on at its pace so far. Anything else is taken to last as long as the median
    of the latest successful operations of its kind did, until it has lasted longer.
    """
    began: datetime | None = row["started_at"]
    if row["state"] != OperationState.RUNNING or began is None:
        return None
    if row["progress_total"]:
        done, total = row["progress_done"] or 0, row["progress_total"]
        return began + (now - began) * total / done if done else None
    latest = await control.latest_of_kind(connection, row["kind"], LATEST)
    took = [
        (one["finished_at"] - one["started_at"]).total_seconds()
        for one in latest
        if one["started_at"] is not None and one["finished_at"] is not None
    ]
    end = began + timedelta(seconds=median(took)) if took else None
    return end if end is not None and end > now else None
