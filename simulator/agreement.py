"""Does virtual Temporal do what a real one did? Follows a history that a real server wrote.

The real workflow code runs on the simulator's own server and worker. What lies outside of them is
the history's: what activities, children and people did, and when. The server's state machines make
of it what they make of it in a simulation (results, retries, timers, cancels, children); each news
they have is held back until the history tells it, in its order and in its task. News that the
history tells and the server does not have, or the reverse, is a `Disagreement`, and so is a task
whose commands are not those in the history.

Invariants  Nothing here judges: what a command becomes is `Server`'s affair, what the workflow does
            next the SDK's instance's. Clocks show the history's times.
"""

import asyncio
import difflib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from temporalio.api.common.v1 import Payload
from temporalio.api.enums.v1 import RetryState
from temporalio.api.history.v1 import HistoryEvent
from temporalio.bridge.proto.activity_result import ActivityResolution
from temporalio.bridge.proto.workflow_activation import WorkflowActivationJob
from temporalio.bridge.proto.workflow_commands import WorkflowCommand
from temporalio.client import WorkflowHistory
from temporalio.common import Priority

from domain.operations import WorkflowState
from simulator.commanded import Commanded
from simulator.histories import History, Shown, Task, body, name_of
from simulator.loop import EPOCH, Process, VirtualLoop
from simulator.recorded import HeldBack, Locals, News, Tries, failed
from simulator.temporal import failures
from simulator.temporal.run import Run, StartOf, TaskState
from simulator.temporal.worker import VirtualWorker

MOMENT_S = 1e-6
"""A wait after which everything that was to happen at once has happened."""

CHILD_ENDS = {
    "CHILD_WORKFLOW_EXECUTION_COMPLETED": WorkflowState.COMPLETED,
    "CHILD_WORKFLOW_EXECUTION_FAILED": WorkflowState.FAILED,
    "CHILD_WORKFLOW_EXECUTION_TIMED_OUT": WorkflowState.FAILED,
    "CHILD_WORKFLOW_EXECUTION_CANCELED": WorkflowState.CANCELLED,
    "CHILD_WORKFLOW_EXECUTION_TERMINATED": WorkflowState.TERMINATED,
}
OF_ACTIVITIES = (
    "ACTIVITY_TASK_COMPLETED",
    "ACTIVITY_TASK_FAILED",
    "ACTIVITY_TASK_TIMED_OUT",
    "ACTIVITY_TASK_CANCELED",
)
NEWS = {
    **dict.fromkeys(OF_ACTIVITIES, "resolve_activity"),
    **dict.fromkeys(CHILD_ENDS, "resolve_child_workflow_execution"),
    "CHILD_WORKFLOW_EXECUTION_STARTED": "resolve_child_workflow_execution_start",
    "START_CHILD_WORKFLOW_EXECUTION_FAILED": "resolve_child_workflow_execution_start",
    "EXTERNAL_WORKFLOW_EXECUTION_CANCEL_REQUESTED": "resolve_request_cancel_external_workflow",
    "REQUEST_CANCEL_EXTERNAL_WORKFLOW_EXECUTION_FAILED": "resolve_request_cancel_external_workflow",
    "TIMER_FIRED": "fire_timer",
    "WORKFLOW_EXECUTION_SIGNALED": "signal_workflow",
    "WORKFLOW_EXECUTION_CANCEL_REQUESTED": "cancel_workflow",
}
"""What a workflow is told of an event."""


class Disagreement(AssertionError):
    """The simulator and the history part here; the message says where, and holds a diff."""


@dataclass(frozen=True)
class Followed:
    """A history that the simulator agrees with to its end."""

    commands: tuple[WorkflowCommand, ...]
    state: WorkflowState
    result: Payload | None
    given_up: tuple[tuple[str, str, str], ...]
    """Activities that failed: name, and why they were not tried again, in history and simulator."""


def follow(
    recorded: WorkflowHistory, workflows: Sequence[type], *, forgetful: bool = False
) -> Followed:
    """Follow a history to its end, or raise `Disagreement`.

    `forgetful`: the worker's cache is lost after each task, so that each begins with a replay.
    """
    loop = VirtualLoop()
    follower = _Follower(History(recorded), workflows, loop, forgetful=forgetful)
    try:
        followed: Followed = loop.run_until_complete(follower.follow())
        return followed
    finally:
        follower.worker.evict_all()
        loop.clear()


