"""How an operation ends: row, event, locks and whoever waits for it, in one transaction."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from domain.operations import OperationState, Outcome
from store import locks, made_room, operations, plumbing
from store.ids import new_id
from store.notify import announce
from store.rows import Row

LOOK_AGAIN = "look_again"
"""The signal that only says: something may have changed."""

BATCH = "batch"
STOP = "vm.stop"
MAINTAIN = "host.maintain"
SHUTDOWN = "host.shutdown"
REBOOT = "host.reboot"
EMPTYING = frozenset({MAINTAIN, SHUTDOWN, REBOOT})
"""Kinds of operations that empty a host: its failure, or its reboot by itself, outranks them."""

WATCHING = (BATCH, *sorted(EMPTYING))
"""Kinds of operations that watch their children by their rows."""


async def close_operation(
    connection: AsyncConnection, outcome: Outcome, now: datetime, reason_code: str | None = None
) -> bool:
    """Close an operation with everything that goes with it.

    False, and nothing is touched, when it was closed already or is in another try by now: the same
    close may be repeated late.
    """
    problem = outcome.problem.model_dump(mode="json") if outcome.problem else None
    if outcome.state is OperationState.CANCELLED and reason_code is None and outcome.problem:
        reason_code = "superseded"
    closed = await operations.close(
        connection,
        outcome.operation_id,
        outcome.state,
        now,
        problem=problem,
        summary=outcome.summary,
        reason_code=reason_code,
        attempt=outcome.attempt,
    )
    if not closed:
        return False
    await operations.end_steps(connection, outcome.operation_id, now)
    await locks.free(connection, outcome.operation_id)
    await announce(connection, "outbox")
    row = await operations.with_parent(connection, outcome.operation_id)
    assert row is not None
    await plumbing.append_event(connection, closed_event(row, outcome, now))
    if row["kind"] == STOP:
        waiter = await made_room.waiting_for(connection, outcome.operation_id)
        if waiter is not None:
            await look_again(connection, waiter, now)
    if row["parent_kind"] == BATCH and row["parent_state"] in operations.OPEN:
        await look_again(connection, row["parent_id"], now)
    return True


async def tell_parent(connection: AsyncConnection, parent_id: UUID, now: datetime) -> None:
    """Let a parent that watches its children's rows look again; of another one nothing comes."""
    parent = await operations.get(connection, parent_id)
    if parent is None or parent["kind"] not in WATCHING or parent["state"] not in operations.OPEN:
        return
    await look_again(connection, parent_id, now)


async def look_again(connection: AsyncConnection, operation_id: UUID, now: datetime) -> None:
    """Tell an operation's workflow that something may have changed, unless it is told already."""
    if not await plumbing.is_posted(connection, operation_id, plumbing.SIGNAL, LOOK_AGAIN):
        await plumbing.post(connection, new_id(), operation_id, now, plumbing.SIGNAL, LOOK_AGAIN)


def closed_event(row: Row, outcome: Outcome, now: datetime) -> Row:
    """How an operation ended, as an event."""
    data: dict[str, Any] = {"name": row["target_name"], "summary": outcome.summary}
    if outcome.problem is not None:
        data["code"] = outcome.problem.code
    return {
        "id": new_id(),
        "type": f"{row['kind']}.{outcome.state}",
        "subject_type": row["target_type"],
        "subject_id": row["target_id"],
        "principal": row["principal"],
        "correlation_id": row["correlation_id"],
        "operation_id": row["id"],
        "reason": row["reason"],
        "data": data,
        "at": now,
    }
