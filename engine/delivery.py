"""From the outbox to Temporal: exactly one workflow for each accepted operation.

The workflow id is built from the operation and its try, and a start under an id that exists, open
or closed, counts as delivered. So it does not matter who starts it, how often, or what died
between the start and the note that it was done.
"""

import asyncio
from datetime import timedelta
from typing import Protocol
from uuid import UUID

import structlog

from domain.errors import EngineError
from domain.operations import workflow_id
from engine.clock import Clock, utc_now
from store import plumbing
from store.database import Database
from store.rows import Row

log = structlog.get_logger()

RETRY_S = (0.5, 1.0, 2.0, 5.0)
"""Waits between tries of one start; the last one repeats."""

BATCH = 50


class Starter(Protocol):
    """Starts workflows."""

    async def start(
        self, workflow: str, order: Row, *, wid: str, priority: int, fairness: str, summary: str
    ) -> None:
        """Start it under workflow id `wid`; success also when that id was ever used.

        Unavailable when Temporal does not take it.
        """
        ...


class Delivery:
    """Starts what the outbox holds."""

    def __init__(self, database: Database, starter: Starter, clock: Clock = utc_now) -> None:
        self._database = database
        self._starter = starter
        self._clock = clock

    async def deliver(self, operation_id: UUID) -> None:
        """Start one operation's workflow right after its commit."""
        try:
            row = await self._database.read(lambda c: plumbing.posted(c, operation_id))
            if row is not None:
                await self._start(row)
        except EngineError as error:
            log.warning("start left to the relay", operation_id=str(operation_id), code=error.code)

    async def deliver_due(self) -> int:
        """Start everything that is due, most urgent first; how many were delivered."""
        now = self._clock()
        rows = await self._database.read(lambda c: plumbing.due(c, now, BATCH))
        results = await asyncio.gather(*(self._start(row) for row in rows))
        return sum(results)

    async def number_events(self) -> int:
        """Give committed events their numbers; how many got one."""
        if not await self._database.read(plumbing.unnumbered_events):
            return 0
        return await self._database.write(lambda c: plumbing.number_events(c, 500))

    async def _start(self, row: Row) -> bool:
        try:
            await self._starter.start(
                row["workflow"],
                row["order"],
                wid=workflow_id(row["operation_id"], row["attempt"]),
                priority=row["priority"],
                fairness=str(row["cluster_id"] or "none"),
                summary=f"{row['kind']} {row['target_name']}",
            )
        except EngineError as error:
            await self._postpone(row, error)
            return False
        now = self._clock()
        await self._database.write(lambda c: plumbing.delivered(c, row["id"], now))
        return True

    async def _postpone(self, row: Row, error: EngineError) -> None:
        wait_s = RETRY_S[min(row["tries"], len(RETRY_S) - 1)]
        due_at = self._clock() + timedelta(seconds=wait_s)
        await self._database.write(lambda c: plumbing.postpone(c, row["id"], due_at, error.detail))
        log.warning(
            "start postponed",
            operation_id=str(row["operation_id"]),
            tries=row["tries"] + 1,
            code=error.code,
            wait_s=wait_s,
        )
