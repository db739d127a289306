"""Statements that steer operations: cancel, pause, prioritise, wait for locks, sweep.

Whether a workflow owns an operation is its run id. What must not meet a workflow is done by a
statement that takes the row only while that id is missing, and a claim afterwards finds the
operation closed.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.operations import OPEN_STATES, OperationState
from store.bulk import update_many
from store.plumbing import START
from store.prebuilt import among, prebuilt
from store.rows import Row, changed, in_chunks, many, number, one
from store.schema import operation, outbox, step

OPEN = [state.value for state in OPEN_STATES]
GOING_ON = [state for state in OPEN if state != OperationState.CANCELLING]
LOCK_HELD = "LOCK_HELD"
"""The reason code of an operation that waits for its locks."""

PAUSED = "PAUSED"
"""The reason code of an operation that a person has paused."""


async def take_unclaimed(connection: AsyncConnection, operation_id: UUID) -> bool:
    """Take an operation that no workflow has claimed, in order to close it; False when one has."""
    query = operation.update().where(
        operation.c.id == operation_id, operation.c.state.in_(OPEN), operation.c.run_id.is_(None)
    )
    return await changed(connection, query.values(state=OperationState.CANCELLING.value)) == 1


async def take_unclaimed_children(
    connection: AsyncConnection, parent_id: UUID
) -> tuple[list[Row], set[UUID]]:
    """Take the open children that no workflow has claimed, as `take_unclaimed` does each.

    All open children, oldest first, and which of them have open children of their own.
    """
    query = operation.update().where(
        operation.c.parent_id == parent_id,
        operation.c.state.in_(OPEN),
        operation.c.run_id.is_(None),
    )
    await changed(connection, query.values(state=OperationState.CANCELLING.value))
    child = operation.alias("child")
    below = sa.select(operation.c.parent_id).distinct()
    below = below.join_from(operation, child, child.c.id == operation.c.parent_id)
    below = below.where(child.c.parent_id == parent_id, operation.c.state.in_(OPEN))
    parents = {row["parent_id"] for row in await many(connection, below)}
    return await open_children(connection, parent_id), parents


async def begin_cancel(connection: AsyncConnection, operation_id: UUID) -> bool:
    """Show that an open operation is being cancelled by its workflow. Repeatable."""
    query = operation.update().where(operation.c.id == operation_id, operation.c.state.in_(OPEN))
    values = {
        "state": OperationState.CANCELLING.value,
        "reason_code": None,
        "waiting_for": None,
    }
    return await changed(connection, query.values(**values)) == 1


async def pause(connection: AsyncConnection, operation_id: UUID, why: str) -> bool:
    """Show that an operation stands still; not of one that is being cancelled. Repeatable."""
    at_work = [state.value for state in (OperationState.RUNNING, OperationState.WAITING)]
    query = operation.update().where(
        operation.c.id == operation_id,
        operation.c.state.in_([*at_work, OperationState.PAUSED.value]),
    )
    values = {
        "state": OperationState.PAUSED.value,
        "reason_code": PAUSED,
        "waiting_for": why[:1024],
    }
    return await changed(connection, query.values(**values)) == 1


async def unpause(connection: AsyncConnection, operation_id: UUID) -> bool:
    """Show that a paused operation runs again. Repeatable."""
    query = operation.update().where(
        operation.c.id == operation_id, operation.c.state == OperationState.PAUSED.value
    )
    values = {"state": OperationState.RUNNING.value, "reason_code": None, "waiting_for": None}
    return await changed(connection, query.values(**values)) == 1


SET_PRIORITY = (
    operation.update()
    .where(operation.c.id == sa.bindparam("key"))
    .values(priority=sa.bindparam("wish"))
)


async def prioritise(connection: AsyncConnection, wanted: dict[UUID, int]) -> None:
    """Give operations other priority classes."""
    rows = [{"key": key, "wish": wish} for key, wish in wanted.items()]
    await update_many(connection, SET_PRIORITY, rows)


async def open_children(connection: AsyncConnection, parent_id: UUID) -> list[Row]:
    """Children that have not ended, oldest first."""
    query = sa.select(operation).where(
        operation.c.parent_id == parent_id, operation.c.state.in_(OPEN)
    )
    return await many(connection, query.order_by(operation.c.id))


def _lock_waiters() -> sa.Select[Any]:
    return sa.select(operation).where(
        operation.c.state == OperationState.WAITING.value, operation.c.reason_code == LOCK_HELD
    )


async def lock_waiters(
    connection: AsyncConnection, limit: int, *, after: Row | None = None
) -> list[Row]:
    """Operations that wait for their locks, in the order in which they get them; or those after."""
    query = _lock_waiters()
    if after is not None:
        later = sa.and_(operation.c.priority == after["priority"], operation.c.id > after["id"])
        query = query.where(sa.or_(operation.c.priority > after["priority"], later))
    query = query.order_by(operation.c.priority, operation.c.id).limit(limit)
    return await many(connection, query)


async def lock_waiters_before(connection: AsyncConnection, row: Row, limit: int) -> list[Row]:
    """The first of those that get what they wait for before this one, in that order."""
    query = _lock_waiters().where(_more_urgent(row))
    query = query.order_by(operation.c.priority, operation.c.id).limit(limit)
    return await many(connection, query)


async def held_before(connection: AsyncConnection, row: Row, *, urgent_first: bool) -> int:
    """How many children of the same batch are released before this one, see `batches.turns`."""
    query = sa.select(sa.func.count()).where(
        operation.c.parent_id == row["parent_id"],
        operation.c.held.is_(True),
        operation.c.state.in_(OPEN),
        _more_urgent(row) if urgent_first else operation.c.id < row["id"],
    )
    return await number(connection, query)


def _more_urgent(row: Row) -> sa.ColumnElement[bool]:
    """Of a more urgent class than this one, or older within the same."""
    return sa.or_(
        operation.c.priority < row["priority"],
        sa.and_(operation.c.priority == row["priority"], operation.c.id < row["id"]),
    )


@prebuilt
def _to_sweep(before: datetime, after: datetime, limit: int, /) -> sa.Select[Any]:
    starts = sa.exists().where(outbox.c.operation_id == operation.c.id, outbox.c.kind == START)
    looked = sa.func.coalesce(operation.c.swept_at, operation.c.created_at)
    query = sa.select(operation, starts.label("posted")).where(
        among(operation.c.state, OPEN),
        operation.c.workflow.is_not(None),
        operation.c.order.is_not(None),
        operation.c.held.is_(False),
        sa.or_(looked <= before, looked > after),
        ~starts.where(outbox.c.done_at.is_(None)),
    )
    return query.order_by(looked, operation.c.id).limit(limit)


async def to_sweep(
    connection: AsyncConnection, before: datetime, after: datetime, limit: int
) -> list[Row]:
    """Open operations whose workflow should exist and was not looked for since, longest ago first.

    A look of later than `after` is none: a clock that was ahead has noted it. Each row has
    `posted`: whether the outbox ever started it, else its parent's workflow does.
    """
    return await many(connection, _to_sweep(before, after, limit))


@prebuilt
def _left_held(limit: int, /) -> sa.Select[Any]:
    batch = operation.alias("batch")
    ended = sa.exists().where(batch.c.id == operation.c.parent_id, batch.c.state.not_in(OPEN))
    query = sa.select(operation).where(
        operation.c.held.is_(True), operation.c.state.in_(OPEN), ended
    )
    return query.order_by(operation.c.id).limit(limit)


async def left_held(connection: AsyncConnection, limit: int) -> list[Row]:
    """Open operations that wait for their turn in a batch that has ended."""
    return await many(connection, _left_held(limit))


async def note_swept(connection: AsyncConnection, ids: Sequence[UUID], now: datetime) -> None:
    """Remember when the workflows of these operations were looked for."""
    query = operation.update().where(operation.c.id.in_(ids))
    await changed(connection, query.values(swept_at=now))


async def show_reason(
    connection: AsyncConnection, operation_id: UUID, code: str, detail: str
) -> None:
    """Say what an open operation waits for; one that is being cancelled stays that."""
    cancelling = OperationState.CANCELLING.value
    state = sa.case(
        (operation.c.state == cancelling, cancelling), else_=OperationState.WAITING.value
    )
    query = operation.update().where(operation.c.id == operation_id, operation.c.state.in_(OPEN))
    values = {"state": state, "reason_code": code, "waiting_for": detail[:1024]}
    await changed(connection, query.values(**values, waiting_told_at=None))


async def show_unbegun(
    connection: AsyncConnection, operation_id: UUID, code: str, detail: str
) -> None:
    """The same of an operation that no workflow has claimed yet: who claims it tells itself."""
    query = operation.update().where(
        operation.c.id == operation_id,
        operation.c.state.in_((OperationState.PENDING.value, OperationState.WAITING.value)),
        operation.c.run_id.is_(None),
    )
    values = {"state": OperationState.WAITING.value, "reason_code": code}
    await changed(connection, query.values(**values, waiting_for=detail[:1024]))


async def show_no_longer(connection: AsyncConnection, operation_id: UUID, code: str) -> None:
    """Take that back, as soon as it does not hold any more; another reason stays."""
    query = operation.update().where(
        operation.c.id == operation_id,
        operation.c.state == OperationState.WAITING.value,
        operation.c.run_id.is_(None),
        operation.c.reason_code == code,
    )
    values = {"state": OperationState.PENDING.value, "reason_code": None, "waiting_for": None}
    await changed(connection, query.values(**values))


@prebuilt
def _steps_until(operation_id: UUID, /) -> sa.Select[Any]:
    return (
        sa.select(step.c.deadline_at)
        .where(
            step.c.operation_id == operation_id,
            step.c.deadline_at.is_not(None),
        )
        .order_by(step.c.deadline_at.desc())
        .limit(1)
    )


async def steps_until(connection: AsyncConnection, operation_id: UUID) -> datetime | None:
    """Until when a step that never said how it ended may still be at work, or None."""
    row = await one(connection, _steps_until(operation_id))
    return None if row is None else row["deadline_at"]


async def renew_step(
    connection: AsyncConnection,
    operation_id: UUID,
    attempt: int,
    step_id: str,
    tries: int,
    until: datetime,
) -> bool:
    """Move the deadline of a try that has not ended; False, and nothing changes, of any other."""
    query = step.update().where(
        step.c.operation_id == operation_id,
        step.c.attempt == attempt,
        step.c.step_id == step_id,
        step.c.tries <= tries,
        step.c.deadline_at.is_not(None),
    )
    return await changed(connection, query.values(deadline_at=until)) == 1


async def at_work(connection: AsyncConnection, rows: Iterable[Row], now: datetime) -> set[UUID]:
    """Operations of which a step of an earlier try may still be at work.

    Only one that is tried again has such steps, so of first tries the database is not asked.
    """
    found: set[UUID] = set()
    for some in in_chunks([row["id"] for row in rows if row["attempt"] > 1]):
        query = sa.select(step.c.operation_id).where(
            step.c.operation_id.in_(some),
            step.c.deadline_at > now,
        )
        found |= {row["operation_id"] for row in await many(connection, query)}
    return found


async def bar(connection: AsyncConnection, operation_id: UUID, attempt: int) -> None:
    """Put an unclaimed operation into a try that nobody starts, so that no earlier one claims it.

    It waits for no batch either: what looks for workflows is to find that it has none.
    """
    query = operation.update().where(
        operation.c.id == operation_id, operation.c.state.in_(OPEN), operation.c.run_id.is_(None)
    )
    cancelling = OperationState.CANCELLING.value
    await changed(connection, query.values(state=cancelling, attempt=attempt, held=False))


async def latest_of_kind(connection: AsyncConnection, kind: str, limit: int) -> list[Row]:
    """When the newest successful operations of a kind began and ended."""
    query = (
        sa.select(operation.c.started_at, operation.c.finished_at)
        .where(operation.c.kind == kind, operation.c.state == OperationState.SUCCEEDED.value)
        .order_by(operation.c.id.desc())
        .limit(limit)
    )
    return await many(connection, query)


async def forget_posts(
    connection: AsyncConnection, operation_ids: Iterable[UUID], now: datetime
) -> None:
    """Drop what Temporal was still to be told of earlier tries: it would hit the next one."""
    ids = list(operation_ids)
    for some in in_chunks(ids):
        query = outbox.update().where(outbox.c.operation_id.in_(some), outbox.c.done_at.is_(None))
        await changed(connection, query.values(done_at=now))


async def waiting_for(connection: AsyncConnection, cluster_id: UUID, code: str) -> list[UUID]:
    """Operations of a cluster that wait for this reason, oldest first."""
    query = sa.select(operation.c.id).where(
        operation.c.cluster_id == cluster_id,
        operation.c.state == OperationState.WAITING.value,
        operation.c.reason_code == code,
    )
    return [row["id"] for row in await many(connection, query.order_by(operation.c.id))]


def goes_on(operation_id: UUID) -> sa.ColumnElement[bool]:
    """Whether an operation is open and not to be cancelled, and so is the one it is a part of.

    The workflow of one that was closed for it may not have heard of that yet.
    """
    parent = operation.alias("parent")
    ended = sa.exists().where(parent.c.id == operation.c.parent_id, parent.c.state.not_in(GOING_ON))
    return sa.exists().where(
        operation.c.id == operation_id,
        operation.c.state.in_(GOING_ON),
        ~ended.correlate(operation),
    )
