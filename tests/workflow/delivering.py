"""What a relay does for a start that Temporal did not take at once, where there is no relay."""

import asyncio
from uuid import UUID

from engine.delivery import Delivery
from store import plumbing
from store.database import Database

LIMIT_S = 120.0


async def delivered(database: Database, delivery: Delivery, operation_id: UUID) -> UUID:
    """Deliver until nothing of one operation is left: a busy server may be slow to take it."""
    async with asyncio.timeout(LIMIT_S):
        while await database.read(lambda c: plumbing.waiting_of(c, operation_id)):
            await delivery.deliver_due()
            await asyncio.sleep(0.02)
    return operation_id
