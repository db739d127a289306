"""The parts of a followed history: a server that holds news back, and activities as recorded."""

import asyncio
import random
from typing import Any

import temporalio.activity
from temporalio.api.failure.v1 import Failure
from temporalio.api.history.v1 import HistoryEvent
from temporalio.bridge.proto.activity_result import ActivityResolution
from temporalio.bridge.proto.workflow_activation import WorkflowActivationJob
from temporalio.common import RawValue, WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import ApplicationError

from simulator.histories import History, body, is_local_result, local_result
from simulator.loop import VirtualLoop
from simulator.temporal import failures
from simulator.temporal.run import Run, StartOf, TaskState
from simulator.temporal.server import Latency, Server
from simulator.temporal.steps import Step

News = tuple[str, Any]
"""Kind of an activation job, and the number or name of what it is about."""

BEAT_S = 1.0
"""Activities of a history beat this often, except those of which it says that they did not."""

RETRY_LOOK_S = 0.005
LATE_S = 0.05
"""How much later than the real server the simulated one may try again. Earlier says nothing: real
tries took time, and a history does not keep how much."""


class HeldBack(Server):
    """A server whose news reach one workflow only when they are released."""

    def __init__(self, loop: VirtualLoop, latency: Latency, wid: str) -> None:
        super().__init__(loop, random.Random(0), latency, lambda *_kinds, **_facts: None)
        self._wid = wid
        self._held: list[WorkflowActivationJob] = []

    def begin(
        self,
        start: StartOf,
        reuse: WorkflowIDReusePolicy = WorkflowIDReusePolicy.REJECT_DUPLICATE,
        conflict: WorkflowIDConflictPolicy = WorkflowIDConflictPolicy.FAIL,
    ) -> Run:
        """Others than the followed workflow are in other hands: the history says how they end."""
        run = super().begin(start, reuse, conflict)
        if start.wid != self._wid:
            run.task = TaskState.TAKEN
        return run

    def tell(self, run: Run, job: WorkflowActivationJob) -> None:
        """Hold news back."""
        if run.wid != self._wid:
            super().tell(run, job)
        elif run.open:
            self._held.append(job)

    def held(self) -> list[News]:
        """What is held back just now."""
        return [_news(job) for job in self._held]

    def release(self, run: Run, news: News) -> WorkflowActivationJob | None:
        """Tell it now; None when there is no such news."""
        for job in self._held:
            if _news(job) == news:
                self._held.remove(job)
                super().tell(run, job)
                return job
        return None


class Tries:
    """The tries of activities on a server: a history keeps their number and the last failure."""

    def __init__(self, history: History, server: Server) -> None:
        self._history = history
        self._server = server
        self._under_way: list[asyncio.Task[None]] = []
        self.problems: list[str] = []

    def begin(self, step: Step, scheduled: HistoryEvent) -> None:
        """Let a scheduled activity be tried as often as it was; its end is told by the history."""
        started = self._history.starts.get(scheduled.event_id)
        if started is not None:
            silent = scheduled.event_id in self._history.timed_out
            self._under_way.append(asyncio.create_task(self._all(step, started, silent=silent)))

    async def _all(self, step: Step, started: HistoryEvent, *, silent: bool) -> None:
        last, at_s = body(started).attempt, self._history.at_s(started)
        while step.attempt < last and not step.ended:
            self._take(step)
            self._server.steps.completed(step, step.attempt, failed(body(started).last_failure))
            while step.retry is not None:  # noqa: ASYNC110 - the server tells nobody of it
                await asyncio.sleep(RETRY_LOOK_S)
        if step.attempt < last:
            self.problems.append(f"{step.name} is given up after {step.attempt} of {last} tries")
            return
        late_s = self._server.loop.time() - at_s
        if last > 1 and late_s > LATE_S:
            self.problems.append(f"try {last} of {step.name} is {late_s:.3f} s late")
        await asyncio.sleep(max(-late_s, 0))
        if not step.ended:
            self._take(step)
        while not (step.ended or silent):
            await asyncio.sleep(BEAT_S)
            self._server.steps.heartbeat(step, step.attempt, ())

    def _take(self, step: Step) -> None:
        step.queue.remove(step)
        self._server.steps.started(step)


class Locals:
    """Local activities as their markers tell of them, each in the task that holds its marker."""

    def __init__(self, history: History) -> None:
        self._task = 0
        self._changed = asyncio.Event()
        self._markers: dict[str, tuple[int, HistoryEvent]] = {}
        self._names: dict[str, None] = {}
        for number, task in enumerate(history.tasks):
            for event in task.commanded:
                if is_local_result(event):
                    found = local_result(event)
                    self._names[found["activity_type"]] = None
                    self._markers[found["activity_id"]] = (number, event)

    def allow(self, number: int) -> None:
        """Task `number` is under way."""
        self._task = number
        self._changed.set()
        self._changed = asyncio.Event()

    def definitions(self) -> list[Any]:
        """Activities that do what is recorded; one that is not recorded fails where it is run."""
        return [temporalio.activity.defn(name=name)(self._definition()) for name in self._names]

    def _definition(self) -> Any:
        async def recorded(*_arguments: Any) -> Any:
            return await self._outcome()

        return recorded

    async def _outcome(self) -> RawValue:
        info = temporalio.activity.info()
        number, event = self._markers[info.activity_id]
        while self._task < number:
            await self._changed.wait()
        if info.attempt < local_result(event)["attempt"]:
            raise ApplicationError("an earlier try, of which nothing is recorded")
        if body(event).HasField("failure"):
            raise failures.failures.from_failure(body(event).failure, failures.payloads)
        (payload,) = body(event).details["result"].payloads
        return RawValue(payload)


def failed(failure: Failure) -> ActivityResolution:
    """What a worker reports of a try that failed."""
    result = ActivityResolution()
    result.failed.failure.CopyFrom(failure)
    return result


def _news(job: WorkflowActivationJob) -> News:
    kind = str(job.WhichOneof("variant"))
    own = getattr(job, kind)
    if kind == "signal_workflow":
        return kind, own.signal_name
    return kind, getattr(own, "seq", None)
