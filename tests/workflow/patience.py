"""Time for steps on a busy machine, given where they are scheduled, so that the engine's own limits
stay as they are.

Many benches share one event loop here, and the loop two cores: it may stand still for longer than a
heartbeat limit. A step that is taken away for that has lost a try, and of some there are only two.
"""

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

STALL = timedelta(seconds=60)
"""Far longer than a loop stands still."""
STALLS = 3
"""How many stalls a step outlasts that must be taken away in time, since its worker does die."""


class LateBeats(Interceptor):
    """For workers that live as long as their steps: a late beat is no death."""

    def workflow_interceptor_class(
        self,
        input: WorkflowInterceptorClassInput,  # noqa: A002
    ) -> type[WorkflowInboundInterceptor]:
        """What stands around each workflow."""
        return _LateBeats


class MoreTries(Interceptor):
    """For workers that are killed: a stall takes one try of a step, as a death does."""

    def workflow_interceptor_class(
        self,
        input: WorkflowInterceptorClassInput,  # noqa: A002
    ) -> type[WorkflowInboundInterceptor]:
        """What stands around each workflow."""
        return _MoreTries


class _LateBeats(WorkflowInboundInterceptor):
    def init(self, outbound: WorkflowOutboundInterceptor) -> None:
        super().init(_LongLimits(outbound))


class _LongLimits(WorkflowOutboundInterceptor):
    def start_activity(self, input: StartActivityInput) -> ActivityHandle[Any]:  # noqa: A002
        limit = None if input.heartbeat_timeout is None else STALL
        return self.next.start_activity(replace(input, heartbeat_timeout=limit))


class _MoreTries(WorkflowInboundInterceptor):
    def init(self, outbound: WorkflowOutboundInterceptor) -> None:
        super().init(_ManyTries(outbound))


class _ManyTries(WorkflowOutboundInterceptor):
    def start_activity(self, input: StartActivityInput) -> ActivityHandle[Any]:  # noqa: A002
        retry = input.retry_policy
        if retry is None or not retry.maximum_attempts:
            return self.next.start_activity(input)
        more = replace(retry, maximum_attempts=retry.maximum_attempts + STALLS)
        return self.next.start_activity(replace(input, retry_policy=more))
