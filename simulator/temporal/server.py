"""What a Temporal server keeps: runs, queues, timers; and what it does when it is told something.

Everything the server does later, it does in no process's name: a worker that dies takes no timer
of the server with it. While it is down nothing of it happens; what was due happens when it is back.
"""

import asyncio
import contextvars
import random
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol
from uuid import UUID

from temporalio.api.common.v1 import Payload
from temporalio.api.failure.v1 import Failure
from temporalio.bridge.proto.workflow_activation import WorkflowActivationJob
from temporalio.common import Priority, WorkflowIDConflictPolicy, WorkflowIDReusePolicy

from domain.operations import WorkflowState
from simulator.loop import EPOCH, VirtualLoop, nobody
from simulator.temporal import failures
from simulator.temporal.commands import apply_all, close_children, closes
from simulator.temporal.errors import AlreadyStarted
from simulator.temporal.instance import Turn
from simulator.temporal.queues import DEFAULT_PRIORITY, Rank, TaskQueue
from simulator.temporal.run import Begun, Run, StartOf, TaskState, Update
from simulator.temporal.steps import Steps
from worker.parts import STICKY

if TYPE_CHECKING:
    from simulator.temporal.worker import VirtualWorker

STICKY_S = STICKY.total_seconds()
UNSUCCESSFUL = (WorkflowState.FAILED, WorkflowState.CANCELLED, WorkflowState.TERMINATED)

Trace = Callable[..., None]


class Latency(Protocol):
    """How long a hop takes, in seconds, by what it is."""

    def __call__(self, what: str) -> float:
        """One drawing."""
        ...


