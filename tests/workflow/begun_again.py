"""A recovery whose first workflow is ended by force, and whose second follows what that began."""

from datetime import timedelta
from typing import Any
from uuid import UUID

from engine.clock import utc_now
from engine.records.recovery import RecoveryRecords
from engine.sweeper import Sweeper
from tests.fakes import Gate
from tests.workflow.bench import Bench
from tests.workflow.failovers import guests
from tests.workflow.held_records import held
from tests.workflow.scenarios import cancel_is_known
from worker.temporal_client import TemporalWorkflows


async def begun_again(made: Bench, recovery: UUID) -> None:
    """End its first workflow by force, and let a sweeper find that."""
    await made.workflow(recovery).terminate("by the test")
    workflows = TemporalWorkflows(made.client)

    def past_every_deadline() -> Any:
        return utc_now() + timedelta(hours=1)

    sweeper = Sweeper(made.database, made.backend, workflows, clock=past_every_deadline, every_s=0)
    assert await sweeper.sweep() == 1
    await made.begun(recovery)
    assert (await made.operation(recovery))["attempt"] == 2


async def fence_under_way(made: Bench, gate: Gate) -> UUID:
    await guests(made)
    made.centre.hosts["h1"].reachable = False
    made.centre.before["knock"] = gate
    recovery = await made.report("h1")
    await gate.reached.wait()
    return recovery


async def follows(made: Bench) -> None:
    """Wait until the second try has looked at what the first has begun."""

    async def looked() -> bool:
        return any(row["name"] == "recovery.follow" for row in await made.rows("step"))

    await made.until(looked, "the second try never looked at what the first had begun")


async def a_recovery_begun_again_follows_its_fence(bench: Bench) -> UUID:
    """RecoverHost: its first try is ended by force while its fence runs."""
    gate = Gate()
    recovery = await fence_under_way(bench, gate)
    await begun_again(bench, recovery)
    await follows(bench)
    gate.open()
    await bench.ended(recovery)
    return recovery


async def a_recovery_that_follows_a_fence_is_cancelled_with_it(bench: Bench) -> UUID:
    """RecoverHost: its second try is cancelled while it looks at the fence of the first."""
    gate = Gate()
    recovery = await fence_under_way(bench, gate)
    (fence,) = await bench.children_of(recovery, "host.fence")
    async with held(bench, RecoveryRecords, "outcome_of") as look:
        await begun_again(bench, recovery)
        await look.reached.wait()
        await bench.workflow(recovery, 2).cancel()
        await cancel_is_known(bench, recovery, 2)
    await cancel_is_known(bench, fence["id"])
    gate.open()
    await bench.ended(recovery)
    return recovery
