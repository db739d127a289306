"""Runs one try of an activity as the SDK's worker does: context, interceptors, heartbeats, outcome.

A cancel reaches an activity in the answer to a heartbeat, and heartbeats are held back as the SDK
holds them back, so a cancelled step notices as late here as it does on a real worker.
"""

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import temporalio.activity as sdk
from temporalio.api.common.v1 import Payload
from temporalio.bridge.proto.activity_result import ActivityResolution
from temporalio.bridge.proto.workflow_commands import ScheduleActivity, ScheduleLocalActivity
from temporalio.common import Priority, _CompositeEvent
from temporalio.exceptions import ApplicationError, CancelledError
from temporalio.worker import (
    ActivityInboundInterceptor,
    ActivityOutboundInterceptor,
    ExecuteActivityInput,
    Interceptor,
)

from simulator.loop import EPOCH
from simulator.temporal import failures
from simulator.temporal.errors import Unsupported
from simulator.temporal.instance import NAMESPACE
from simulator.temporal.run import Run
from simulator.temporal.steps import Step

HELD_BACK = 0.8
"""Part of a heartbeat limit between two heartbeats that are sent (the SDK's core)."""

HELD_BACK_MAX_S = 60.0
HELD_BACK_DEFAULT_S = 30.0
"""The same where there is no heartbeat limit."""

BEAT_AGAIN_S = 0.2
"""How long until a heartbeat that the server did not hear is sent again."""

Command = ScheduleActivity | ScheduleLocalActivity


def _event() -> _CompositeEvent:
    return _CompositeEvent(thread_event=threading.Event(), async_event=asyncio.Event())


@dataclass(eq=False)
class Try:
    """What is running: where its heartbeats go, and whether a cancel has reached it."""

    info: sdk.Info
    step: Step | None = None
    task: asyncio.Task[Any] | None = None  # while its code runs
    cancelled: bool = False
    event: _CompositeEvent = field(default_factory=_event)
    why: sdk._ActivityCancellationDetailsHolder = field(
        default_factory=sdk._ActivityCancellationDetailsHolder
    )
    sent_s: float = -1e9
    held: Sequence[Payload] | None = None  # a heartbeat that is held back
    flush: asyncio.TimerHandle | None = None

    def cancel(self, **why: bool) -> None:
        """Let its code know that it is not wanted any more."""
        if not self.cancelled:
            self.cancelled = True
            self.why.details = sdk.ActivityCancellationDetails(**why)
            self.event.set()
            if self.task is not None:
                self.task.cancel("Activity cancelled")


