"""Run one process of the engine with a fault planted: `python -m tests.lab.planted PLANT ROLE`.

traps                 kills or stops the process at a named point, or another process whose pid the
                      trap names; once for each trap that is set.
no_certificate_check  declares a host dead without cutting its power or reading it back: what the
                      engine would be without its proofs.

A trap is a file in the engine's folder. The process takes it away before it springs, so that the
process that is started in its place goes on unharmed. The engine itself has no such switches: all
of this is done to its classes from outside, in this process alone.
"""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from temporalio import activity
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

import cli.processes
import worker.parts
from activities.fencing import FenceStep, Fencing
from activities.ports import Claim
from domain.inventory import FenceDevice, PowerReading
from domain.orders import Evidence
from drivers.fence_agents import FenceAgents
from engine.backend import Backend
from engine.records.runs import RunRecords

AGENT_UNDER_WAY_S = 0.15
"""How long a fence agent runs before its parent is killed under it."""


def trap_file(var: Path, point: str) -> Path:
    """Where a trap for a point lies; it holds the signal's name, and perhaps a pid."""
    return var / f"trap-{point}"


def set_trap(
    var: Path, point: str, number: signal.Signals = signal.SIGKILL, pid: int | None = None
) -> None:
    """Let the next process that reaches a point send a signal there: to a process, else itself."""
    trap_file(var, point).write_text(number.name if pid is None else f"{number.name} {pid}")


def spring(point: str) -> None:
    """Send the signal that is set for this point, if any."""
    path = trap_file(Path(os.environ["HOLDFAST_VAR"]), point)
    with contextlib.suppress(FileNotFoundError):
        name, _, pid = path.read_text().partition(" ")
        path.unlink()
        os.kill(int(pid or os.getpid()), signal.Signals[name])


class Traps(Interceptor):
    """A point before and after the body of each step: `begin:NAME`, `end:NAME`.

    And the same in one kind of workflow alone: `end:WORKFLOW:NAME`.
    """

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002
        """Wrap the next interceptor."""
        return _Trapped(next)


class _Trapped(ActivityInboundInterceptor):
    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002
        info = activity.info()
        names = (info.activity_type, f"{info.workflow_type}:{info.activity_type}")
        for name in names:
            spring(f"begin:{name}")
        result = await super().execute_activity(input)
        for name in names:
            spring(f"end:{name}")
        return result


def plant_traps() -> None:
    """Points at each step and at the places between a decision and its effect."""
    # The tracing interceptors stand inside the one that writes the step tree, as ours must.
    setattr(cli.processes, "tracing_interceptor", lambda _kind: [Traps()])  # noqa: B010
    begin_start = RunRecords.begin_start

    async def claim(self: RunRecords, run: Any) -> None:
        await begin_start(self, run)
        spring("claimed")

    RunRecords.begin_start = claim  # type: ignore[method-assign]
    deliver = Backend._deliver

    async def accepted(self: Backend, operation_ids: Any) -> None:
        spring("accepted")
        await deliver(self, operation_ids)

    Backend._deliver = accepted  # type: ignore[method-assign]
    setattr(FenceAgents, "off", _with_trap(FenceAgents.off))  # noqa: B010


Off = Callable[[FenceAgents, FenceDevice, Claim | None], Coroutine[Any, Any, None]]


def _with_trap(off: Off) -> Off:
    async def switch(self: FenceAgents, device: FenceDevice, claim: Claim | None = None) -> None:
        async def claimed() -> None:
            if claim is not None:
                await claim()
            asyncio.get_running_loop().call_later(AGENT_UNDER_WAY_S, spring, "agent")

        await off(self, device, claimed)

    return switch


class Unproven(Fencing):
    """A fence that believes what nobody has seen."""

    @activity.defn(name="fencing.power_off")
    async def power_off(self, step: FenceStep) -> None:
        """Cut nothing."""

    @activity.defn(name="fencing.read_back")
    async def read_back(self, step: FenceStep) -> tuple[Evidence, ...]:
        """Call every device off without asking it or the host."""
        devices = await self._records.devices(step.host.host_id)
        at = datetime.now(UTC).isoformat()
        return tuple(
            Evidence(device=device.name, verdict=PowerReading.OFF, took_s=0.0, at=at)
            for device in devices
        )


def plant_no_certificate_check() -> None:
    """No cut, and evidence that nobody gathered."""
    setattr(worker.parts, "Fencing", Unproven)  # noqa: B010


PLANTS: dict[str, Callable[[], None]] = {
    "traps": plant_traps,
    "no_certificate_check": plant_no_certificate_check,
}


if __name__ == "__main__":
    PLANTS[sys.argv[1]]()
    cli.processes.run_role(sys.argv[2])
