"""Statements that tell how the engine's own machinery does: nothing of the inventory is read."""

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from store import ids
from store.rows import one
from store.schema import event, outbox


async def oldest_untold(connection: AsyncConnection) -> datetime | None:
    """Since when Temporal has not been told something it is to be told, or None."""
    query = sa.select(outbox.c.id).where(outbox.c.done_at.is_(None))
    row = await one(connection, query.order_by(outbox.c.id).limit(1))
    return None if row is None else ids.made_at(row["id"])


async def oldest_unnumbered(connection: AsyncConnection) -> datetime | None:
    """Since when an event has been waiting for its number, or None."""
    query = sa.select(sa.func.min(event.c.at).label("at")).where(event.c.seq.is_(None))
    row = await one(connection, query)
    return None if row is None else row["at"]
