"""Locks for whoever waits for them, in order; and an end to waits that took too long.

Order       By priority, then by age. Whatever an earlier waiter wants is as good as taken for a
            later one, so a small request cannot overtake a large one for ever. A fresh request that
            meets free locks is not held up by waiters: only they are ordered among themselves.
Granting    Each in a transaction of its own that judges the request anew: what has become forbidden
            while it waited ends with that problem.
Races       Any number may grant at once: the locks' unique key and the waiting state decide, and
            whoever comes second finds the operation not waiting any more.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import partial
from typing import Any

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.errors import Refused
from domain.locks import Held, Lock, in_the_way
from domain.operations import OperationState, Outcome, Problem
from engine.acceptance import Judged
from engine.actions.base import Tx
from engine.backend import Backend
from engine.cancelling import of_operation
from engine.closing import close_operation
from engine.rows import context_of
from store import control, operations
from store.database import Database
from store.rows import Row

log = structlog.get_logger()

LOOKED_AT = 200
"""Waiters that one round looks at, the first in order. Higher: longer rounds. Lower: a waiter far
behind is told later that its time is over."""


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


class Grants:
    """Gives locks to operations that wait for them."""

    def __init__(self, database: Database, backend: Backend) -> None:
        self._database = database
        self._backend = backend

    async def grant(self) -> int:
        """Settle every waiter that can go on or has to end; how many did. Repeatable."""
        settled = 0
        for row, ahead in await self._database.read(self._due):
            settled += await self._database.write(partial(self._settle, row, ahead))
        return settled

    async def _due(self, connection: AsyncConnection) -> list[tuple[Row, tuple[Held, ...]]]:
        """Waiters to settle, in order, each with what earlier ones want; from one view."""
        rows = await control.lock_waiters(connection, LOOKED_AT)
        due, taken = [], list[Held]()
        for row, tx in zip(rows, self._together(connection, rows), strict=True):
            found = await self._judged(tx, row, taken)
            if found.verdict is not Verdict.WAIT:
                due.append((row, tuple(taken)))
            if found.verdict in (Verdict.WAIT, Verdict.GO):
                taken += _as_taken(row, found.locks)
        return due

    async def _settle(
        self, seen: Row, ahead: tuple[Held, ...], connection: AsyncConnection
    ) -> bool:
        row = await operations.get(connection, seen["id"])
        if row is None or row["reason_code"] != control.LOCK_HELD:
            return False
        if row["state"] != OperationState.WAITING:
            return False
        (tx,) = self._together(connection, [row])
        found = await self._judged(tx, row, ahead)
        match found.verdict:
            case Verdict.WAIT:
                return False
            case Verdict.GO:
                await tx.door.again(tx, row, attempt=row["attempt"], held=row["held"])
                await self._backend.write_out(tx)
            case Verdict.REFUSED:
                assert found.problem is not None
                await _fail(tx, row, Problem.of(found.problem))
            case Verdict.TIMED_OUT:
                await _fail(tx, row, _timed_out(row, found.holders, tx.now))
        log.info("lock wait over", operation_id=str(row["id"]), how=found.verdict.value)
        return True

    async def _judged(self, tx: Tx, row: Row, taken: Sequence[Held]) -> Found:
        try:
            judged: Judged = await self._backend.acceptance.judge_again(tx, row)
        except Refused as error:
            return Found(Verdict.REFUSED, problem=error)
        locks = judged.plan.locks
        holders = (*judged.in_the_way, *in_the_way(locks, taken))
        if holders:
            late = row["lock_deadline_at"] is not None and tx.now >= row["lock_deadline_at"]
            return Found(Verdict.TIMED_OUT if late else Verdict.WAIT, locks, holders)
        if judged.problems:
            return Found(Verdict.REFUSED, locks, problem=judged.problems[0])
        return Found(Verdict.GO, locks)

    def _together(self, connection: AsyncConnection, rows: Sequence[Row]) -> list[Tx]:
        """One transaction on behalf of each operation, what they read being read once."""
        if not rows:
            return []
        first = self._backend.transaction(connection, context_of(rows[0]))
        return [of_operation(first, row) for row in rows]


def _as_taken(row: Row, locks: tuple[Lock, ...]) -> list[Held]:
    same: dict[str, Any] = {"operation_id": row["id"], "kind": row["kind"], "state": row["state"]}
    return [Held(lock=lock, **same) for lock in locks]


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
