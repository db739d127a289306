"""Ends, or starts again, operations whose workflow was terminated or has vanished.

Each open operation's workflow is asked for by its id (never by a list, which lags behind), the one
that was looked for longest ago first.

It runs          nothing to do.
Its steps may    it has ended or vanished, and the deadline of an open step of it has not passed:
still run        that step may be at work somewhere, and neither a next try nor the owner of its
                 locks must meet it. Until then the operation says so and keeps its locks.
It has ended     though the row is open: nobody else will close it. A recovery is begun again
                 instead: nobody else would restart its VMs; so is a migration, which alone reads
                 whose its VM is, and a rehearsal, which has switched its host off.
Temporal does    never claimed: it is started again under the same id, or closed where it was to be
not know it      cancelled. Claimed: its next try starts with the same order, and each step reads
                 back what is done. One that its parent's workflow starts is left to it while the
                 parent is open; an orphan is started, or cancelled where it only made sense as a
                 part of its parent.
Its batch ended  before its turn came, so that it has no workflow and never gets one: cancelled.

Races       What was seen is checked again in the transaction that acts on it: same try, same run,
            still open. Any number of sweepers may run.
"""

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.errors import EngineError, Unavailable
from domain.operations import OperationState, Outcome, Problem, WorkflowState, workflow_id
from engine.actions.base import Tx
from engine.backend import Backend
from engine.cancelling import ask_to_cancel, cancel_operation, of_operation, settle
from engine.clock import Clock, utc_now
from engine.closing import BATCH, close_operation
from engine.delivery import Workflows
from engine.retrying import reopen
from engine.rows import context_of
from store import control, incidents, operations, plumbing
from store.database import Database, Work
from store.ids import new_id
from store.rows import Row

log = structlog.get_logger()

EVERY_S = 10.0
"""How old a look may become. Higher: a vanished workflow is noticed later. Lower: more questions to
Temporal, one for each open operation."""

LOOKED_AT = 200
"""Operations that one round looks for. Higher: longer rounds. Lower: with more open ones than this,
each is looked for less often."""

AHEAD = timedelta(seconds=EVERY_S)
"""How far a look may lie ahead of this clock. Higher: one noted by a clock that was set back since
keeps a vanished workflow unnoticed for longer. Lower: where clocks differ a little, each look is
repeated by everybody."""

AT_ONCE = 10
"""Questions to Temporal side by side."""

REOPENED_MOST = 10
"""Tries of one recovery. Higher: one that breaks the engine each time goes on longer."""

FINE = (WorkflowState.RUNNING, WorkflowState.CONTINUED)
BY_A_PERSON = (WorkflowState.TERMINATED, WorkflowState.CANCELLED)


class Sweeper:
    """Looks for the workflows of open operations; see the module."""

    def __init__(
        self,
        database: Database,
        backend: Backend,
        workflows: Workflows,
        clock: Clock = utc_now,
        every_s: float = EVERY_S,
    ) -> None:
        self._database = database
        self._backend = backend
        self._workflows = workflows
        self._clock = clock
        self._every = timedelta(seconds=every_s)

    async def sweep(self) -> int:
        """Look once at what is due; how many were closed or started. Unavailable without Temporal.

        Repeatable, and safe beside others.
        """
        now = self._clock()
        before, after = now - self._every, now + AHEAD
        rows = await self._database.read(lambda c: control.to_sweep(c, before, after, LOOKED_AT))
        acted = 0
        for row, state in await self._looked_for(rows):
            if state not in FINE:
                acted += await self._settle(row, partial(self._act, row, state))
        for row in await self._database.read(lambda c: control.left_held(c, LOOKED_AT)):
            acted += await self._settle(row, partial(self._left_behind, row))
        return acted

    async def _looked_for(self, rows: list[Row]) -> list[tuple[Row, WorkflowState]]:
        """What Temporal says of each; one it gives no answer about is left to a later round."""
        if not rows:
            return []
        turn = asyncio.Semaphore(AT_ONCE)

        async def ask(row: Row) -> WorkflowState | EngineError:
            async with turn:
                try:
                    return await self._workflows.describe(workflow_id(row["id"], row["attempt"]))
                except EngineError as error:
                    log.warning("not looked for", operation_id=str(row["id"]), code=error.code)
                    return error

        answers = await asyncio.gather(*(ask(row) for row in rows))
        errors = [answer for answer in answers if isinstance(answer, EngineError)]
        if len(errors) == len(rows):
            raise errors[0]
        ids, now = [row["id"] for row in rows], self._clock()
        await self._database.write(lambda c: control.note_swept(c, ids, now))
        both = zip(rows, answers, strict=True)
        return [(row, answer) for row, answer in both if isinstance(answer, WorkflowState)]

    async def _settle(self, row: Row, work: Work[bool]) -> bool:
        """One operation in a transaction of its own; its defect must not end the round."""
        try:
            return await self._database.write(work)
        except Unavailable:
            raise
        except Exception:  # whatever is wrong with this one row, the others have to be settled
            log.exception("not swept", operation_id=str(row["id"]), kind=row["kind"])
            return False

    async def _left_behind(self, seen: Row, connection: AsyncConnection) -> bool:
        """Cancel a child that waits for a turn which its batch, having ended, never gives."""
        row = await operations.get(connection, seen["id"])
        if row is None or row["state"] not in operations.OPEN or not row["held"]:
            return False
        tx = of_operation(self._backend.transaction(connection, context_of(row)), row)
        if await _has_open_parent(tx, row):
            return False
        await cancel_operation(tx, row)
        await self._backend.write_out(tx)
        log.warning("held by an ended batch", operation_id=str(row["id"]), kind=row["kind"])
        return True

    async def _act(self, seen: Row, state: WorkflowState, connection: AsyncConnection) -> bool:
        row = await operations.get(connection, seen["id"])
        if row is None or row["state"] not in operations.OPEN:
            return False
        if (row["attempt"], row["run_id"]) != (seen["attempt"], seen["run_id"]):
            return False
        tx = self._backend.transaction(connection, context_of(row))
        tx = replace(of_operation(tx, row), now=self._clock())
        if await _steps_may_run(tx, row, state):
            return False
        if state is WorkflowState.UNKNOWN:
            acted = await self._vanished(tx, row, posted=seen["posted"])
        else:
            acted = await self._ended(tx, row, state)
        await self._backend.write_out(tx)
        if acted:
            log.warning(
                "workflow missing",
                operation_id=str(row["id"]),
                kind=row["kind"],
                attempt=row["attempt"],
                workflow=state.value,
            )
        return acted

    async def _vanished(self, tx: Tx, row: Row, *, posted: bool) -> bool:
        if row["run_id"] is not None:
            await reopen(tx, row)
            if row["state"] == OperationState.CANCELLING:
                await ask_to_cancel(tx, row)
            return True
        if row["state"] == OperationState.CANCELLING:
            await cancel_operation(tx, row)
            return True
        if not posted and await _has_open_parent(tx, row):
            return False
        if posted or tx.door.kind_of(row).retryable:
            tx.writes.post(plumbing.posting(new_id(), row["id"], tx.now))
            return True
        await _close(tx, row, _orphaned(row), OperationState.CANCELLED, "orphaned")
        return True

    async def _ended(self, tx: Tx, row: Row, state: WorkflowState) -> bool:
        if await _reopens(tx, row):
            await reopen(tx, row)
            if row["state"] == OperationState.CANCELLING:
                await ask_to_cancel(tx, row)
            return True
        if row["kind"] == BATCH:
            for child in await control.open_children(tx.connection, row["id"]):
                if child["held"]:
                    await cancel_operation(tx, child)
        end = OperationState.CANCELLED if state in BY_A_PERSON else OperationState.FAILED
        await _close(tx, row, _gone(row, state), end, state.value)
        return True


