"""Statements on decisions: what choices rested on, kept for whoever asks later.

Those that an incident called for belong to it, and stay as long as it does. All others belong to
their operation, and go to the archive with it.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from store.bulk import insert_many
from store.ids import new_id
from store.prebuilt import prebuilt
from store.rows import Row, changed, in_chunks, many
from store.schema_ha import decision, operation_decision

SAME = ("question", "chosen", "rule", "why")
"""A decision that equals the one before it in these is the same, taken once more."""

SAME_OF_OPERATION = ("question", "chosen", "rule")
"""Likewise for an operation, which may look for days: numbers that change make no new one."""

NEWEST = ("why", "inputs", "rejected", "rejected_more")
"""What the same decision, taken once more, says anew."""


@prebuilt
def _of_incident(incident_id: UUID, subject_ids: list[UUID], /) -> sa.Select[Any]:
    """The decisions on these subjects, oldest first."""
    return (
        sa.select(decision)
        .where(decision.c.incident_id == incident_id, decision.c.subject_id.in_(subject_ids))
        .order_by(decision.c.first_at, decision.c.id)
    )


@prebuilt
def _of_operation(operation_id: UUID, subject_ids: list[UUID], /) -> sa.Select[Any]:
    """The decisions on these subjects, oldest first."""
    table = operation_decision
    return (
        sa.select(table)
        .where(table.c.operation_id == operation_id, table.c.subject_id.in_(subject_ids))
        .order_by(table.c.first_at, table.c.id)
    )


async def note(
    connection: AsyncConnection, incident_id: UUID, rows: Sequence[Row], now: datetime
) -> None:
    """Keep decisions on subjects of an incident, in their order.

    One that came out like the last on that subject is counted there, with its newest inputs, so
    that a wait of days is one row. Repeating it counts it twice and changes nothing else.
    """
    newest: dict[UUID, Row] = {}
    for ids in _subjects(rows):
        found = await many(connection, _of_incident(incident_id, ids))
        newest |= {row["subject_id"]: row for row in found}
    mine = [row | {"incident_id": incident_id} for row in rows]
    await _note(connection, decision, newest, mine, now)


async def note_of_operation(
    connection: AsyncConnection, operation_id: UUID, rows: Sequence[Row], now: datetime
) -> None:
    """Likewise on subjects of an operation that serves no incident."""
    newest: dict[UUID, Row] = {}
    for ids in _subjects(rows):
        found = await many(connection, _of_operation(operation_id, ids))
        newest |= {row["subject_id"]: row for row in found}
    mine = [row | {"operation_id": operation_id} for row in rows]
    await _note(connection, operation_decision, newest, mine, now)


def _subjects(rows: Sequence[Row]) -> Iterator[list[UUID]]:
    for some in in_chunks(list(dict.fromkeys(row["subject_id"] for row in rows))):
        yield list(some)


async def _note(
    connection: AsyncConnection,
    table: sa.Table,
    newest: dict[UUID, Row],
    rows: Sequence[Row],
    now: datetime,
) -> None:
    """Insert what is new; count what equals the newest on its subject, which `newest` holds."""
    same = SAME if table is decision else SAME_OF_OPERATION
    fresh: list[Row] = []
    for row in rows:
        last = newest.get(row["subject_id"])
        if last is None or any(last[field] != row[field] for field in same):
            newest[row["subject_id"]] = row | {"id": new_id(), "first_at": now, "last_at": now}
            fresh.append(newest[row["subject_id"]])
            continue
        again = {field: row[field] for field in NEWEST}
        query = table.update().where(table.c.id == last["id"])
        await changed(connection, query.values(**again, times=table.c.times + 1, last_at=now))
    await insert_many(connection, table, fresh)


async def of_incident(connection: AsyncConnection, incident_id: UUID) -> list[Row]:
    """Every decision of an incident, in the order in which they were first taken."""
    query = sa.select(decision).where(decision.c.incident_id == incident_id)
    return await many(connection, query.order_by(decision.c.first_at, decision.c.id))


async def of_operations(
    connection: AsyncConnection, operation_ids: Sequence[UUID]
) -> dict[UUID, list[Row]]:
    """Decisions of operations themselves, by operation, in the order of their first time."""
    table, found = operation_decision, dict[UUID, list[Row]]()
    for ids in in_chunks(operation_ids):
        query = sa.select(table).where(table.c.operation_id.in_(ids))
        for row in await many(connection, query.order_by(table.c.first_at, table.c.id)):
            found.setdefault(row["operation_id"], []).append(row)
    return found
