"""Statements on decisions: what an incident's choices rested on, kept for whoever asks later."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from store.bulk import insert_many
from store.ids import new_id
from store.prebuilt import prebuilt
from store.rows import Row, changed, in_chunks, many
from store.schema_ha import decision

SAME = ("question", "chosen", "rule", "why")
"""A decision that equals the one before it in these is the same, taken once more."""


@prebuilt
def _known(incident_id: UUID, subject_ids: list[UUID], /) -> sa.Select[Any]:
    """The decisions on these subjects, oldest first."""
    return (
        sa.select(decision)
        .where(decision.c.incident_id == incident_id, decision.c.subject_id.in_(subject_ids))
        .order_by(decision.c.first_at, decision.c.id)
    )


async def note(
    connection: AsyncConnection, incident_id: UUID, rows: Sequence[Row], now: datetime
) -> None:
    """Keep decisions on subjects of an incident, in their order.

    One that came out like the last on that subject is counted there, with its newest inputs, so
    that a wait of days is one row. Repeating it counts it twice and changes nothing else.
    """
    newest: dict[UUID, Row] = {}
    for some in in_chunks(list(dict.fromkeys(row["subject_id"] for row in rows))):
        found = await many(connection, _known(incident_id, list(some)))
        newest |= {row["subject_id"]: row for row in found}
    fresh: list[Row] = []
    for row in rows:
        last = newest.get(row["subject_id"])
        if last is None or any(last[field] != row[field] for field in SAME):
            newest[row["subject_id"]] = row | {"id": new_id(), "first_at": now, "last_at": now}
            fresh.append(newest[row["subject_id"]])
            continue
        again = {field: row[field] for field in ("inputs", "rejected", "rejected_more")}
        query = decision.update().where(decision.c.id == last["id"])
        await changed(connection, query.values(**again, times=decision.c.times + 1, last_at=now))
    await insert_many(connection, decision, fresh)


async def of_incident(connection: AsyncConnection, incident_id: UUID) -> list[Row]:
    """Every decision of an incident, in the order in which they were first taken."""
    query = sa.select(decision).where(decision.c.incident_id == incident_id)
    return await many(connection, query.order_by(decision.c.first_at, decision.c.id))
