"""Local activities of one workflow task: tried on the worker itself, no queue, no heartbeats.

A try that fails is repeated here while the wait stays under its threshold; a longer wait is the
workflow's own timer, as the SDK does it. What a dead worker's local activities had done is done
again by the next one: only results that the server got with a completed task count.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from temporalio.api.enums.v1 import RetryState, TimeoutType
from temporalio.api.failure.v1 import Failure
from temporalio.bridge.proto.activity_result import ActivityResolution
from temporalio.bridge.proto.workflow_activation import WorkflowActivationJob
from temporalio.bridge.proto.workflow_commands import (
    ActivityCancellationType,
    ScheduleLocalActivity,
    WorkflowCommand,
)

from simulator.temporal import failures
from simulator.temporal.activity import Activities, Try
from simulator.temporal.instance import Turn
from simulator.temporal.run import Run
from simulator.temporal.steps import cancelled

THRESHOLD_S = 60.0
"""The SDK's threshold where a local activity names none."""

WAITS = ActivityCancellationType.WAIT_CANCELLATION_COMPLETED


@dataclass(eq=False)
class _Local:
    command: ScheduleLocalActivity
    task: "asyncio.Task[ActivityResolution] | None" = None  # its tries and the waits between
    trial: Try | None = None  # the try under way
    code: "asyncio.Task[ActivityResolution] | None" = None  # what runs it

    def cancelled(self) -> ActivityResolution:
        """How it ends when it was cancelled."""
        return cancelled(self.command)

    def stop(self) -> None:
        """Nobody wants it any more."""
        for task in (self.task, self.code):
            if task is not None:
                task.cancel()


