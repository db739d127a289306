"""Statements on batches: how their children stand, letting some go, ending many at once."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.operations import OPEN_STATES, OperationState
from store.bulk import update_many
from store.rows import Row, changed, many, one
from store.schema import entity_lock, operation

OPEN = [state.value for state in OPEN_STATES]
FAILED = [OperationState.FAILED.value, OperationState.NEEDS_ATTENTION.value]
MANY = 200
"""Children that one statement names: far below what every database takes as parameters."""


async def counts(connection: AsyncConnection, parent_id: UUID) -> list[tuple[str, bool, int]]:
    """How many children are in each state, held ones apart."""
    query = (
        sa.select(operation.c.state, operation.c.held, sa.func.count().label("count"))
        .where(operation.c.parent_id == parent_id)
        .group_by(operation.c.state, operation.c.held)
    )
    rows = await many(connection, query)
    return [(row["state"], bool(row["held"]), row["count"]) for row in rows]


async def first_failed(connection: AsyncConnection, parent_id: UUID) -> UUID | None:
    """The first child, in the order of the request, that did not succeed and was not cancelled."""
    query = (
        sa.select(operation.c.id)
        .where(operation.c.parent_id == parent_id, operation.c.state.in_(FAILED))
        .order_by(operation.c.id)
        .limit(1)
    )
    row = await one(connection, query)
    return None if row is None else row["id"]


async def held(
    connection: AsyncConnection, parent_id: UUID, *, after: UUID | None = None, limit: int = MANY
) -> list[Row]:
    """Children that are not let go yet, in the order of the request, or those after a child."""
    query = _held(parent_id).where(operation.c.state.in_(OPEN))
    if after is not None:
        query = query.where(operation.c.id > after)
    return await many(connection, query.order_by(operation.c.id).limit(limit))


async def turns(
    connection: AsyncConnection, parent_id: UUID, limit: int, *, urgent_first: bool
) -> list[UUID]:
    """The next children to let go; those that wait for locks are passed over until then.

    Most urgent first and within a class in the order of the request, or in that order alone.
    """
    query = _held(parent_id).where(operation.c.state == OperationState.PENDING.value)
    if urgent_first:
        query = query.order_by(operation.c.priority)
    rows = await many(connection, query.order_by(operation.c.id).limit(limit))
    return [row["id"] for row in rows]


def _held(parent_id: UUID) -> sa.Select[tuple[object, ...]]:
    return sa.select(operation).where(
        operation.c.parent_id == parent_id, operation.c.held.is_(True)
    )


async def let_go(connection: AsyncConnection, ids: Sequence[UUID]) -> int:
    """Let held children go: the outbox must start them in the same transaction."""
    released = 0
    for start in range(0, len(ids), MANY):
        query = operation.update().where(
            operation.c.id.in_(ids[start : start + MANY]), operation.c.held.is_(True)
        )
        released += await changed(connection, query.values(held=False, reason_code=None))
    return released


END = (
    operation.update()
    .where(operation.c.id == sa.bindparam("key"))
    .values(
        state=sa.bindparam("end"),
        summary=sa.bindparam("sentence"),
        reason_code=sa.bindparam("why"),
        finished_at=sa.bindparam("at", type_=operation.c.finished_at.type),
        waiting_for=None,
        held=False,
    )
)


async def cancel_held(
    connection: AsyncConnection, summaries: dict[UUID, str], reason_code: str, now: datetime
) -> None:
    """End children that never began and that this transaction has read; free their locks."""
    same = {"end": OperationState.CANCELLED.value, "why": reason_code, "at": now}
    rows = [{"key": key, "sentence": text[:1024]} | same for key, text in summaries.items()]
    await update_many(connection, END, rows)
    ids = list(summaries)
    for start in range(0, len(ids), MANY):
        named = ids[start : start + MANY]
        await changed(connection, entity_lock.delete().where(entity_lock.c.operation_id.in_(named)))


async def released(
    connection: AsyncConnection, parent_id: UUID, *, after: UUID | None, limit: int = MANY
) -> list[Row]:
    """Children that were let go and have not ended, in the order of the request."""
    query = sa.select(operation).where(
        operation.c.parent_id == parent_id,
        operation.c.held.is_(False),
        operation.c.state.in_(OPEN),
    )
    if after is not None:
        query = query.where(operation.c.id > after)
    return await many(connection, query.order_by(operation.c.id).limit(limit))


async def ranked(
    connection: AsyncConnection, parent_id: UUID, ranks: Sequence[Sequence[str]], limit: int
) -> list[Row]:
    """The first children by the rank of their state, and within it in the order of the request."""
    rank = sa.case(
        *((operation.c.state.in_(states), number) for number, states in enumerate(ranks)),
        else_=len(ranks),
    )
    query = sa.select(operation).where(operation.c.parent_id == parent_id)
    return await many(connection, query.order_by(rank, operation.c.id).limit(limit))


async def show_progress(connection: AsyncConnection, operation_id: UUID, done: int) -> None:
    """Write how many children have ended; nothing where that is known."""
    query = operation.update().where(
        operation.c.id == operation_id, operation.c.progress_done.is_distinct_from(done)
    )
    await changed(connection, query.values(progress_done=done))
