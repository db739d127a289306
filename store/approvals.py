"""Statements on approvals: a person's leave to cut a host's power that the storm guard holds back.

An approval lasts so many seconds of watching: it has expired once some monitor has watched that
long since it was given. No time of day is asked (decision 13).
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from store.bulk import insert_many
from store.ids import new_id
from store.prebuilt import prebuilt
from store.rows import Row, changed, inserted, many, one
from store.schema_ha import approval, approval_age, monitor


def _expired() -> sa.ColumnElement[bool]:
    return sa.exists().where(
        approval_age.c.approval_id == approval.c.id,
        monitor.c.name == approval_age.c.monitor,
        monitor.c.watched_ms - approval_age.c.since_ms > 1000 * approval.c.lasts_s,
    )


def _counts() -> sa.ColumnElement[bool]:
    return sa.and_(approval.c.withdrawn_at.is_(None), ~_expired().correlate(approval))


def approved(incident_id: Any) -> sa.ColumnElement[bool]:
    """Whether an incident has an approval that is neither withdrawn nor expired."""
    return sa.exists().where(approval.c.incident_id == incident_id, _counts())


@prebuilt
def _valid(incident_id: UUID, /) -> sa.Select[Any]:
    return (
        sa.select(approval)
        .where(approval.c.incident_id == incident_id, _counts())
        .order_by(approval.c.given_at.desc(), approval.c.id.desc())
        .limit(1)
    )


async def valid(connection: AsyncConnection, incident_id: UUID) -> Row | None:
    """The newest approval of an incident that counts now, or None."""
    return await one(connection, _valid(incident_id))


async def give(
    connection: AsyncConnection,
    incident_id: UUID,
    principal: str,
    reason: str,
    lasts_s: int,
    now: datetime,
) -> None:
    """Keep an approval, with how long each monitor has watched by now."""
    row = {"id": new_id(), "incident_id": incident_id, "principal": principal}
    row |= {"reason": reason, "lasts_s": lasts_s, "given_at": now}
    await inserted(connection, approval, row)
    monitors = await many(connection, sa.select(monitor.c.name, monitor.c.watched_ms))
    ages = [
        {"approval_id": row["id"], "monitor": one["name"], "since_ms": one["watched_ms"]}
        for one in monitors
    ]
    await insert_many(connection, approval_age, ages)


async def withdraw(connection: AsyncConnection, incident_id: UUID, now: datetime) -> int:
    """Take every approval of an incident back; how many there were. Idempotent."""
    query = approval.update().where(
        approval.c.incident_id == incident_id, approval.c.withdrawn_at.is_(None)
    )
    return await changed(connection, query.values(withdrawn_at=now))


async def of_incidents(connection: AsyncConnection, incident_ids: Sequence[UUID]) -> list[Row]:
    """Approvals of incidents, oldest first, each with whether it is `valid` now."""
    query = sa.select(approval, _counts().label("valid")).where(
        approval.c.incident_id.in_(incident_ids)
    )
    return await many(connection, query.order_by(approval.c.given_at, approval.c.id))
