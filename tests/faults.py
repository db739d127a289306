"""Faults put into one step, by an interceptor on the real workers.

Each hits the first time that a step of a name runs in a workflow of a kind, and never again; `hit`
tells that it did, so that a test cannot pass because its fault missed.
"""

import os
import signal
from enum import StrEnum
from typing import Any

from temporalio import activity
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from domain.errors import NoAnswer, OutcomeUnknown


class Fault(StrEnum):
    """What happens to the step."""

    FAILS_BEFORE = "fails before"  # nothing was done
    FAILS_AFTER = "fails after"  # done, and the answer was lost
    RUNS_TWICE = "runs twice"  # done, and done again
    CRASHES_BEFORE = "crashes before"  # its worker is killed, nothing was done
    CRASHES_AFTER = "crashes after"  # done, and its worker is killed


IN_PROCESS = (Fault.FAILS_BEFORE, Fault.FAILS_AFTER, Fault.RUNS_TWICE)
CRASHES = (Fault.CRASHES_BEFORE, Fault.CRASHES_AFTER)


class FaultAt(Interceptor):
    """Puts one fault into one step of one kind of workflow."""

    def __init__(self, workflow: str, step: str, fault: Fault) -> None:
        self.workflow = workflow
        self.step = step
        self.fault = fault
        self.hit = False

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002
        """Wrap the next interceptor."""
        return _Faulty(next, self)

    def take(self) -> bool:
        """Whether the step that runs now is the one; true once."""
        info = activity.info()
        mine = (info.workflow_type, info.activity_type) == (self.workflow, self.step)
        if self.hit or not mine:
            return False
        self.hit = True
        return True


class _Faulty(ActivityInboundInterceptor):
    def __init__(self, following: ActivityInboundInterceptor, at: FaultAt) -> None:
        super().__init__(following)
        self._at = at

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002
        if not self._at.take():
            return await self.next.execute_activity(input)
        fault = self._at.fault
        if fault is Fault.FAILS_BEFORE:
            raise NoAnswer("INJECTED", "the step failed before it did anything")
        if fault is Fault.CRASHES_BEFORE:
            die()
        await self.next.execute_activity(input)
        if fault is Fault.FAILS_AFTER:
            raise OutcomeUnknown("INJECTED", "the step was done and its answer was lost")
        if fault is Fault.CRASHES_AFTER:
            die()
        return await self.next.execute_activity(input)


def die() -> None:
    """End this process as a power cut would: nothing is flushed, closed or told to anybody."""
    os.kill(os.getpid(), signal.SIGKILL)
