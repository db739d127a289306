"""Locks for whoever waits for them, in order; and an end to waits that took too long.

Order       By priority, then by age. Whatever an earlier waiter wants is as good as taken for a
            later one, so a small request cannot overtake a large one for ever. A fresh request that
            meets free locks is not held up by waiters: only they are ordered among themselves.
           A round goes through all of them, however many, so that each time-out is found in it.
Granting    Each in a transaction of its own that judges the request anew: what has become forbidden
            while it waited ends with that problem.
Races       Any number may grant at once: the locks' unique key and the waiting state decide, and
            whoever comes second finds the operation not waiting any more.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import partial
from typing import TypeAlias
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.errors import Refused, Unavailable
from domain.locks import Held, Lock, LockMode, in_the_way
from domain.operations import OperationState, Outcome, Problem
from engine.acceptance import Judged
from engine.actions.base import Tx
from engine.backend import Backend
from engine.cancelling import of_operation
from engine.closing import close_operation, tell_parent
from engine.rows import context_of
from engine.waiters import as_taken, transactions
from store import control, operations
from store.database import Database
from store.rows import Row

log = structlog.get_logger()

LOOKED_AT = 200
"""Waiters that one look judges; a round takes as many looks as there are waiters. Higher: the first
of them get their locks later. Lower: more transactions a round."""


Wanted: TypeAlias = Callable[[Sequence[Lock]], Sequence[Held]]
"""What earlier waiters want, at least of these entities."""


class Verdict(StrEnum):
    """What a waiter gets."""

    GO = "go"
    WAIT = "wait"
    TIMED_OUT = "timed out"
    REFUSED = "refused"


@dataclass(frozen=True)
class Found:
    """One waiter as it was judged."""

    verdict: Verdict
    locks: tuple[Lock, ...] = ()
    holders: tuple[Held, ...] = ()
    problem: Refused | None = None


@dataclass(frozen=True)
class Line:
    """How far a round has come: the last waiter it judged, and what those so far want.

    Of an entity the first wish of each mode is kept, which decides as well as all of them would.
    """

    last: Row | None = None
    more: bool = True
    seen: set[UUID] = field(default_factory=set)
    wanted: dict[tuple[str, UUID, LockMode], Held] = field(default_factory=dict)

    def note(self, row: Row, found: Found) -> None:
        """Count a waiter, and what it wants, as before those that come after it."""
        self.seen.add(row["id"])
        if found.verdict in (Verdict.WAIT, Verdict.GO):
            for held in as_taken(row, found.locks):
                self.wanted.setdefault((*held.lock.entity, held.lock.mode), held)

    def of(self, locks: Sequence[Lock]) -> list[Held]:
        """What waiters so far want of these entities."""
        wishes = (self.wanted.get((*lock.entity, mode)) for lock in locks for mode in LockMode)
        return [held for held in wishes if held is not None]


class Grants:
    """Gives locks to operations that wait for them."""

    def __init__(self, database: Database, backend: Backend) -> None:
        self._database = database
        self._backend = backend

    async def grant(self) -> int:
        """Settle every waiter that can go on or has to end; how many did. Repeatable."""
        settled, line = 0, Line()
        while line.more:
            due, line = await self._database.read(partial(self._look, line=line))
            for row, ahead in due:
                settled += await self._settled(row, ahead)
        return settled

    async def _settled(self, row: Row, ahead: tuple[Held, ...]) -> bool:
        """One waiter in a transaction of its own; its trouble must not keep the others waiting."""
        try:
            return await self._database.write(partial(self._settle, row, ahead))
        except Refused as error:  # carrying it out found what its plan had not
            return await self._database.write(partial(self._refuse, row, error))
        except Unavailable:
            raise
        except Exception:  # a defect that this one request has met
            log.exception("lock not granted", operation_id=str(row["id"]), kind=row["kind"])
            return False

    async def _refuse(self, seen: Row, error: Refused, connection: AsyncConnection) -> bool:
        row = await _still_waiting(connection, seen)
        if row is None:
            return False
        await _fail(self._on_behalf(connection, row), row, Problem.of(error))
        return True

    async def _look(
        self, connection: AsyncConnection, line: Line
    ) -> tuple[list[tuple[Row, tuple[Held, ...]]], Line]:
        """The next waiters in order that are to be settled, each with what earlier ones want.

        From one view; what was settled meanwhile of earlier ones still counts as wanted by them.
        """
        rows = await control.lock_waiters(connection, LOOKED_AT, after=line.last)
        seen, wanted = set(line.seen), dict(line.wanted)  # a repeated look begins where this did
        line = Line(rows[-1] if rows else None, len(rows) == LOOKED_AT, seen, wanted)
        due = []
        for row, tx in zip(rows, await self._warmed(connection, rows), strict=True):
            if row["id"] in seen:  # it was given a lower priority since
                continue
            found = await self._judged(tx, row, line.of)
            if found.verdict is not Verdict.WAIT:
                due.append((row, tuple(wanted.values())))
            line.note(row, found)
        return due, line

    async def _warmed(self, connection: AsyncConnection, rows: Sequence[Row]) -> list[Tx]:
        if not rows:
            return []
        first = self._backend.transaction(connection, context_of(rows[0]))
        return await transactions(first, rows)

    async def _settle(
        self, seen: Row, ahead: tuple[Held, ...], connection: AsyncConnection
    ) -> bool:
        row = await _still_waiting(connection, seen)
        if row is None:
            return False
        tx = self._on_behalf(connection, row)
        found = await self._judged(tx, row, lambda _locks: ahead)
        match found.verdict:
            case Verdict.WAIT:
                return False
            case Verdict.GO:
                await tx.door.again(tx, row, attempt=row["attempt"], held=row["held"])
                if row["held"]:
                    await tell_parent(tx.connection, row["parent_id"], tx.now)
                await self._backend.write_out(tx)
            case Verdict.REFUSED:
                assert found.problem is not None
                await _fail(tx, row, Problem.of(found.problem))
            case Verdict.TIMED_OUT:
                await _fail(tx, row, _timed_out(row, found.holders, tx.now))
        log.info("lock wait over", operation_id=str(row["id"]), how=found.verdict.value)
        return True

    async def _judged(self, tx: Tx, row: Row, ahead: Wanted) -> Found:
        try:
            judged: Judged = await self._backend.acceptance.judge_again(tx, row)
        except Refused as error:
            return Found(Verdict.REFUSED, problem=error)
        locks = judged.plan.locks
        holders = (*judged.blocked_by, *in_the_way(locks, ahead(locks)))
        if holders:
            late = row["lock_deadline_at"] is not None and tx.now >= row["lock_deadline_at"]
            return Found(Verdict.TIMED_OUT if late else Verdict.WAIT, locks, holders)
        if judged.problems:
            return Found(Verdict.REFUSED, locks, problem=judged.problems[0])
        return Found(Verdict.GO, locks)

    def _on_behalf(self, connection: AsyncConnection, row: Row) -> Tx:
        return of_operation(self._backend.transaction(connection, context_of(row)), row)


async def _still_waiting(connection: AsyncConnection, seen: Row) -> Row | None:
    row = await operations.get(connection, seen["id"])
    if row is None or row["reason_code"] != control.LOCK_HELD:
        return None
    return row if row["state"] == OperationState.WAITING else None


async def _fail(tx: Tx, row: Row, problem: Problem) -> None:
    outcome = Outcome(
        operation_id=row["id"],
        state=OperationState.FAILED,
        problem=problem,
        summary="nothing was done: it never got its locks",
    )
    await close_operation(tx.connection, outcome, tx.now)


def _timed_out(row: Row, holders: tuple[Held, ...], now: datetime) -> Problem:
    waited_s = (now - row["created_at"]).total_seconds()
    first = holders[0]
    what = first.lock.entity_type.replace("_", " ")
    return Problem(
        code="LOCK_WAIT_TIMED_OUT",
        detail=f"waited {waited_s:.1f} s for this {what}, and {first.kind} ({first.state}, "
        f"operation {first.operation_id}) goes before it",
        next_step=f"wait for that one, `holdfast op show {first.operation_id}`, and then "
        f"`holdfast op retry {row['id']}`",
        retryable=True,
        context={"holder_operation_id": str(first.operation_id), "waited_s": round(waited_s, 3)},
    )
