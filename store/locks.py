"""Statements on locks: who holds an entity, taking, pre-empting, freeing.

The unique key on (entity, exclusive) lets one operation own an entity at most; that it is not
shared at the same time rests on the isolation of the transaction that looks and takes. A lock's
generation is the try of its owner for which it is held, so that a step of an earlier try, whose
workflow is gone while the step itself may still run, can be told from one of the try that goes on.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.locks import Held, Lock, LockMode
from store.bulk import insert_many
from store.prebuilt import like, prebuilt
from store.rows import Row, changed, in_chunks, many, one
from store.schema import entity_lock, operation

Entity = tuple[str, UUID]


@prebuilt
def _locks_on(entity_type: str, ids: Sequence[UUID], /) -> sa.Select[Any]:
    return _with_owner().where(
        entity_lock.c.entity_type == entity_type, entity_lock.c.entity_id.in_(ids)
    )


async def held(connection: AsyncConnection, entities: Sequence[Entity]) -> dict[Entity, list[Held]]:
    """The locks on these entities; one that is free is left out."""
    by_type: dict[str, list[UUID]] = {}
    for entity_type, entity_id in entities:
        by_type.setdefault(entity_type, []).append(entity_id)
    found: dict[Entity, list[Held]] = {}
    for entity_type, ids in sorted(by_type.items()):
        for some in in_chunks(ids):
            for row in await many(connection, _locks_on(entity_type, some)):
                lock = _held(row)
                found.setdefault(lock.lock.entity, []).append(lock)
    return found


def _with_owner() -> sa.Select[Any]:
    joined = sa.select(entity_lock, operation.c.kind, operation.c.state).join(
        operation, operation.c.id == entity_lock.c.operation_id
    )
    return joined.order_by(entity_lock.c.entity_type, entity_lock.c.entity_id)


def _held(row: Row) -> Held:
    mode = LockMode.SHARED if row["exclusive"] is None else LockMode.EXCLUSIVE
    lock = Lock(entity_type=row["entity_type"], entity_id=row["entity_id"], mode=mode)
    same = {name: row[name] for name in ("operation_id", "kind", "state", "generation")}
    return Held(lock=lock, **same)


async def of_operation(connection: AsyncConnection, operation_id: UUID) -> list[Held]:
    """What one operation holds."""
    query = _with_owner().where(entity_lock.c.operation_id == operation_id)
    return [_held(row) for row in await many(connection, query)]


@prebuilt
def _holder(entity_type: str, entity_id: UUID, /) -> sa.Select[Any]:
    return _with_owner().where(
        entity_lock.c.entity_type == entity_type,
        entity_lock.c.entity_id == entity_id,
        entity_lock.c.exclusive == 1,
    )


async def holder(connection: AsyncConnection, entity_type: str, entity_id: UUID) -> Held | None:
    """Who owns one entity, or None."""
    row = await one(connection, _holder(entity_type, entity_id))
    return None if row is None else _held(row)


async def holds(
    connection: AsyncConnection,
    entity_type: str,
    entity_id: UUID,
    operation_id: UUID,
    attempt: int = 1,
) -> bool:
    """Whether this very try of an operation owns an entity; an earlier or later one does not."""
    owner = await holder(connection, entity_type, entity_id)
    mine = (operation_id, attempt)
    return owner is not None and (owner.operation_id, owner.generation) == mine


def row_of(lock: Lock, operation_id: UUID, now: datetime, generation: int = 1) -> Row:
    """A lock as it is written."""
    return {
        "entity_type": lock.entity_type,
        "entity_id": lock.entity_id,
        "operation_id": operation_id,
        "exclusive": 1 if lock.mode is LockMode.EXCLUSIVE else None,
        "generation": generation,
        "acquired_at": now,
    }


async def take(connection: AsyncConnection, rows: Iterable[Row]) -> None:
    """Take free locks; a lost race for one breaks the unique key, and the caller tries again."""
    await insert_many(connection, entity_lock, list(rows))


async def pass_on(connection: AsyncConnection, operation_id: UUID, attempt: int) -> int:
    """Hand an operation's locks to a later try of it; repeatable, and never back to an earlier."""
    query = entity_lock.update().where(
        entity_lock.c.operation_id == operation_id, entity_lock.c.generation < attempt
    )
    return await changed(connection, query.values(generation=attempt))


@prebuilt
def _free(operation_id: UUID, entity_type: str | None, /) -> sa.Delete:
    kind = sa.func.coalesce(like(entity_type, entity_lock.c.entity_type), entity_lock.c.entity_type)
    return entity_lock.delete().where(
        entity_lock.c.operation_id == operation_id, entity_lock.c.entity_type == kind
    )


async def free(
    connection: AsyncConnection, operation_id: UUID, entity_type: str | None = None
) -> int:
    """Free an operation's locks, all or those on one type of entity; how many there were."""
    return await changed(connection, _free(operation_id, entity_type))
