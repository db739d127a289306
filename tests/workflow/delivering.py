"""What a relay does for what Temporal did not take at once, where there is no relay."""

import asyncio
from datetime import timedelta
from uuid import UUID

from engine.clock import utc_now
from engine.delivery import Delivery
from store import plumbing
from store.database import Database

LIMIT_S = 120.0
SOON = timedelta(minutes=1)


async def delivered(database: Database, delivery: Delivery, operation_id: UUID) -> UUID:
    """Deliver until nothing is left of one operation, nor of what it has told others.

    A busy server may be slow to take it. What nobody has tried to tell yet is left alone.
    """
    async with asyncio.timeout(LIMIT_S):
        while await _is_left(database, operation_id):
            await delivery.deliver_due()
            await asyncio.sleep(0.02)
    return operation_id


async def _is_left(database: Database, operation_id: UUID) -> bool:
    if await database.read(lambda c: plumbing.waiting_of(c, operation_id)):
        return True
    rows = await database.read(lambda c: plumbing.due(c, utc_now() + SOON, 100))
    return any(row["tries"] for row in rows)