class Server:
    """See the module."""

    def __init__(
        self, loop: VirtualLoop, rng: random.Random, latency: Latency, trace: Trace
    ) -> None:
        self.loop = loop
        self.latency = latency
        self.trace = trace
        self.up = True
        self.versioned = False  # whether workers tell their release (worker versioning)
        self.on_defect: Callable[[BaseException], None] = _raise
        self.runs: dict[str, list[Run]] = {}
        self.steps = Steps(self)
        self._rng = rng
        self._queues: dict[tuple[str, str], TaskQueue] = {}
        self._overdue: list[_Due] = []
        self.workers: list[VirtualWorker] = []

    @cached_property
    def _nobody(self) -> contextvars.Context:
        """No process's context, but the simulation's clock and ids."""
        return nobody()

    def queue(self, name: str) -> TaskQueue:
        """Activity tasks."""
        return self._queues.setdefault(("activity", name), TaskQueue(name))

    def workflow_queue(self, name: str, release: int = 0) -> TaskQueue:
        """Workflow tasks that workers of a release, and of later ones, may take."""
        return self._queues.setdefault((f"workflow {release}", name), TaskQueue(name))

    def worked_on_by(self, run: Run, release: int) -> None:
        """With worker versioning, what newer code has gone on with never goes back to older."""
        if self.versioned:
            run.release = max(run.release, release)

    def later(self, delay_s: float, do: Callable[..., None], *given: Any) -> Callable[[], None]:
        """Do something of the server's after a time; gives what cancels it."""
        due = _Due(do, given)
        due.timer = self.loop.call_later(delay_s, self._happen, due, context=self._nobody)
        return due.cancel

    def switch(self, up: bool) -> None:
        """Go down, or come back and catch up."""
        self.up = up
        self.trace("temporal.up" if up else "temporal.down", "temporal")
        overdue, self._overdue = (self._overdue, []) if up else ([], self._overdue)
        for due in overdue:
            self._happen(due)
        if up:
            for worker in tuple(self.workers):
                worker.look()

    # What clients and workflows ask.

    def current(self, wid: str) -> Run | None:
        """The newest run under an id."""
        found = self.runs.get(wid)
        return found[-1] if found else None

    def begin(
        self,
        start: StartOf,
        reuse: WorkflowIDReusePolicy = WorkflowIDReusePolicy.REJECT_DUPLICATE,
        conflict: WorkflowIDConflictPolicy = WorkflowIDConflictPolicy.FAIL,
    ) -> Run:
        """Start a workflow; AlreadyStarted where the policies say so."""
        before = self.current(start.wid)
        if before is not None:
            if before.open and conflict is WorkflowIDConflictPolicy.USE_EXISTING:
                return before
            ends = conflict is WorkflowIDConflictPolicy.TERMINATE_EXISTING
            if before.open and (ends or reuse is WorkflowIDReusePolicy.TERMINATE_IF_RUNNING):
                self.terminate(before)
            elif before.open or not _reusable(before, reuse):
                raise AlreadyStarted(start.wid)
        run_id = self._new_id()
        return self._enter(Run(start, run_id, run_id))

    def signal(self, run: Run, name: str, payloads: tuple[Payload, ...] = ()) -> None:
        """Tell a workflow something."""
        job = WorkflowActivationJob()
        job.signal_workflow.signal_name = name
        job.signal_workflow.input.extend(payloads)
        self.tell(run, job)

    def update(self, run: Run, name: str, payloads: tuple[Payload, ...] = ()) -> Update:
        """Ask a workflow to change something; how it answers shows in what is returned."""
        key = str(len(run.updates) + 1)
        answer = run.updates[key] = Update()
        job = WorkflowActivationJob()
        asked = job.do_update
        asked.id = asked.protocol_instance_id = key
        asked.name, asked.run_validator = name, True
        asked.input.extend(payloads)
        if not run.open:
            answer.failure = failures.unknown_workflow(run.wid)
        self.tell(run, job)
        return answer

    def signal_with_start(self, start: StartOf, name: str, payloads: tuple[Payload, ...]) -> Run:
        """Start a workflow unless it runs, and tell it something either way."""
        policy = WorkflowIDReusePolicy.ALLOW_DUPLICATE
        run = self.begin(start, policy, WorkflowIDConflictPolicy.USE_EXISTING)
        self.signal(run, name, payloads)
        return run

    def cancel(self, run: Run, reason: str = "") -> None:
        """Ask a workflow to cancel; once."""
        if run.open and not run.cancel_asked:
            run.cancel_asked = True
            job = WorkflowActivationJob()
            job.cancel_workflow.reason = reason
            self.tell(run, job)

    def terminate(self, run: Run) -> None:
        """End a workflow without asking it."""
        if run.open:
            self.close(run, WorkflowState.TERMINATED)

    def raise_priority(self, run: Run, priority: int) -> None:
        """Give a run, and what of it waits in queues, another priority."""
        run.rank = replace(run.rank, priority=priority)
        self._queue_of(run).rerank(run, run.rank)
        for step in run.steps.values():
            step.queue.rerank(step, run.rank_of(step.priority))

    def defect(self, error: BaseException) -> None:
        """Code that ran here is wrong: whoever runs the simulation is told."""
        self.on_defect(error)

    def query(self, run: Run, name: str, *arguments: Any) -> Any:
        """Ask a run's workflow, open or not, on the worker that has it, or else on any."""
        able = [worker for worker in self.workers if worker.runs(run)]
        if not able:
            raise LookupError(f"no worker has the code of {run.wid}")
        worker = run.sticky if run.sticky in able else able[0]
        return worker.query(run, name, *arguments)

    def tell(self, run: Run, job: WorkflowActivationJob) -> None:
        """Let a run's workflow know of something; nothing when it has ended."""
        if not run.open:
            return
        run.events += 1
        run.jobs.append(job)
        if run.task is TaskState.NONE:
            self._offer(run)

    # What workers report.

    def task_taken(self, run: Run) -> Begun | None:
        """A worker takes a run's workflow task; None when there is nothing to do any more."""
        if not run.open or run.task is not TaskState.WAITS:
            return None
        run.task = TaskState.TAKEN
        run.task_number += 1
        run.told, run.jobs = run.jobs, []
        self.later(run.start.task_timeout_s, self._task_timed_out, run, run.task_number)
        return Begun(run.task_number, run.told, len(run.turns))

    def task_completed(self, run: Run, number: int, turns: list[Turn]) -> bool:
        """A worker is through with a task; False when the server does not take it any more.

        A workflow that wants to close, while something came that it has not seen, has to look
        again first, as on a real server ("unhandled command").
        """
        if not run.has(number):
            return False
        run.task = TaskState.NONE
        if run.jobs and any(closes(turn) for turn in turns):
            self._again(run)
            return False
        run.told = []
        run.turns += [kept for turn in turns if (kept := turn.recorded()) is not None]
        for turn in turns:
            run.events += 3 + len(turn.commands)
            apply_all(self, run, turn.commands)
        if run.open and run.jobs:
            self._offer(run)
        return True

    def task_goes_on(self, run: Run, number: int, turns: list[Turn]) -> Begun | None:
        """A worker waits for local steps longer than a task may last: a task after the task."""
        if not self.task_completed(run, number, turns) or not run.open:
            return None
        if run.task is TaskState.WAITS:
            self._withdraw(run)
        run.task = TaskState.WAITS
        return self.task_taken(run)

    def close(
        self,
        run: Run,
        state: WorkflowState,
        result: Payload | None = None,
        failure: Failure | None = None,
    ) -> None:
        """A run ends: its steps are dropped, its children dealt with, who waits is told."""
        run.state, run.result, run.failure = state, result, failure
        run.task = TaskState.NONE
        self.trace("workflow." + state.value, run.start.workflow, workflow=run.wid)
        for step in tuple(run.steps.values()):
            self.steps.drop(step)
        for cancel in run.timers.values():
            cancel()
        for update in run.updates.values():
            if update.open:
                update.failure = failures.unknown_workflow(run.wid)
        run.jobs.clear()
        self._withdraw(run)
        close_children(self, run)
        if run.sticky is not None:
            run.sticky.forget(run)
        waiters, run.waiters = run.waiters, []
        for waiter in waiters:
            waiter(run)

    def continue_as_new(self, run: Run, start: StartOf) -> None:
        """A run ends, and the next one of its chain begins."""
        waiters, run.waiters = run.waiters, []
        self.close(run, WorkflowState.CONTINUED)
        after = Run(start, self._new_id(), run.first_run_id, continued_from=run.run_id)
        after.waiters, after.cancel_asked = waiters, False
        self._enter(after)

    def _enter(self, run: Run) -> Run:
        start = run.start
        run.rank = start.parent.rank_of(start.priority) if start.parent else _rank(start.priority)
        run.memo, run.attributes = dict(start.memo), dict(start.attributes)
        self.runs.setdefault(start.wid, []).append(run)
        self.trace("workflow.started", start.workflow, workflow=start.wid)
        now = EPOCH + timedelta(seconds=self.loop.time())
        run.jobs.append(run.initial_job(self._rng.getrandbits(63), now))
        self._offer(run)
        return run

    def _offer(self, run: Run) -> None:
        run.task = TaskState.WAITS
        self.later(self.latency("task"), self._queue_task, run, run.task_number)

    def _queue_task(self, run: Run, number: int) -> None:
        if run.task is not TaskState.WAITS or run.task_number != number:
            return
        if run.sticky is None:
            self._queue_of(run).put(run, run.rank)
            return
        run.sticky.own.put(run, run.rank)
        self.later(STICKY_S, self._not_taken, run, number, run.sticky.own)

    def _not_taken(self, run: Run, number: int, own: TaskQueue) -> None:
        """The worker that has the workflow does not come for it: any other may."""
        if run.task is TaskState.WAITS and run.task_number == number:
            own.remove(run)
            run.sticky = None
            self._queue_of(run).put(run, run.rank)

    def _task_timed_out(self, run: Run, number: int) -> None:
        if run.has(number):
            self.trace("task.timed_out", run.start.workflow, workflow=run.wid)
            self._again(run)

    def _again(self, run: Run) -> None:
        run.jobs, run.told = [*run.told, *run.jobs], []
        if run.sticky is not None:
            run.sticky.forget(run)
        self._offer(run)

    def _queue_of(self, run: Run) -> TaskQueue:
        return self.workflow_queue(run.start.task_queue, run.release)

    def _withdraw(self, run: Run) -> None:
        self._queue_of(run).remove(run)
        if run.sticky is not None:
            run.sticky.own.remove(run)

    def _happen(self, due: "_Due") -> None:
        if not self.up:
            self._overdue.append(due)
        elif not due.off:
            try:
                due.do(*due.given)
            except Exception as error:  # noqa: BLE001 - a finding, told to whoever runs this
                self.defect(error)

    def _new_id(self) -> str:
        return str(UUID(int=self._rng.getrandbits(128), version=4))


class _Due:
    """Something that the server will do, unless it is called off before it has."""

    __slots__ = ("do", "given", "off", "timer")

    def __init__(self, do: Callable[..., None], given: tuple[Any, ...]) -> None:
        self.do = do
        self.given = given
        self.off = False
        self.timer: asyncio.TimerHandle | None = None

    def cancel(self) -> None:
        """Also when its time came while the server was down."""
        self.off = True
        if self.timer is not None:
            self.timer.cancel()


def _rank(own: Priority) -> Rank:
    key = own.priority_key or DEFAULT_PRIORITY
    return Rank(key, own.fairness_key or "", own.fairness_weight or 1.0)


def _reusable(before: Run, reuse: WorkflowIDReusePolicy) -> bool:
    if reuse is WorkflowIDReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY:
        return before.state in UNSUCCESSFUL
    free = (WorkflowIDReusePolicy.ALLOW_DUPLICATE, WorkflowIDReusePolicy.TERMINATE_IF_RUNNING)
    return reuse in free


def _raise(error: BaseException) -> None:
    raise error
