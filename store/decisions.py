"""Statements on decisions: what an incident's choices rested on, kept for whoever asks later."""

from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from store.ids import new_id
from store.prebuilt import prebuilt
from store.rows import Row, changed, inserted, many, one
from store.schema_ha import decision

SAME = ("question", "chosen", "rule", "why")
"""A decision that equals the one before it in these is the same, taken once more."""


@prebuilt
def _newest(incident_id: UUID, subject_id: UUID, /) -> sa.Select[Any]:
    return (
        sa.select(decision)
        .where(decision.c.incident_id == incident_id, decision.c.subject_id == subject_id)
        .order_by(decision.c.first_at.desc(), decision.c.id.desc())
        .limit(1)
    )


async def note(connection: AsyncConnection, values: Row, now: datetime) -> None:
    """Keep a decision on a subject of an incident.

    One that came out like the last on that subject is counted there, with its newest inputs, so
    that a wait of days is one row. Repeating it counts it twice and changes nothing else.
    """
    last = await one(connection, _newest(values["incident_id"], values["subject_id"]))
    if last is not None and all(last[field] == values[field] for field in SAME):
        again = {field: values[field] for field in ("inputs", "rejected", "rejected_more")}
        query = decision.update().where(decision.c.id == last["id"])
        await changed(connection, query.values(**again, times=decision.c.times + 1, last_at=now))
        return
    row = values | {"id": new_id(), "first_at": now, "last_at": now}
    await inserted(connection, decision, row)


async def of_incident(connection: AsyncConnection, incident_id: UUID) -> list[Row]:
    """Every decision of an incident, in the order in which they were first taken."""
    query = sa.select(decision).where(decision.c.incident_id == incident_id)
    return await many(connection, query.order_by(decision.c.first_at, decision.c.id))
