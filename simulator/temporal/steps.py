"""The life of one activity on the server: tries, limits, heartbeats, cancelling.

    scheduled -> (waits in its queue -> started)* -> ended

Races  A try that the server has given up may still run on its worker; what it reports is refused,
       as the server refuses a stale task token, and what it did in the world stays done.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from temporalio.api.common.v1 import Payload
from temporalio.api.enums.v1 import RetryState, TimeoutType
from temporalio.api.failure.v1 import Failure
from temporalio.bridge.proto.activity_result import ActivityResolution
from temporalio.bridge.proto.workflow_activation import WorkflowActivationJob
from temporalio.bridge.proto.workflow_commands import ScheduleActivity
from temporalio.common import Priority

from simulator.temporal import failures
from simulator.temporal.queues import TaskQueue
from simulator.temporal.run import Run

QUEUED = TimeoutType.TIMEOUT_TYPE_SCHEDULE_TO_START
RUNS = TimeoutType.TIMEOUT_TYPE_START_TO_CLOSE
BEATS = TimeoutType.TIMEOUT_TYPE_HEARTBEAT
WHOLE = TimeoutType.TIMEOUT_TYPE_SCHEDULE_TO_CLOSE


@dataclass(eq=False)
class Step:
    """One scheduled activity."""

    run: Run
    command: ScheduleActivity
    queue: TaskQueue
    scheduled_s: float
    queued_s: float  # when the try under way came into its queue
    attempt: int = 1
    started_s: float | None = None  # of the try under way
    cancel_asked: bool = False
    ended: bool = False
    beat: Sequence[Payload] = ()  # details of the last heartbeat
    timers: list[Any] = field(default_factory=list)
    retry: Any = None

    @property
    def name(self) -> str:
        """Type of the activity."""
        return str(self.command.activity_type)

    @property
    def priority(self) -> Priority:
        """Its own, which may be empty."""
        return Priority._from_proto(self.command.priority)

    def has(self, attempt: int) -> bool:
        """Whether a try is the one under way."""
        known = not self.ended and self.run.open
        return known and attempt == self.attempt and self.started_s is not None

    def left_s(self, now_s: float) -> float | None:
        """How long until the limit over all tries; None where there is none."""
        limit_s = failures.seconds(self.command.schedule_to_close_timeout)
        return None if limit_s is None else self.scheduled_s + limit_s - now_s


class Steps:
    """Moves activities; `loop`, `trace` and `tell` are the server's."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self._loop = server.loop
        self._later = server.later

    def schedule(self, run: Run, command: ScheduleActivity) -> None:
        """A new activity waits for a worker."""
        queue = self._server.queue(command.task_queue or run.start.task_queue)
        now_s = self._loop.time()
        step = Step(run, command, queue, now_s, now_s)
        run.steps[command.seq] = step
        self._limit(step, WHOLE, command.schedule_to_close_timeout)
        self._enqueue(step)

    def started(self, step: Step) -> int | None:
        """A worker has taken it; the number of the try, None when nobody wants it any more."""
        if step.ended or not step.run.open:
            return None
        step.started_s, command = self._loop.time(), step.command
        self._unlimit(step, QUEUED)
        self._limit(step, RUNS, command.start_to_close_timeout)
        self._limit(step, BEATS, command.heartbeat_timeout)
        return step.attempt

    def heartbeat(self, step: Step, attempt: int, details: Sequence[Payload]) -> bool | None:
        """Whether a cancel was asked for; None when the try is not the server's any more."""
        if not step.has(attempt):
            return None
        step.beat = details
        self._unlimit(step, BEATS)
        self._limit(step, BEATS, step.command.heartbeat_timeout)
        return step.cancel_asked

    def completed(
        self,
        step: Step,
        attempt: int,
        result: ActivityResolution,
        beat: Sequence[Payload] | None = None,
    ) -> None:
        """A worker reports the end of a try, and a heartbeat held back; a stale one is refused."""
        if not step.has(attempt):
            self._server.trace("step.late", step.name, workflow=step.run.wid, attempt=attempt)
            return
        if beat is not None:
            step.beat = beat
        if result.HasField("failed"):
            self._failed(step, result.failed.failure)
        elif result.HasField("cancelled"):
            self._end(step, cancelled(step.command, result.cancelled.failure))
        else:
            self._end(step, result)

    def request_cancel(self, step: Step) -> None:
        """The workflow asks; one that no worker has is cancelled at once."""
        step.cancel_asked = True
        if step.started_s is None:
            self._end(step, cancelled(step.command))

    def drop(self, step: Step) -> None:
        """Its workflow has ended: what still runs finds that out at its next heartbeat."""
        self._clear(step)
        step.ended = True

    def _enqueue(self, step: Step) -> None:
        step.retry = None
        if step.ended or not step.run.open:
            return
        step.queued_s = self._loop.time()
        self._limit(step, QUEUED, step.command.schedule_to_start_timeout)
        step.queue.put(step, step.run.rank_of(step.priority))

    def _limit(self, step: Step, kind: Any, duration: Any) -> None:
        limit_s = failures.seconds(duration)
        if limit_s is not None:
            cancel = self._later(limit_s, self._timed_out, step, step.attempt, kind)
            step.timers.append((kind, cancel))

    def _unlimit(self, step: Step, *kinds: Any) -> None:
        for timer in [each for each in step.timers if each[0] in kinds]:
            timer[1]()
            step.timers.remove(timer)

    def _timed_out(self, step: Step, attempt: int, kind: Any) -> None:
        if step.ended or (attempt != step.attempt and kind != WHOLE):
            return
        limit = TimeoutType.Name(kind)
        self._server.trace("step.timed_out", step.name, workflow=step.run.wid, limit=limit)
        self._failed(step, failures.timed_out(kind, step.beat))

    def _failed(self, step: Step, failure: Failure) -> None:
        wait = failures.next_wait(failures.policy_of(step.command), step.attempt, failure)
        if step.cancel_asked:
            wait = RetryState.RETRY_STATE_CANCEL_REQUESTED
        left_s = step.left_s(self._loop.time())
        if isinstance(wait, timedelta) and left_s is not None and wait.total_seconds() > left_s:
            wait = RetryState.RETRY_STATE_TIMEOUT  # it would begin after the last limit of all
        if isinstance(wait, timedelta):
            self._try_again(step, wait)
            return
        late = wait == RetryState.RETRY_STATE_TIMEOUT
        if late and failure.timeout_failure_info.timeout_type in (RUNS, BEATS):
            failure = failures.timed_out(WHOLE, step.beat)
        self._end(step, resolved(step.command, failure, wait))

    def _try_again(self, step: Step, wait: timedelta) -> None:
        if not step.run.open:
            self.drop(step)
            return
        self._unlimit(step, QUEUED, RUNS, BEATS)
        step.attempt, step.started_s = step.attempt + 1, None
        delay_s = wait.total_seconds() + self._server.latency("retry")
        step.retry = self._later(delay_s, self._enqueue, step)

    def _end(self, step: Step, result: ActivityResolution) -> None:
        self._clear(step)
        step.ended = True
        # Of a step whose cancelling nobody waits for, the workflow has been told already.
        if step.run.steps.pop(step.command.seq, None) is not None:
            self.tell(step.run, step.command.seq, result)

    def tell(self, run: Run, seq: int, result: ActivityResolution) -> None:
        """Let a workflow know how an activity ended."""
        job = WorkflowActivationJob()
        job.resolve_activity.seq = seq
        job.resolve_activity.result.CopyFrom(result)
        self._server.tell(run, job)

    def _clear(self, step: Step) -> None:
        for _kind, timer in step.timers:
            timer()
        step.timers.clear()
        if step.retry is not None:
            step.retry()
        step.queue.remove(step)


def resolved(command: Any, cause: Failure, state: "RetryState.ValueType") -> ActivityResolution:
    """What a workflow is told of an activity that failed."""
    result = ActivityResolution()
    words = "timed out" if cause.HasField("timeout_failure_info") else "failed"
    wrapped = failures.of_step(command, f"Activity task {words}", cause, state)
    result.failed.failure.CopyFrom(wrapped)
    return result


def cancelled(command: Any, cause: Failure | None = None) -> ActivityResolution:
    """What a workflow is told of an activity that was cancelled."""
    result = ActivityResolution()
    cause = failures.cancelled() if cause is None else cause
    state = RetryState.RETRY_STATE_CANCEL_REQUESTED
    wrapped = failures.of_step(command, "Activity cancelled", cause, state)
    result.cancelled.failure.CopyFrom(wrapped)
    return result