class Activities:
    """The activities of one worker. `server` is where heartbeats go; `hears`: whether they come."""

    def __init__(
        self,
        server: Any,
        activities: Sequence[Any],
        interceptors: Sequence[Interceptor],
        hears: Callable[[], bool],
    ) -> None:
        self._server = server
        self._loop = server.loop
        self._known = {d.name: d for d in map(sdk._Definition.must_from_callable, activities)}
        self._interceptors = tuple(interceptors)
        self._hears = hears
        for name, definition in self._known.items():
            if not definition.is_async:
                raise Unsupported(f"{name} is not an async function: the simulator has no threads")

    async def run(
        self, step: Step, attempt: int, queue: str
    ) -> tuple[ActivityResolution, Sequence[Payload] | None]:
        """One try of a scheduled activity; what is to be reported, and a heartbeat held back."""
        trial = Try(self._info(step.run, step.command, attempt, queue, step), step)
        self._server.trace("step.started", step.name, workflow=step.run.wid, attempt=attempt)
        outcome = await self.outcome(trial, step.command.arguments)
        return outcome, trial.held if outcome.HasField("failed") else None

    async def outcome(self, trial: Try, arguments: Sequence[Payload]) -> ActivityResolution:
        """Run the code; what came of it as the worker reports it."""
        result = ActivityResolution()
        try:
            if trial.cancelled:
                raise CancelledError("Cancelled")
            trial.task = asyncio.current_task()
            value = await self._execute(trial, arguments)
            result.completed.result.CopyFrom(failures.to_payload(value))
        except (asyncio.CancelledError, CancelledError) as error:
            if self._loop.over:
                raise
            if trial.cancelled:
                _uncancel()
                result.cancelled.failure.CopyFrom(failures.cancelled("Cancelled"))
            else:
                result.failed.failure.CopyFrom(failures.of_error(error))
        except Exception as error:  # noqa: BLE001 - a worker reports whatever an activity raises
            result.failed.failure.CopyFrom(failures.of_error(error))
        finally:
            trial.task = None
            if trial.flush is not None:
                trial.flush.cancel()
        return result

    def local_try(self, run: Run, command: ScheduleLocalActivity, attempt: int) -> Try:
        """One try of a local activity."""
        return Try(self._info(run, command, attempt, run.start.task_queue, None))

    async def _execute(self, trial: Try, arguments: Sequence[Payload]) -> Any:
        definition = self._known.get(trial.info.activity_type)
        if definition is None:
            raise ApplicationError(f"{trial.info.activity_type} is not here", type="NotFoundError")
        values = failures.from_payloads(arguments, definition.arg_types)
        sdk._Context.set(self._context(trial))
        inbound: ActivityInboundInterceptor = _Innermost()
        for interceptor in reversed(self._interceptors):
            inbound = interceptor.intercept_activity(inbound)
        inbound.init(_Outbound(trial.info, lambda *details: self._beat(trial, details)))
        return await inbound.execute_activity(
            ExecuteActivityInput(fn=definition.fn, args=values, executor=None, headers={})
        )

    def _beat(self, trial: Try, details: tuple[Any, ...]) -> None:
        if trial.step is None:
            return
        trial.held = failures.payloads.to_payloads(details)
        limit = trial.info.heartbeat_timeout
        every_s = HELD_BACK_DEFAULT_S if limit is None else HELD_BACK * limit.total_seconds()
        due_s = trial.sent_s + min(every_s, HELD_BACK_MAX_S)
        if trial.flush is not None:
            return
        if self._loop.time() >= due_s:
            self._send(trial)
        else:
            trial.flush = self._loop.call_at(due_s, self._send, trial)

    def _send(self, trial: Try) -> None:
        trial.flush = None
        if trial.held is None or trial.step is None:
            return
        if not self._hears():
            trial.flush = self._loop.call_later(BEAT_AGAIN_S, self._send, trial)
            return
        trial.sent_s, details, trial.held = self._loop.time(), trial.held, None
        asked = self._server.steps.heartbeat(trial.step, trial.info.attempt, details)
        if asked is None:
            # The server does not know this try any more, which ends it as a cancel does.
            trial.cancel(not_found=True)
        elif asked:
            trial.cancel(cancel_requested=True)

    def _context(self, trial: Try) -> sdk._Context:
        return sdk._Context(
            info=lambda: trial.info,
            heartbeat=None,
            cancelled_event=trial.event,
            worker_shutdown_event=_event(),
            shield_thread_cancel_exception=None,
            payload_converter_class_or_instance=failures.payloads,
            runtime_metric_meter=None,
            client=None,
            cancellation_details=trial.why,
        )

    def _info(
        self, run: Run, command: Command, attempt: int, queue: str, step: Step | None
    ) -> sdk.Info:
        now_s = self._loop.time()
        scheduled_s, queued_s = (
            (now_s, now_s) if step is None else (step.scheduled_s, step.queued_s)
        )
        beat = None if step is None else _limit(step.command.heartbeat_timeout)
        return sdk.Info(
            activity_id=command.activity_id,
            activity_type=command.activity_type,
            attempt=attempt,
            current_attempt_scheduled_time=EPOCH + timedelta(seconds=queued_s),
            heartbeat_details=failures.from_payloads(() if step is None else step.beat, None),
            heartbeat_timeout=beat,
            is_local=step is None,
            namespace=NAMESPACE,
            schedule_to_close_timeout=_limit(command.schedule_to_close_timeout),
            scheduled_time=EPOCH + timedelta(seconds=scheduled_s),
            start_to_close_timeout=_limit(command.start_to_close_timeout),
            started_time=EPOCH + timedelta(seconds=now_s),
            task_queue=queue,
            task_token=b"",
            workflow_id=run.wid,
            workflow_namespace=NAMESPACE,
            workflow_run_id=run.run_id,
            workflow_type=run.start.workflow,
            priority=Priority.default if step is None else run.priority_of(step.priority),
            retry_policy=failures.policy_of(command),
        )


class _Innermost(ActivityInboundInterceptor):
    def __init__(self) -> None:
        """Has no next one."""

    def init(self, outbound: ActivityOutboundInterceptor) -> None:
        context = sdk._Context.current()
        context.info, context.heartbeat = outbound.info, outbound.heartbeat

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002 - the SDK's name
        return await input.fn(*input.args)


class _Outbound(ActivityOutboundInterceptor):
    def __init__(self, info: sdk.Info, beat: Callable[..., None]) -> None:
        self._info = info
        self._beat = beat

    def info(self) -> sdk.Info:
        return self._info

    def heartbeat(self, *details: Any) -> None:
        self._beat(*details)


def _uncancel() -> None:
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        task.uncancel()


def _limit(duration: Any) -> timedelta | None:
    value = failures.seconds(duration)
    return None if value is None else timedelta(seconds=value)