async def _steps_may_run(tx: Tx, row: Row, state: WorkflowState) -> bool:
    """Whether a step may still be at work whose workflow is no more; then the operation says so."""
    until = await control.steps_until(tx.connection, row["id"])
    if until is None or until <= tx.now:
        return False
    why = _still_at_work(state, until)
    await control.show_reason(tx.connection, row["id"], f"WORKFLOW_{state.name}", why)
    return True


async def _reopens(tx: Tx, row: Row) -> bool:
    if row["kind"] == BATCH or row["attempt"] >= REOPENED_MOST:
        return False
    kind = tx.door.kind_of(row)
    if row["state"] == OperationState.CANCELLING:
        return await kind.unsettled(tx, row)
    if not kind.reopens:
        return False
    if row["incident_id"] is None:
        return True
    incident = await incidents.get(tx.connection, row["incident_id"])
    return incident is not None and incident["open"] == 1  # else its report was the last it did


async def _has_open_parent(tx: Tx, row: Row) -> bool:
    if row["parent_id"] is None:
        return False
    parent = await operations.get(tx.connection, row["parent_id"])
    return parent is not None and parent["state"] in operations.OPEN


async def _close(tx: Tx, row: Row, problem: Problem, end: OperationState, reason_code: str) -> None:
    settled = await settle(tx, row, given_up=row["state"] != OperationState.CANCELLING)
    if settled.left is not None:
        end, problem = OperationState.NEEDS_ATTENTION, settled.left
    outcome = Outcome(operation_id=row["id"], state=end, problem=problem, summary=settled.summary)
    await close_operation(tx.connection, outcome, tx.now, reason_code)


def _still_at_work(state: WorkflowState, until: datetime) -> str:
    word, then = _word(state), "it is closed and its locks are freed"
    if state is WorkflowState.UNKNOWN:
        word, then = "lost", "its next try begins, or it is closed where it was to be cancelled"
    return (
        f"its workflow is {word}, but a step of it may still be at work until "
        f"{until:%Y-%m-%d %H:%M:%S} UTC: then {then}"
    )


def _gone(row: Row, state: WorkflowState) -> Problem:
    wid = workflow_id(row["id"], row["attempt"])
    return Problem(
        code=f"WORKFLOW_{state.name}",
        detail=f"its workflow {wid} is {_word(state)} and did not close it",
        next_step=f"look at the {row['target_type']} {row['target_name']}; `holdfast op retry "
        f"{row['id']}` tries again where the operation allows it",
        context={"workflow_id": wid},
    )


def _orphaned(row: Row) -> Problem:
    return Problem(
        code="PARENT_ENDED",
        detail=f"the operation {row['parent_id']} that it was a part of ended before it began",
        next_step=f"look at that one: `holdfast op show {row['parent_id']}`",
    )


def _word(state: WorkflowState) -> str:
    return state.value.replace("_", " ")
