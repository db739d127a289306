"""Operations that ended long ago, each as one document with its steps, runs and decisions.

What something open or kept refers to stays where it is: an operation with a child, a lock, a key,
an incident, a fence or a run that is kept. So leaves go first, and a tree takes as many rounds as
it is deep.

A run is kept while it is the newest of its VM, part of an incident, or younger than a lost one of
its VM: whether a lost copy may be taken back is judged by every run after it.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from pydantic_core import to_jsonable_python
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.inventory import RunState
from domain.operations import OPEN_STATES
from store.bulk import insert_many
from store.rows import Row, changed, in_chunks, many, one
from store.schema import archive, entity_lock, idempotency_key, operation, outbox, step
from store.schema_ha import fence_claim, incident, made_room, operation_decision, vm_run
from store.types import UtcDateTime

OPEN = [state.value for state in OPEN_STATES]


async def candidates(connection: AsyncConnection, before: datetime, limit: int) -> list[Row]:
    """Operations that ended before a time and that nothing kept refers to, oldest first."""
    child = operation.alias("child")
    kept = (
        sa.exists().where(child.c.parent_id == operation.c.id),
        sa.exists().where(entity_lock.c.operation_id == operation.c.id),
        sa.exists().where(idempotency_key.c.operation_id == operation.c.id),
        sa.exists().where(outbox.c.operation_id == operation.c.id, outbox.c.done_at.is_(None)),
        sa.exists().where(incident.c.operation_id == operation.c.id),
        sa.exists().where(made_room.c.stop_id == operation.c.id, made_room.c.owed == 1),
        sa.exists().where(fence_claim.c.operation_id == operation.c.id),
        sa.exists().where(vm_run.c.operation_id == operation.c.id, _kept_run(before)),
    )
    query = sa.select(operation).where(
        operation.c.created_at < before,  # which the index knows
        operation.c.finished_at < before,
        operation.c.state.not_in(OPEN),
        *(sa.not_(reason) for reason in kept),
    )
    return await many(connection, query.order_by(operation.c.created_at).limit(limit))


def _kept_run(before: datetime) -> sa.ColumnElement[bool]:
    other = vm_run.alias("other")
    same_vm = other.c.vm_id == vm_run.c.vm_id
    newer = sa.exists().where(same_vm, other.c.generation > vm_run.c.generation)
    lost = sa.exists().where(
        same_vm,
        other.c.generation < vm_run.c.generation,
        other.c.state == RunState.LOST.value,
    )
    return sa.or_(
        vm_run.c.state != RunState.ENDED.value,
        vm_run.c.ended_at >= before,
        vm_run.c.incident_id.is_not(None),
        vm_run.c.licence_id.is_not(None),
        sa.not_(newer),
        lost,
    )


async def move(connection: AsyncConnection, rows: Sequence[Row], now: datetime) -> None:
    """Write operations to the archive and delete them with what belongs to them."""
    ids = [row["id"] for row in rows]
    steps = await _by_operation(connection, step, ids, step.c.attempt, step.c.started_at)
    runs = await _by_operation(connection, vm_run, ids, vm_run.c.generation)
    table = operation_decision
    decided = await _by_operation(connection, table, ids, table.c.first_at, table.c.id)
    same = ("id", "kind", "target_type", "target_id", "parent_id", "finished_at")
    documents = [
        {name: row[name] for name in same}
        | {
            "archived_at": now,
            "document": to_jsonable_python(
                {
                    "operation": row,
                    "steps": steps.get(row["id"], []),
                    "runs": runs.get(row["id"], []),
                    "decisions": decided.get(row["id"], []),
                }
            ),
        }
        for row in rows
    ]
    await insert_many(connection, archive, documents)
    for table in (step, vm_run, operation_decision, outbox):
        await changed(connection, table.delete().where(table.c.operation_id.in_(ids)))
    await changed(connection, operation.delete().where(operation.c.id.in_(ids)))


async def _by_operation(
    connection: AsyncConnection, table: sa.Table, ids: Sequence[UUID], *order: Any
) -> dict[UUID, list[Row]]:
    found: dict[UUID, list[Row]] = {}
    query = sa.select(table).where(table.c.operation_id.in_(ids)).order_by(*order)
    for row in await many(connection, query):
        found.setdefault(row["operation_id"], []).append(row)
    return found


async def get(connection: AsyncConnection, operation_id: UUID) -> Row | None:
    """One archived operation's row with its `steps` and `decisions`, as they were, or None."""
    row = await one(connection, sa.select(archive).where(archive.c.id == operation_id))
    return None if row is None else _restored(row["document"])


async def children_of(
    connection: AsyncConnection, parent_ids: Sequence[UUID]
) -> dict[UUID, list[Row]]:
    """Archived children of operations, oldest first, each with its `steps` and `decisions`."""
    found: dict[UUID, list[Row]] = {}
    for part in in_chunks(parent_ids):
        query = sa.select(archive).where(archive.c.parent_id.in_(part)).order_by(archive.c.id)
        for row in await many(connection, query):
            found.setdefault(row["parent_id"], []).append(_restored(row["document"]))
    return found


def _restored(document: Any) -> Row:
    row = _typed(operation, document["operation"])
    kept = document.get("decisions", ())  # none were kept before revision 0025
    return row | {
        "steps": [_typed(step, plain) for plain in document["steps"]],
        "decisions": [_typed(operation_decision, plain) for plain in kept],
    }


def _typed(table: sa.Table, plain: Row) -> Row:
    """A row as the database gave it, from what JSON made of it."""
    row = dict(plain)
    for column in table.columns:
        value = row.get(column.name)
        if value is not None and isinstance(column.type, sa.Uuid):
            row[column.name] = UUID(value)
        elif value is not None and isinstance(column.type, UtcDateTime):
            row[column.name] = datetime.fromisoformat(value)
    return row


async def forget_keys(connection: AsyncConnection, before: datetime) -> int:
    """Drop idempotency keys made before a time; how many."""
    query = idempotency_key.delete().where(idempotency_key.c.created_at < before)
    return await changed(connection, query)
