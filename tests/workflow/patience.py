"""Time for steps on a busy machine, given where they are scheduled, so that the engine's own limits
stay as they are.

Many benches share one event loop here, and the loop two cores: it may stand still for longer than a
heartbeat limit. A step that is taken away for that has lost a try, and of some there are only two.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

from temporalio.worker import (
    Interceptor,
    StartActivityInput,
    WorkflowInboundInterceptor,
    WorkflowInterceptorClassInput,
    WorkflowOutboundInterceptor,
)
from temporalio.workflow import ActivityHandle

Change = Callable[[StartActivityInput], StartActivityInput]

STALL = timedelta(seconds=60)
"""Far longer than a loop stands still."""
STALLS = 3
"""How many stalls a step outlasts that must be taken away in time, since its worker does die."""


class _Otherwise(WorkflowOutboundInterceptor):
    def __init__(self, following: WorkflowOutboundInterceptor, change: Change) -> None:
        super().__init__(following)
        self._change = change

    def start_activity(self, input: StartActivityInput) -> ActivityHandle[Any]:  # noqa: A002
        return self.next.start_activity(self._change(input))


class Patience(Interceptor):
    """Schedules each step of a workflow otherwise."""

    def __init__(self, change: Change) -> None:
        self._change = change

    def workflow_interceptor_class(
        self,
        input: WorkflowInterceptorClassInput,  # noqa: A002
    ) -> type[WorkflowInboundInterceptor]:
        """What stands around each workflow."""
        change = self._change

        class Around(WorkflowInboundInterceptor):
            def init(self, outbound: WorkflowOutboundInterceptor) -> None:
                super().init(_Otherwise(outbound, change))

        return Around


def _beats_late(step: StartActivityInput) -> StartActivityInput:
    return replace(step, heartbeat_timeout=step.heartbeat_timeout and STALL)


def _tried_more(step: StartActivityInput) -> StartActivityInput:
    retry = step.retry_policy
    if retry is None or not retry.maximum_attempts:
        return step
    more = replace(retry, maximum_attempts=retry.maximum_attempts + STALLS)
    return replace(step, retry_policy=more)


LATE_BEATS = Patience(_beats_late)
"""For workers that live as long as their steps: a late beat is no death."""
MORE_TRIES = Patience(_tried_more)
"""For workers that are killed: a stall takes one try of a step, as a death does."""