class LocalSteps:
    """What one workflow task waits for."""

    def __init__(self, activities: Activities, run: Run, loop: asyncio.AbstractEventLoop) -> None:
        self._activities = activities
        self._run = run
        self._loop = loop
        self.open: dict[int, _Local] = {}

    def resume(self, turns: list[Turn]) -> None:
        """Begin anew what earlier tasks had begun and never saw end."""
        left: dict[int, ScheduleLocalActivity] = {}
        for turn in turns:
            for job in turn.activation.jobs:
                if job.HasField("resolve_activity"):
                    left.pop(job.resolve_activity.seq, None)
            for command in turn.commands:
                if command.HasField("schedule_local_activity"):
                    local = command.schedule_local_activity
                    left[local.seq] = local
        for local in left.values():
            self._begin(local)

    def begin(self, commands: Sequence[WorkflowCommand]) -> list[WorkflowActivationJob]:
        """Begin what a turn commands; of a cancel that nobody waits for, it is told at once."""
        told = []
        for command in commands:
            if command.HasField("schedule_local_activity"):
                self._begin(command.schedule_local_activity)
            elif command.HasField("request_cancel_local_activity"):
                job = self._cancel(command.request_cancel_local_activity.seq)
                told += [] if job is None else [job]
        return told

    async def next(self, deadline_s: float) -> WorkflowActivationJob | None:
        """The next end of one, or None at the deadline."""
        timeout = max(deadline_s - self._loop.time(), 0)
        tasks = [local.task for local in self.open.values() if local.task is not None]
        await asyncio.wait(tasks, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        for seq, local in self.open.items():
            if local.task is not None and local.task.done():
                del self.open[seq]
                return _job(seq, local.task.result())
        return None

    def drop(self) -> None:
        """The task is over: what still runs is nobody's."""
        for local in self.open.values():
            local.stop()
        self.open.clear()

    def _begin(self, command: ScheduleLocalActivity) -> None:
        local = self.open[command.seq] = _Local(command)
        local.task = asyncio.create_task(self._tries(local))

    def _cancel(self, seq: int) -> WorkflowActivationJob | None:
        local = self.open.get(seq)
        if local is None:
            return None
        kind = local.command.cancellation_type
        if kind == WAITS and local.trial is not None:
            local.trial.cancel(cancel_requested=True)
            return None
        del self.open[seq]
        if local.trial is None:  # between two tries
            local.stop()
        elif kind != ActivityCancellationType.ABANDON:
            local.trial.cancel(cancel_requested=True)
        return _job(seq, local.cancelled())

    async def _tries(self, local: _Local) -> ActivityResolution:
        command, policy = local.command, failures.policy_of(local.command)
        threshold_s = failures.seconds(command.local_retry_threshold) or THRESHOLD_S
        attempt = max(command.attempt, 1)
        whole_s = failures.seconds(command.schedule_to_close_timeout)
        end_s = None if whole_s is None else self._loop.time() + whole_s
        while True:
            result = await self._try(local, attempt, end_s)
            if result.HasField("cancelled"):
                return local.cancelled()
            if not result.HasField("failed"):
                return result
            failure = result.failed.failure
            wait = failures.next_wait(policy, attempt, failure)
            if not isinstance(wait, timedelta):
                return _given_up(command, failure)
            attempt += 1
            if wait.total_seconds() > threshold_s:
                return self._backoff(command, attempt, wait)
            if not await self._pause(wait.total_seconds(), end_s):
                return _late(command)

    async def _try(self, local: _Local, attempt: int, end_s: float | None) -> ActivityResolution:
        command = local.command
        trial = local.trial = self._activities.local_try(self._run, command, attempt)
        local.code = asyncio.create_task(self._activities.outcome(trial, command.arguments))
        limit_s, kind = self._limit(command, end_s)
        done, _ = await asyncio.wait([local.code], timeout=limit_s)
        local.trial = None
        if done:
            return local.code.result()
        # It is told that it is late, and nobody waits for what it makes of that.
        trial.cancel(timed_out=True)
        result = ActivityResolution()
        result.failed.failure.CopyFrom(failures.timed_out(kind))
        return result

    def _limit(
        self, command: ScheduleLocalActivity, end_s: float | None
    ) -> "tuple[float | None, TimeoutType.ValueType]":
        own_s = failures.seconds(command.start_to_close_timeout)
        left_s = None if end_s is None else max(end_s - self._loop.time(), 0)
        if left_s is not None and (own_s is None or left_s <= own_s):
            return left_s, TimeoutType.TIMEOUT_TYPE_SCHEDULE_TO_CLOSE
        return own_s, TimeoutType.TIMEOUT_TYPE_START_TO_CLOSE

    async def _pause(self, wait_s: float, end_s: float | None) -> bool:
        """Wait for the next try; False when there will be none."""
        left_s = wait_s if end_s is None else end_s - self._loop.time()
        await asyncio.sleep(max(min(wait_s, left_s), 0))
        return wait_s <= left_s

    def _backoff(
        self, command: ScheduleLocalActivity, attempt: int, wait: Any
    ) -> ActivityResolution:
        result = ActivityResolution()
        result.backoff.attempt = attempt
        result.backoff.backoff_duration.FromTimedelta(wait)
        result.backoff.original_schedule_time.CopyFrom(command.original_schedule_time)
        return result


def _late(command: ScheduleLocalActivity) -> ActivityResolution:
    return _given_up(command, failures.timed_out(TimeoutType.TIMEOUT_TYPE_SCHEDULE_TO_CLOSE))


def _given_up(command: ScheduleLocalActivity, failure: Failure) -> ActivityResolution:
    """As the SDK's core does it: a limit comes as an activity's error, any other failure bare."""
    result = ActivityResolution()
    if failure.HasField("timeout_failure_info"):
        failure.message = "Activity timed out"
        state = RetryState.RETRY_STATE_CANCEL_REQUESTED
        failure = failures.of_step(command, "Local Activity timed out", failure, state)
    result.failed.failure.CopyFrom(failure)
    return result


def _job(seq: int, result: ActivityResolution) -> WorkflowActivationJob:
    job = WorkflowActivationJob()
    job.resolve_activity.seq, job.resolve_activity.is_local = seq, True
    job.resolve_activity.result.CopyFrom(result)
    return job
