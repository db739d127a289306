"""A recovery of which somebody ends one VM's start by force, in Temporal."""

from datetime import timedelta
from typing import Any
from uuid import UUID

from domain.operations import OPEN_STATES
from engine.clock import utc_now
from engine.sweeper import Sweeper
from tests.fakes import Gate
from tests.workflow.bench import Bench
from tests.workflow.failovers import guests
from tests.workflow.scenarios import finished
from worker.temporal_client import TemporalWorkflows


async def _swept(bench: Bench, operation: UUID) -> None:
    """Until what is ended by force is closed, past every deadline of its steps."""

    def past_every_deadline() -> Any:
        return utc_now() + timedelta(hours=1)

    workflows = TemporalWorkflows(bench.client)
    sweeper = Sweeper(
        bench.database, bench.backend, workflows, clock=past_every_deadline, every_s=0
    )

    async def closed() -> bool:
        await sweeper.sweep()
        return (await bench.operation(operation))["state"] not in OPEN_STATES

    await bench.until(closed, "the ended start was never closed")


async def restart_ended_by_force(bench: Bench) -> tuple[UUID, UUID]:
    """The recovery, and the start of `mail` that was ended while its place was reserved."""
    await guests(bench)
    gate = bench.centre.before["define"] = Gate()
    bench.centre.hosts["h1"].lose_power()
    recovery = await bench.report("h1")
    await gate.reached.wait()
    starts = await bench.children_of(recovery, "vm.start")
    (start,) = (row["id"] for row in starts if row["target_name"] == "mail")

    async def begun() -> bool:
        return bool((await bench.operation(start))["state"] == "running")

    await bench.until(begun, "the start that is to be ended never began")
    await bench.workflow(start).terminate("by the test")
    gate.open()
    await _swept(bench, start)
    return recovery, start


async def a_restart_that_somebody_ends_is_left_to_the_sweeper(bench: Bench) -> UUID:
    """RecoverHost: one VM's start is ended by force; the others run again."""
    recovery, _start = await restart_ended_by_force(bench)
    return await finished(bench, recovery)