class _Follower:
    """One history being followed."""

    def __init__(
        self, history: History, workflows: Sequence[type], loop: VirtualLoop, *, forgetful: bool
    ) -> None:
        self._history = history
        self._loop = loop
        self._forgetful = forgetful
        self._start = body(history.first)
        self._task: Task = history.tasks[0]
        self._server = HeldBack(loop, self._latency, self._start.workflow_id)
        self._tries = Tries(history, self._server)
        self._server.on_defect = lambda error: self._tries.problems.append(str(error))
        self._commanded = Commanded(self._start.workflow_type.name)
        self._given_up: list[tuple[str, str, str]] = []
        self._locals = Locals(history)
        process = Process("worker", "machine-of-the-history")
        process.clock_skew = history.first.event_time.ToDatetime(EPOCH.tzinfo) - EPOCH
        self.worker = VirtualWorker(
            self._server,
            process,
            self._start.task_queue.name,
            workflows=workflows,
            activities=self._locals.definitions(),
            activity_slots=0,  # what activities do is the history's
        )

    async def follow(self) -> Followed:
        """See the module."""
        self.worker.start()
        self._stand_ins()
        for number, task in enumerate(self._history.tasks):
            self._task = task
            self._locals.allow(number)
            await self._run(task)
        run = self._its_run()
        if self._server.held():
            raise self._parted(f"the simulator has news that the history lacks: {self._has()}")
        commands = tuple(command for turn in run.turns for command in turn.commands)
        return Followed(commands, run.state, run.result, tuple(self._given_up))

    async def _run(self, task: Task) -> None:
        for event in task.told:
            await self._until(self._history.at_s(event))
            self._happens(event)
        await self._until(task.started_s)
        found = self._server.current(self._start.workflow_id)
        known = len(found.turns) if found else 0
        told = [self._tells(event) for event in task.told]
        if not any(told) and self._its_run().task is not TaskState.TAKEN:
            # A real server also makes tasks of news that only concern the SDK's core.
            self._compare(task, [])
            return
        await self._until(task.completed_s)
        await asyncio.sleep(MOMENT_S)
        run = self._its_run()
        self._compare(task, self._commanded.shown(run.turns[known:]))
        await asyncio.sleep(MOMENT_S)
        self._begin_tries(run, task)
        if self._forgetful and run.task is TaskState.NONE:
            self.worker.forget(run)

    def _begin_tries(self, run: Run, task: Task) -> None:
        for event in task.commanded:
            if name_of(event) == "ACTIVITY_TASK_SCHEDULED":
                step = run.steps.get(self._commanded.seqs[body(event).activity_id])
                if step is None:
                    raise self._parted(f"{body(event).activity_type.name} is not scheduled")
                self._tries.begin(step, event)

    def _compare(self, task: Task, commanded: list[Shown]) -> None:
        wanted = self._history.shown(task)
        if wanted == commanded and not self._tries.problems:
            return
        lines = difflib.unified_diff(
            _lines(wanted), _lines(commanded), "history", "simulator", lineterm="", n=8
        )
        raise self._parted("other commands:\n" + "\n".join(lines))

    def _parted(self, what: str) -> Disagreement:
        where = f"in the task that was completed after {self._task.completed_s:.3f} s"
        return Disagreement("\n".join([f"{where}: {what}", *self._tries.problems]))

    # What happens outside: before the task that tells of it.

    def _happens(self, event: HistoryEvent) -> None:
        name = name_of(event)
        if name in CHILD_ENDS:
            self._end_child(event, CHILD_ENDS[name])
        elif name in OF_ACTIVITIES and name != "ACTIVITY_TASK_TIMED_OUT":
            self._report(event, name)

    def _report(self, event: HistoryEvent, name: str) -> None:
        """As the activity's worker does; one that was cancelled in its queue has none."""
        wanted = self._history.caused_by(event).activity_id
        step = self._its_run().steps.get(self._commanded.seqs.get(wanted, -1))
        if step is None:
            return
        started = self._history.starts.get(body(event).scheduled_event_id)
        if started is not None and step.attempt != body(started).attempt:
            tries = f"try {step.attempt} under way, the real server had {body(started).attempt}"
            raise self._parted(f"{step.name} ends with {tries}")
        result = ActivityResolution()
        if name == "ACTIVITY_TASK_COMPLETED":
            result.completed.SetInParent()
            for payload in body(event).result.payloads:
                result.completed.result.CopyFrom(payload)
        elif name == "ACTIVITY_TASK_FAILED":
            result = failed(body(event).failure)
        else:
            result.cancelled.failure.CopyFrom(failures.cancelled("cancelled"))
        self._server.steps.completed(step, step.attempt, result)

    def _end_child(self, event: HistoryEvent, state: WorkflowState) -> None:
        own = body(event)
        child = self._server.current(own.workflow_execution.workflow_id)
        if child is None:
            raise self._parted(f"{name_of(event)} of a child that the simulator lacks")
        result = own.result.payloads[0] if state is WorkflowState.COMPLETED else None
        failure = own.failure if state is WorkflowState.FAILED and hasattr(own, "failure") else None
        self._server.close(child, state, result, failure)

    # What the task tells.

    def _tells(self, event: HistoryEvent) -> bool:
        name, own = name_of(event), body(event)
        if name == "WORKFLOW_EXECUTION_STARTED":
            self._begin()
            return True
        run = self._its_run()
        if name == "WORKFLOW_EXECUTION_SIGNALED":
            self._server.signal(run, own.signal_name, tuple(own.input.payloads))
        elif name == "WORKFLOW_EXECUTION_CANCEL_REQUESTED":
            self._server.cancel(run, own.cause)
        news = self._news_of(event)
        if news is None:
            return False
        job = self._server.release(run, news)
        if job is None:
            what = f"the history tells {name}, event {event.event_id} ({news[0]} {news[1]})"
            raise self._parted(f"{what}, the simulator has only {self._has()}")
        if name == "ACTIVITY_TASK_FAILED":
            self._given_up.append(self._why(event, job))
        return True

    def _news_of(self, event: HistoryEvent) -> News | None:
        name, own = name_of(event), body(event)
        if name not in NEWS:
            raise self._parted(f"the history tells {name}, which is not followed yet")
        kind = NEWS[name]
        match kind:
            case "fire_timer":
                return kind, int(own.timer_id)
            case "signal_workflow":
                return kind, own.signal_name
            case "cancel_workflow":
                return kind, None
        return self._news_of_cause(kind, self._history.caused_by(event))

    def _news_of_cause(self, kind: str, cause: Any) -> News | None:
        seqs = self._commanded.seqs
        if kind == "resolve_activity":
            return kind, seqs.get(cause.activity_id)
        if kind != "resolve_request_cancel_external_workflow":
            return kind, seqs.get(cause.workflow_id)
        # Of a child that is cancelled, its parent hears only the end.
        wid = cause.workflow_execution.workflow_id
        return None if cause.child_workflow_only else (kind, seqs.get(wid))

    def _why(self, event: HistoryEvent, job: WorkflowActivationJob) -> tuple[str, str, str]:
        simulated = job.resolve_activity.result.failed.failure.activity_failure_info
        states = (body(event).retry_state, simulated.retry_state)
        real, virtual = map(RetryState.Name, states)
        return self._history.caused_by(event).activity_type.name, real, virtual

    def _begin(self) -> None:
        start = self._start
        above = start.parent_workflow_execution.workflow_id
        self._server.begin(
            StartOf(
                workflow=start.workflow_type.name,
                wid=start.workflow_id,
                arguments=tuple(start.input.payloads),
                task_queue=start.task_queue.name,
                task_timeout_s=start.workflow_task_timeout.ToTimedelta().total_seconds(),
                priority=Priority._from_proto(start.priority),
                parent=self._server.current(above) if above else None,
            )
        )

    def _stand_ins(self) -> None:
        """Workflows that were there before: the parent, ids that were taken, who was cancelled."""
        wids = [self._start.parent_workflow_execution.workflow_id]
        own_children: list[str] = []
        for event in self._history.events.values():
            name, own = name_of(event), body(event)
            if name == "CHILD_WORKFLOW_EXECUTION_STARTED":
                own_children.append(own.workflow_execution.workflow_id)
            elif name == "START_CHILD_WORKFLOW_EXECUTION_FAILED":
                wids.append(own.workflow_id)
            elif NEWS.get(name) == "resolve_request_cancel_external_workflow":
                known = not name.endswith("_FAILED") and self._news_of(event) is not None
                wids += [own.workflow_execution.workflow_id] * known
        wids = [wid for wid in wids if wid not in own_children]
        for wid in filter(None, dict.fromkeys(wids)):
            self._server.begin(StartOf("another", wid, (), "elsewhere", 10.0, Priority()))

    # Time.

    def _latency(self, what: str) -> float:
        """Nothing takes time but a task, which ends when it ended."""
        return max(self._task.completed_s - self._loop.time(), 0) if what == "report" else 0.0

    async def _until(self, at_s: float) -> None:
        if (wait_s := at_s - self._loop.time()) > 0:
            await asyncio.sleep(wait_s)

    def _its_run(self) -> Run:
        run = self._server.current(self._start.workflow_id)
        if run is None:
            raise self._parted("nothing has begun yet")
        return run

    def _has(self) -> str:
        return ", ".join(f"{kind} {about}" for kind, about in self._server.held()) or "none"


def _lines(commands: list[Shown]) -> list[str]:
    return [line for each in commands for line in json.dumps(each, indent=1).splitlines()]
