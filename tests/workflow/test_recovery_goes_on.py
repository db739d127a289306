"""A recovery whose workflow is ended by force is begun again, wherever it stood.

Its host is silent and its VMs are down: nobody else would bring them back. What the earlier try
has begun (a fence, restarts) is followed and not begun twice.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import pytest

from activities.recovery import ClaimVictimsOrder
from domain.orders import RestartPlan
from engine.actions.operations import CancelOperation
from engine.records.recovery import RecoveryRecords
from tests.fakes import Gate
from tests.workflow import failovers
from tests.workflow.begun_again import (
    a_recovery_that_follows_a_fence_is_cancelled_with_it,
    begun_again,
    fence_under_way,
    follows,
)
from tests.workflow.bench import Bench
from tests.workflow.ended_restarts import restart_ended_by_force
from tests.workflow.scenarios import cancel_is_known

pytestmark = pytest.mark.workflow

PROTECTED = ("db", "mail", "web")


async def all_is_well(made: Bench, recovery: UUID) -> None:
    """Every protected VM runs again, and none ever ran twice at a time."""
    ended = await made.ended(recovery)
    assert (ended["state"], ended["summary"]) == ("succeeded", "3 of 3 VMs of h1 run again")
    assert [row["outcome"] for row in await made.rows("incident")] == ["recovered"]
    starts = await made.children_of(recovery, "vm.start")
    assert sorted(row["target_name"] for row in starts) == list(PROTECTED)
    for vm in PROTECTED:
        assert len(made.copies(vm)) == 1
        assert made.centre.copies_max[made.vms[vm]] == 1
    assert await made.rows("entity_lock") == []
    assert await made.broken() == []


@asynccontextmanager
async def held_before_the_claim(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Gate]:
    """The first claim of victims stands still until the end of the block."""
    gate, claim, calls = Gate(), RecoveryRecords.claim_victims, []

    async def late(self: RecoveryRecords, order: ClaimVictimsOrder) -> RestartPlan:
        calls.append(order)
        if len(calls) == 1:
            await gate()
        return await claim(self, order)

    monkeypatch.setattr(RecoveryRecords, "claim_victims", late)
    yield gate
    gate.open()


async def test_a_recovery_ended_while_it_is_held_is_begun_again(engine: Bench) -> None:
    await failovers.guests(engine)
    await engine.arm(False)
    engine.centre.hosts["h1"].reachable = False
    recovery = await engine.report("h1")
    await engine.waits(recovery, "DISARMED")
    await begun_again(engine, recovery)
    await engine.arm(True)
    await all_is_well(engine, recovery)


async def test_a_recovery_ended_during_its_fence_follows_that_fence_to_its_proof(
    engine: Bench,
) -> None:
    gate = Gate()
    recovery = await fence_under_way(engine, gate)
    await begun_again(engine, recovery)
    await follows(engine)
    gate.open()
    await all_is_well(engine, recovery)
    fences = await engine.children_of(recovery, "host.fence")
    assert [row["state"] for row in fences] == ["succeeded"]
    assert engine.centre.powered_off == ["h1"]


async def test_a_recovery_that_follows_a_fence_cancels_it_with_itself(engine: Bench) -> None:
    gate = Gate()
    recovery = await fence_under_way(engine, gate)
    await begun_again(engine, recovery)
    (fence,) = await engine.children_of(recovery, "host.fence")
    await follows(engine)
    await engine.act(CancelOperation(operation_id=recovery))
    await cancel_is_known(engine, fence["id"])
    gate.open()
    assert (await engine.ended(recovery))["state"] == "cancelled"
    await nothing_came_of_it(engine, recovery)


async def test_a_recovery_that_is_cancelled_while_it_looks_at_a_fence_cancels_that_too(
    engine: Bench,
) -> None:
    recovery = await a_recovery_that_follows_a_fence_is_cancelled_with_it(engine)
    assert (await engine.operation(recovery))["state"] == "cancelled"
    await nothing_came_of_it(engine, recovery)


async def nothing_came_of_it(engine: Bench, recovery: UUID) -> None:
    """Its fence was cancelled, the incident closed, and no VM is started."""
    (fence,) = await engine.children_of(recovery, "host.fence")
    assert fence["state"] == "cancelled"
    assert [row["outcome"] for row in await engine.rows("incident")] == ["cancelled"]
    assert await engine.children_of(recovery, "vm.start") == []


async def test_a_recovery_ended_between_proof_and_claim_claims_its_vms_after_all(
    engine: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await failovers.guests(engine)
    engine.centre.hosts["h1"].reachable = False
    async with held_before_the_claim(monkeypatch) as gate:
        recovery = await engine.report("h1")
        await gate.reached.wait()
        assert (await engine.host("h1"))["state"] == "down"
        await begun_again(engine, recovery)
        gate.open()  # the step of the first try is still at work, and claims as well
        await all_is_well(engine, recovery)
    assert engine.centre.powered_off == ["h1"]
    assert len(await engine.rows("death_certificate")) == 1


async def test_a_recovery_ended_while_its_restarts_are_under_way_follows_them(
    engine: Bench,
) -> None:
    await failovers.guests(engine)
    engine.centre.hosts["h1"].lose_power()
    gate = engine.centre.before["create"] = Gate()
    recovery = await engine.report("h1")
    await gate.reached.wait()
    await begun_again(engine, recovery)
    await follows(engine)
    gate.open()
    await all_is_well(engine, recovery)
    assert len(await engine.rows("vm_run")) == 4 + len(PROTECTED), "each was placed once"


async def test_a_restart_that_somebody_ends_gives_its_place_back_and_the_others_go_on(
    engine: Bench,
) -> None:
    recovery, start = await restart_ended_by_force(engine)
    row = await engine.operation(start)
    assert (row["state"], row["reason_code"]) == ("cancelled", "terminated")
    assert row["summary"] == "its reserved place was given back"
    ended = await engine.ended(recovery)
    assert (ended["state"], ended["problem"]["code"]) == ("failed", "RESTARTS_FAILED"), ended
    assert ended["problem"]["detail"].startswith("2 of 3 VMs of h1 run again")
    (down,) = (run for run in await engine.rows("vm_run") if run["operation_id"] == start)
    assert down["active"] is None
    again = await engine.start("mail", "h2")
    assert (await engine.ended(again))["state"] == "succeeded"
    assert await engine.broken() == []
