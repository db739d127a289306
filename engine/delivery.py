"""From the outbox to Temporal: one workflow for each accepted operation, and word to it.

The workflow id is built from the operation and its try, and a start under an id that exists, open
or closed, counts as delivered. So it does not matter who starts it, how often, or what died
between the start and the note that it was done.

A signal says something each time, and in an order: "pause" after "resume" is not "resume" after
"pause". So whoever tells one takes its row first, and of one operation each thing is told only when
the one before it has been.
"""

import asyncio
from datetime import timedelta
from itertools import takewhile
from typing import Protocol
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.errors import EngineError
from domain.operations import WorkflowState, workflow_id
from domain.priorities import fairness_of
from engine.clock import Clock, utc_now
from store import operations, plumbing
from store.database import Database
from store.ids import new_id
from store.rows import Row

log = structlog.get_logger()

RETRY_S = (0.5, 1.0, 2.0, 5.0)
"""Waits between tries of one start; the last one repeats."""

BATCH = 50

TAKEN_S = 10.0
"""How long whoever takes a row keeps others from telling it. Higher: what a dying process took is
told later. Lower than one call to Temporal may last: two tell it at once."""


class Workflows(Protocol):
    """What Temporal is asked to do. Unavailable when it does not take it."""

    async def start(
        self, workflow: str, order: Row, *, wid: str, priority: int, fairness: str, summary: str
    ) -> None:
        """Start it under workflow id `wid`; success also when that id was ever used."""
        ...

    async def cancel(self, wid: str) -> None:
        """Ask it to cancel; success also when it has ended or is unknown."""
        ...

    async def signal(self, wid: str, name: str) -> None:
        """Send it a signal without arguments; success also when it has ended or is unknown."""
        ...

    async def raise_priority(self, wid: str, priority: int) -> None:
        """Give it, and what it has waiting, another class; success also when it has ended."""
        ...

    async def describe(self, wid: str) -> WorkflowState:
        """How it stands, by its id and not by a visibility list."""
        ...


class Delivery:
    """Tells Temporal what the outbox holds."""

    def __init__(self, database: Database, workflows: Workflows, clock: Clock = utc_now) -> None:
        self._database = database
        self._workflows = workflows
        self._clock = clock

    async def deliver(self, operation_id: UUID) -> None:
        """Tell Temporal what one operation needs, right after its commit."""
        try:
            rows = await self._database.read(lambda c: plumbing.waiting_of(c, operation_id))
            # One that was tried before is somebody's who tells it now, or the relay's for later.
            await self._tell_all(list(takewhile(_is_fresh, rows)))
        except EngineError as error:
            log.warning("left to the relay", operation_id=str(operation_id), code=error.code)

    async def deliver_due(self) -> int:
        """Tell everything that is due, most urgent first; how much was taken."""
        now = self._clock()
        by_operation: dict[UUID, list[Row]] = {}
        for row in await self._database.read(lambda c: plumbing.due(c, now, BATCH)):
            by_operation.setdefault(row["operation_id"], []).append(row)
        results = await asyncio.gather(*(self._tell_all(rows) for rows in by_operation.values()))
        return sum(results)

    async def number_events(self) -> int:
        """Give committed events their numbers; how many got one."""
        if not await self._database.read(plumbing.unnumbered_events):
            return 0
        return await self._database.write(lambda c: plumbing.number_events(c, 500))

    async def _tell_all(self, rows: list[Row]) -> int:
        """Tell one operation's rows in their order, up to the first that is not taken."""
        for count, row in enumerate(rows):
            if not await self._tell(row):
                return count
        return len(rows)

    async def _tell(self, row: Row) -> bool:
        if row["kind"] != plumbing.START:  # a start may be told twice
            until = self._clock() + timedelta(seconds=TAKEN_S)
            if not await self._database.write(lambda c: plumbing.take(c, row, until)):
                return False
        try:
            await self._ask(row, workflow_id(row["operation_id"], row["attempt"]))
        except EngineError as error:
            await self._postpone(row, error.code, error.detail)
            return False
        except Exception as error:  # one row that nobody can tell must not keep the others waiting
            log.exception("not told", what=row["kind"], operation_id=str(row["operation_id"]))
            await self._postpone(row, type(error).__name__, str(error))
            return False
        await self._database.write(lambda connection: self._delivered(connection, row))
        return True

    async def _delivered(self, connection: AsyncConnection, row: Row) -> None:
        """Note it; a priority that was raised while the start was under way is told once more."""
        now = self._clock()
        await plumbing.delivered(connection, row["id"], now)
        known = await operations.get(connection, row["operation_id"])
        if known is not None and known["priority"] != row["priority"]:
            await plumbing.post(connection, new_id(), known["id"], now, plumbing.PRIORITY)

    async def _ask(self, row: Row, wid: str) -> None:
        match row["kind"]:
            case plumbing.START:
                await self._start(row, wid)
            case plumbing.CANCEL:
                await self._workflows.cancel(wid)
            case plumbing.SIGNAL:
                await self._workflows.signal(wid, row["signal"])
            case plumbing.PRIORITY:
                await self._workflows.raise_priority(wid, row["priority"])
            case other:
                raise AssertionError(f"the outbox holds a row of kind {other}")

    async def _start(self, row: Row, wid: str) -> None:
        if row["state"] not in plumbing.OPEN:
            return  # ended before it began: there is nothing to start
        await self._workflows.start(
            row["workflow"],
            row["order"],
            wid=wid,
            priority=row["priority"],
            fairness=fairness_of(row["cluster_id"]),
            summary=f"{row['operation_kind']} {row['target_name']}",
        )

    async def _postpone(self, row: Row, code: str, why: str) -> None:
        wait_s, tries = RETRY_S[min(row["tries"], len(RETRY_S) - 1)], row["tries"] + 1
        due_at = self._clock() + timedelta(seconds=wait_s)
        await self._database.write(lambda c: plumbing.postpone(c, row["id"], due_at, why, tries))
        log.warning(
            "telling Temporal postponed",
            what=row["kind"],
            operation_id=str(row["operation_id"]),
            tries=tries,
            code=code,
            wait_s=wait_s,
        )


def _is_fresh(row: Row) -> bool:
    return bool(row["kind"] == plumbing.START or row["tries"] == 0)
