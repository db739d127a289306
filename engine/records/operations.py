"""Rows of operations and their steps, as the steps and the interceptor keep them."""

from datetime import timedelta
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from domain.errors import Superseded
from domain.operations import Outcome, Problem, StepState
from engine.clock import Clock, utc_now
from engine.closing import close_operation
from store import control, locks, operations
from store.database import Database


class OperationRecords:
    """Implements the port of `activities.operations`."""

    def __init__(self, database: Database, clock: Clock = utc_now) -> None:
        self._database = database
        self._clock = clock

    async def claim(self, operation_id: UUID, attempt: int, run_id: str) -> None:
        """Make one workflow run the owner of one try; Superseded when another owns it."""

        async def work(connection: AsyncConnection) -> bool:
            now = self._clock()
            if not await operations.claim(connection, operation_id, attempt, run_id, now):
                return False
            if attempt > 1:  # steps of earlier tries are refused from here on
                await locks.pass_on(connection, operation_id, attempt)
            return True

        if not await self._database.write(work):
            raise Superseded(
                "SUPERSEDED", f"operation {operation_id} has ended or belongs to another run"
            )

    async def wait(self, operation_id: UUID, code: str | None, detail: str) -> None:
        """Record a waiting reason, or with None that the operation runs."""

        async def work(connection: AsyncConnection) -> bool:
            if code is None:
                return await operations.resume(connection, operation_id)
            return await operations.wait(connection, operation_id, code, detail, self._clock())

        await self._database.write(work)

    async def pause(self, operation_id: UUID, paused: bool) -> None:
        """Record that it stands still, or that it goes on; one that is ending stays as it is."""

        async def work(connection: AsyncConnection) -> bool:
            if not paused:
                return await control.unpause(connection, operation_id)
            why = f"a person has paused it; `holdfast op resume {operation_id}` lets it go on"
            return await control.pause(connection, operation_id, why)

        await self._database.write(work)

    async def close(self, outcome: Outcome) -> None:
        """End the operation, write its event and free its locks in one transaction."""

        async def work(connection: AsyncConnection) -> None:
            await close_operation(connection, outcome, self._clock())

        await self._database.write(work)


class StepRecords:
    """The step tree, written by the worker's interceptor around every activity."""

    def __init__(self, database: Database, clock: Clock = utc_now) -> None:
        self._database = database
        self._clock = clock

    async def begin(
        self, operation_id: UUID, attempt: int, step_id: str, name: str, tries: int, limit_s: float
    ) -> None:
        """A step, or its next try, begins."""
        now = self._clock()
        row = {
            "operation_id": operation_id,
            "attempt": attempt,
            "step_id": step_id,
            "name": name,
            "state": StepState.RUNNING.value,
            "tries": tries,
            "started_at": now,
            "deadline_at": now + timedelta(seconds=limit_s),
        }
        await self._database.write(lambda connection: operations.begin_step(connection, row))

    async def renew(
        self, operation_id: UUID, attempt: int, step_id: str, tries: int, limit_s: float
    ) -> bool:
        """This try of a step may be at work for so long from now; False: it is no more."""
        until = self._clock() + timedelta(seconds=limit_s)
        key = (operation_id, attempt, step_id)
        return await self._database.write(lambda c: control.renew_step(c, *key, tries, until))

    async def finish(
        self,
        operation_id: UUID,
        attempt: int,
        step_id: str,
        *,
        tries: int,
        detail: str | None = None,
        problem: Problem | None = None,
    ) -> None:
        """A try of a step ended, well or with a problem."""
        state = StepState.SUCCEEDED if problem is None else StepState.FAILED
        plain = None if problem is None else problem.model_dump(mode="json")
        key = (operation_id, attempt, step_id)
        end = operations.StepEnd(state, self._clock(), tries, detail, plain)

        async def work(connection: AsyncConnection) -> None:
            await operations.finish_step(connection, *key, end)

        await self._database.write(work)
