"""What is old enough leaves the tables that are read all the time.

Operations that ended long ago go to the archive, one document each, and are still found by their
id; idempotency keys are forgotten. Events stay: they are the audit trail.
"""

from datetime import datetime, timedelta
from functools import partial

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from engine.clock import Clock, utc_now
from store import archive
from store.database import Database

log = structlog.get_logger()

KEY_KEPT = timedelta(hours=24)
"""How long the same request under the same idempotency key is known. Lower: a client that was away
for longer asks twice."""

TOGETHER = 100
"""Operations that one transaction moves. Higher: other writers wait longer. Lower: more of them."""


class Retention:
    """Archives and forgets; `days` is how long an ended operation stays."""

    def __init__(self, database: Database, days: int, clock: Clock = utc_now) -> None:
        self._database = database
        self._kept = timedelta(days=days)
        self._clock = clock

    async def tidy(self) -> int:
        """Move everything that is due; how many operations. Repeatable, and safe beside others."""
        now = self._clock()
        await self._database.write(lambda c: archive.forget_keys(c, now - KEY_KEPT))
        moved = 0
        while last := await self._database.write(partial(self._move_some, now)):
            moved += last
        if moved:
            log.info("operations archived", count=moved, ended_before=str(now - self._kept))
        return moved

    async def _move_some(self, now: datetime, connection: AsyncConnection) -> int:
        rows = await archive.candidates(connection, now - self._kept, TOGETHER)
        if rows:
            await archive.move(connection, rows, now)
        return len(rows)
