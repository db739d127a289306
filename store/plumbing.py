"""Statements on locks, idempotency keys, the outbox and events."""

from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from store.rows import Row, changed, many, number, one
from store.schema import event, idempotency_key, lock, operation, outbox


async def lock_holder(connection: AsyncConnection, entity_type: str, entity_id: UUID) -> Row | None:
    """The lock on one entity with its operation's kind, or None when it is free."""
    query = (
        sa.select(lock, operation.c.kind, operation.c.state)
        .join(operation, operation.c.id == lock.c.operation_id)
        .where(lock.c.entity_type == entity_type, lock.c.entity_id == entity_id)
    )
    return await one(connection, query)


async def take_lock(
    connection: AsyncConnection,
    entity_type: str,
    entity_id: UUID,
    operation_id: UUID,
    now: datetime,
) -> None:
    """Take a free lock; a lost race for it breaks the primary key and the caller tries again."""
    row = {"entity_type": entity_type, "entity_id": entity_id, "operation_id": operation_id}
    await changed(connection, lock.insert().values(**row, generation=1, acquired_at=now))


async def seize_lock(
    connection: AsyncConnection,
    entity_type: str,
    entity_id: UUID,
    operation_id: UUID,
    now: datetime,
) -> UUID | None:
    """Take a lock whoever holds it, raising its generation; the operation that lost it, if any."""
    held = await lock_holder(connection, entity_type, entity_id)
    if held is None:
        await take_lock(connection, entity_type, entity_id, operation_id, now)
        return None
    query = lock.update().where(
        lock.c.entity_type == entity_type,
        lock.c.entity_id == entity_id,
        lock.c.generation == held["generation"],
    )
    values = {
        "operation_id": operation_id,
        "generation": held["generation"] + 1,
        "acquired_at": now,
    }
    await changed(connection, query.values(**values))
    loser: UUID = held["operation_id"]
    return None if loser == operation_id else loser


async def holds_lock(
    connection: AsyncConnection, entity_type: str, entity_id: UUID, operation_id: UUID
) -> bool:
    """Whether an operation holds the lock on an entity."""
    held = await lock_holder(connection, entity_type, entity_id)
    return held is not None and held["operation_id"] == operation_id


async def free_locks(
    connection: AsyncConnection, operation_id: UUID, entity_type: str | None = None
) -> int:
    """Free an operation's locks, all or those on one type of entity; how many there were."""
    query = lock.delete().where(lock.c.operation_id == operation_id)
    if entity_type is not None:
        query = query.where(lock.c.entity_type == entity_type)
    return await changed(connection, query)


async def find_key(connection: AsyncConnection, principal: str, key: str) -> Row | None:
    """What an idempotency key stands for, or None."""
    query = sa.select(idempotency_key).where(
        idempotency_key.c.principal == principal, idempotency_key.c.key == key
    )
    return await one(connection, query)


async def keep_key(connection: AsyncConnection, values: Row) -> None:
    """Bind an idempotency key to an operation."""
    await changed(connection, idempotency_key.insert().values(**values))


async def post(
    connection: AsyncConnection, row_id: UUID, operation_id: UUID, now: datetime
) -> None:
    """Note that an operation's workflow is to be started."""
    row = {"id": row_id, "operation_id": operation_id, "due_at": now}
    await changed(connection, outbox.insert().values(**row))


def _starts() -> sa.Select[Any]:
    columns = (
        operation.c.workflow,
        operation.c.order,
        operation.c.attempt,
        operation.c.priority,
        operation.c.cluster_id,
        operation.c.kind,
        operation.c.target_name,
    )
    joined = sa.select(outbox, *columns).join(operation, operation.c.id == outbox.c.operation_id)
    return joined.where(outbox.c.done_at.is_(None))


async def due(connection: AsyncConnection, now: datetime, limit: int) -> list[Row]:
    """Starts that are due, most urgent first, each with what the start needs."""
    query = _starts().where(outbox.c.due_at <= now)
    return await many(connection, query.order_by(operation.c.priority, outbox.c.id).limit(limit))


async def posted(connection: AsyncConnection, operation_id: UUID) -> Row | None:
    """The pending start of one operation, with what the start needs."""
    return await one(connection, _starts().where(outbox.c.operation_id == operation_id))


async def delivered(connection: AsyncConnection, row_id: UUID, now: datetime) -> None:
    """Mark a start as done; repeatable."""
    await changed(connection, outbox.update().where(outbox.c.id == row_id).values(done_at=now))


async def postpone(connection: AsyncConnection, row_id: UUID, due_at: datetime, error: str) -> None:
    """Try a start again later, keeping why it failed."""
    values = {"due_at": due_at, "last_error": error[:1024], "tries": outbox.c.tries + 1}
    await changed(connection, outbox.update().where(outbox.c.id == row_id).values(**values))


async def append_event(connection: AsyncConnection, values: Row) -> None:
    """Write an event; it has no number until the sequencer gives it one."""
    await changed(connection, event.insert().values(**values))


async def unnumbered_events(connection: AsyncConnection) -> bool:
    """Whether any committed event waits for its number."""
    query = sa.select(event.c.id).where(event.c.seq.is_(None)).limit(1)
    return await one(connection, query) is not None


async def number_events(connection: AsyncConnection, limit: int) -> int:
    """Give committed events without a number the next ones; how many. One sequencer runs this."""
    fresh = await many(
        connection,
        sa.select(event.c.id).where(event.c.seq.is_(None)).order_by(event.c.id).limit(limit),
    )
    last = await number(connection, sa.select(sa.func.max(event.c.seq)))
    for offset, row in enumerate(fresh, start=1):
        query = event.update().where(event.c.id == row["id"]).values(seq=last + offset)
        await changed(connection, query)
    return len(fresh)


async def events_after(connection: AsyncConnection, seq: int, limit: int) -> list[Row]:
    """Numbered events past a cursor, oldest first."""
    query = sa.select(event).where(event.c.seq > seq).order_by(event.c.seq).limit(limit)
    return await many(connection, query)
