"""Temporal as one process of the engine sees it: the port that the engine's delivery uses."""

import asyncio
from collections.abc import Callable
from typing import Any

from temporalio.common import Priority

from domain.errors import Unavailable
from domain.operations import WorkflowState
from simulator.temporal import failures
from simulator.temporal.errors import AlreadyStarted
from simulator.temporal.run import Run, StartOf
from simulator.temporal.server import Server
from worker.temporal_client import CALL_LIMIT
from workflows import options

Reach = Callable[[], bool]


class VirtualWorkflows:
    """Implements `engine.delivery.Workflows`. `reaches`: whether the server is heard just now."""

    def __init__(self, server: Server, reaches: Reach = lambda: True) -> None:
        self._server = server
        self._reaches = reaches

    async def start(
        self, workflow: str, order: Any, *, wid: str, priority: int, fairness: str, summary: str
    ) -> None:
        """Start it; an id that was ever used counts as started."""
        await self._call("start")
        start = StartOf(
            workflow=workflow,
            wid=wid,
            arguments=(failures.to_payload(order),),
            task_queue=options.OPERATIONS,
            task_timeout_s=options.TASK.total_seconds(),
            priority=Priority(priority_key=priority, fairness_key=fairness),
            summary=summary,
        )
        try:
            self._server.begin(start)
        except AlreadyStarted:
            return

    async def cancel(self, wid: str) -> None:
        """Ask it to cancel."""
        if (run := await self._found(wid)) is not None:
            self._server.cancel(run)

    async def signal(self, wid: str, name: str) -> None:
        """Send it a signal without content."""
        if (run := await self._found(wid)) is not None:
            self._server.signal(run, name)

    async def raise_priority(self, wid: str, priority: int) -> None:
        """Give it another class."""
        if (run := await self._found(wid)) is not None:
            self._server.raise_priority(run, priority)

    async def describe(self, wid: str) -> WorkflowState:
        """How it stands."""
        await self._call("describe")
        run = self._server.current(wid)
        return WorkflowState.UNKNOWN if run is None else run.state

    async def _found(self, wid: str) -> Run | None:
        await self._call("call")
        run = self._server.current(wid)
        return run if run is not None and run.open else None

    async def _call(self, what: str) -> None:
        await asyncio.sleep(self._server.latency("client"))
        if self._server.up and self._reaches():
            return
        await asyncio.sleep(CALL_LIMIT.total_seconds())
        raise Unavailable(
            "TEMPORAL_UNAVAILABLE",
            f"Temporal does not take the {what}",
            next_step="nothing is lost: it is told when Temporal is back",
        )
