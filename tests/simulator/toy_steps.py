"""Small activities, and how a toy workflow calls one: as its order says."""

import asyncio
from datetime import timedelta
from typing import Any

from pydantic import BaseModel
from temporalio import activity, workflow
from temporalio.common import Priority, RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError, FailureError
from temporalio.workflow import ActivityCancellationType


def told(error: BaseException) -> str:
    """An error and its causes, in one line."""
    parts = []
    at: BaseException | None = error
    while at is not None:
        words = [type(at).__name__]
        state = getattr(at, "retry_state", None)
        words += [state.name] if state is not None and isinstance(at, ActivityError) else []
        kind = getattr(at, "type", None)
        words += [str(getattr(kind, "name", kind))] if kind is not None else []
        parts.append(" ".join([*words, f"({at.args[0] if at.args else ''})"]))
        at = at.cause if isinstance(at, FailureError) else None
    return " <- ".join(parts)


def seconds(value: float | None) -> timedelta | None:
    """A duration, or none."""
    return None if value is None else timedelta(seconds=value)


class Steps:
    """Activities, and what they remember: `calls` holds name, try and time of each try."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int, float]] = []
        self.seen: list[Any] = []

    def all(self) -> list[Any]:
        """For a worker."""
        return [self.echo, self.fails, self.flaky, self.sleeps, self.beats, self.stubborn]

    def times(self) -> list[float]:
        """When the tries began."""
        return [round(at_s, 6) for _name, _try, at_s in self.calls]

    def _note(self) -> int:
        info = activity.info()
        at_s = asyncio.get_running_loop().time()
        self.calls.append((info.activity_type, info.attempt, at_s))
        return info.attempt

    @activity.defn(name="toy.echo")
    async def echo(self, value: Any) -> Any:
        """Gives back what it gets."""
        self._note()
        return value

    @activity.defn(name="toy.fails")
    async def fails(self, value: dict[str, Any]) -> None:
        """Fails as it is told."""
        self._note()
        delay = seconds(value.get("delay_s"))
        final = bool(value.get("final"))
        raise ApplicationError(
            "as told", type=value.get("type"), non_retryable=final, next_retry_delay=delay
        )

    @activity.defn(name="toy.flaky")
    async def flaky(self, good_try: int) -> int:
        """Fails until a certain try."""
        attempt = self._note()
        if attempt < good_try:
            raise ApplicationError("not yet", type="Flaky")
        return attempt

    @activity.defn(name="toy.sleeps")
    async def sleeps(self, value: float) -> str:
        """Takes its time, and never beats."""
        self._note()
        await asyncio.sleep(value)
        self.seen.append("slept")
        return "slept"

    @activity.defn(name="toy.beats")
    async def beats(self, value: dict[str, Any]) -> Any:
        """Beats every so often with a counter; from a try on it goes on where the last one was."""
        attempt = self._note()
        at = list(activity.info().heartbeat_details)
        self.seen.append(at)
        count = at[0] if at else 0
        try:
            while count < value["until"]:
                count += 1
                activity.heartbeat(count)
                if attempt == 1 and count == value.get("fail_at"):
                    raise ApplicationError("half way", type="Half")
                if attempt == 1 and count == value.get("hang_at"):
                    await asyncio.sleep(1000)
                await asyncio.sleep(value.get("every_s", 1))
        except asyncio.CancelledError:
            why = activity.cancellation_details()
            self.seen.append((why, round(asyncio.get_running_loop().time(), 6)))
            raise
        return [attempt, count]

    @activity.defn(name="toy.stubborn")
    async def stubborn(self, value: float) -> str:
        """Beats each second, and when it is cancelled finishes its work all the same."""
        self._note()
        end_s = asyncio.get_running_loop().time() + value
        while asyncio.get_running_loop().time() < end_s:
            activity.heartbeat()
            try:
                await asyncio.sleep(1)
            except asyncio.CancelledError:
                self.seen.append("cancelled")
                await asyncio.sleep(2)
                return "finished all the same"
        return "finished"


class Order(BaseModel):
    """One activity, and how it is called."""

    step: str = "toy.echo"
    value: Any = None
    queue: str | None = None
    start_to_close_s: float | None = 10
    schedule_to_close_s: float | None = None
    schedule_to_start_s: float | None = None
    heartbeat_s: float | None = None
    tries: int = 0
    first_s: float = 1
    coefficient: float = 2
    most_s: float | None = None
    final_types: list[str] = []
    cancellation: int = ActivityCancellationType.TRY_CANCEL
    cancel_after_s: float | None = None
    local: bool = False
    threshold_s: float | None = None
    priority: int | None = None
    fairness: str | None = None


def call(order: Order) -> Any:
    """Begin the activity of an order."""
    policy = RetryPolicy(
        initial_interval=timedelta(seconds=order.first_s),
        backoff_coefficient=order.coefficient,
        maximum_interval=seconds(order.most_s),
        maximum_attempts=order.tries,
        non_retryable_error_types=order.final_types or None,
    )
    common: dict[str, Any] = {
        "start_to_close_timeout": seconds(order.start_to_close_s),
        "schedule_to_close_timeout": seconds(order.schedule_to_close_s),
        "retry_policy": policy,
        "cancellation_type": ActivityCancellationType(order.cancellation),
    }
    if order.local:
        threshold = seconds(order.threshold_s)
        return workflow.start_local_activity(
            order.step, order.value, local_retry_threshold=threshold, **common
        )
    return workflow.start_activity(
        order.step,
        order.value,
        task_queue=order.queue,
        schedule_to_start_timeout=seconds(order.schedule_to_start_s),
        heartbeat_timeout=seconds(order.heartbeat_s),
        priority=Priority(priority_key=order.priority, fairness_key=order.fairness),
        **common,
    )
