"""Tells when a judgement's own code begins and ends: again each time that the database was away.

The server of a simulation knows when a try was handed out. What the step has read before the
database went away counts for nothing: the worker begins it anew (`worker.interceptors`).
"""

import asyncio
from collections.abc import Callable
from typing import Any

from temporalio import activity
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

JUDGES = "recovery.assess"
"""The step of which it tells: the others are many, and nobody asks."""

TRIED = "step.tried"
LEFT = "step.left"
"""Not told of a try whose process is dead."""

Trace = Callable[..., None]


class TellsTries(Interceptor):
    """Goes behind whatever begins a step anew; `trace` is `Stage.trace`, `who` the process."""

    def __init__(self, trace: Trace, who: str) -> None:
        self._trace = trace
        self._who = who

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002
        """Wrap the next interceptor."""
        return _Inbound(next, self._trace, self._who)


class _Inbound(ActivityInboundInterceptor):
    def __init__(self, following: ActivityInboundInterceptor, trace: Trace, who: str) -> None:
        super().__init__(following)
        self._trace = trace
        self._who = who

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002
        info = activity.info()
        if info.activity_type != JUDGES:
            return await self.next.execute_activity(input)
        which = {"workflow": info.workflow_id, "process": self._who}
        which |= {"step": f"{info.activity_id}/{info.attempt}"}
        self._trace(TRIED, JUDGES, **which)
        # Not `finally`: the code of a dead process ends whenever it is collected.
        try:
            result = await self.next.execute_activity(input)
        except (Exception, asyncio.CancelledError):
            self._trace(LEFT, JUDGES, **which)
            raise
        self._trace(LEFT, JUDGES, **which)
        return result
