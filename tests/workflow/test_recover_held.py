"""Failures of hosts that are not proven: held with a reason, returned, cancelled, taken back."""

from uuid import UUID

import pytest

from domain.errors import Refused
from domain.storm import HoldReason
from engine.actions.approvals import ApproveFence
from tests.fakes import Bmc, Gate
from tests.workflow import failovers
from tests.workflow.bench import Bench
from tests.workflow.scenarios import waited

pytestmark = pytest.mark.workflow


async def test_a_host_that_answers_before_the_proof_goes_on_and_nothing_moves(
    engine: Bench,
) -> None:
    operation = await failovers.a_host_answers_again_before_the_proof(engine)
    ended, host = await engine.operation(operation), await engine.host("h1")
    assert (ended["state"], host["state"]) == ("succeeded", "up")
    assert ended["summary"] == "h1 answers again; nothing was moved"
    assert [row["outcome"] for row in await engine.rows("incident")] == ["returned"]
    assert engine.copies("db") == ["h1"]
    assert await engine.broken() == []


async def test_a_controller_that_says_nothing_holds_until_it_answers(engine: Bench) -> None:
    operation = await failovers.a_silent_controller_holds_until_it_answers(engine)
    fences = await engine.children_of(operation, "host.fence")
    assert fences[0]["problem"]["code"] == "BMC_NO_ANSWER"
    assert [row["state"] for row in fences][-1] == "succeeded"
    assert (await engine.operation(operation))["state"] == "succeeded"
    assert await engine.broken() == []


async def test_a_slow_controller_is_read_until_it_says_off(engine: Bench) -> None:
    await failovers.guests(engine)
    h1 = engine.centre.hosts["h1"]
    h1.reachable, h1.bmc = False, Bmc.SLOW
    assert (await engine.ended(await engine.report("h1")))["state"] == "succeeded"
    assert not h1.powered
    assert await engine.broken() == []


async def test_a_disarmed_cluster_holds_and_goes_on_when_it_is_armed(engine: Bench) -> None:
    operation = await failovers.a_disarmed_cluster_holds_until_it_is_armed(engine)
    assert (await engine.operation(operation))["state"] == "succeeded"
    assert await engine.broken() == []


async def test_half_the_hosts_silent_is_held_as_our_own_network(engine: Bench) -> None:
    await failovers.guests(engine)
    for name in ("h1", "h2"):
        engine.centre.hosts[name].reachable = False
    await engine.watcher.missed("h2")
    operation = await engine.report("h1")
    waiting = await engine.waits(operation, HoldReason.MANY_SILENT)
    assert "2 of 3 hosts are silent" in waiting["waiting_for"]
    assert engine.centre.powered_off == []
    assert await engine.broken() == []


async def test_a_monitor_that_has_just_started_fences_nobody(engine: Bench) -> None:
    engine.watcher.warm = False
    engine.centre.hosts["h1"].reachable = False
    operation = await engine.report("h1")
    await engine.waits(operation, HoldReason.VIEW_COLD)
    engine.watcher.warm = True
    assert (await engine.ended(operation))["state"] == "succeeded"


async def test_a_second_host_in_one_window_waits_for_a_person(engine: Bench) -> None:
    await engine.add_host("h4")
    await engine.add_host("h5")
    engine.centre.hosts["h1"].reachable = False
    await engine.ended(await engine.report("h1"))
    engine.centre.hosts["h2"].reachable = False
    await engine.waits(await engine.report("h2"), HoldReason.BUDGET_SPENT)
    assert engine.centre.powered_off == ["h1"]
    assert await engine.broken() == []


async def test_a_spent_budget_is_exceeded_once_a_person_approves(engine: Bench) -> None:
    await engine.add_host("h4")
    await engine.add_host("h5")
    engine.centre.hosts["h1"].reachable = False
    await engine.ended(await engine.report("h1"))
    engine.centre.hosts["h2"].reachable = False
    operation = await engine.report("h2")
    await engine.waits(operation, HoldReason.BUDGET_SPENT)
    await engine.act(ApproveFence(host_id=engine.hosts["h2"], reason="the rack burns"))
    assert (await engine.ended(operation))["state"] == "succeeded"
    assert engine.centre.powered_off == ["h1", "h2"]
    assert await engine.broken() == []


async def test_half_the_hosts_silent_is_fenced_once_a_person_approves(engine: Bench) -> None:
    await failovers.guests(engine)
    for name in ("h1", "h2"):
        engine.centre.hosts[name].reachable = False
    await engine.watcher.missed("h2")
    operation = await engine.report("h1")
    await engine.waits(operation, HoldReason.MANY_SILENT)
    await engine.act(ApproveFence(host_id=engine.hosts["h1"], reason="I see smoke"))
    row = await engine.ended(operation)
    assert row["state"] == "succeeded", row["problem"]
    (incident,) = [one for one in await engine.rows("incident") if not one["open"]]
    assert "ann approves of cutting its power: I see smoke" in incident["decision"]["why"]
    assert engine.centre.powered_off == ["h1"]
    assert await engine.broken() == []


async def test_an_approval_does_not_arm_a_disarmed_cluster(engine: Bench) -> None:
    await engine.arm(False)
    engine.centre.hosts["h1"].reachable = False
    operation = await engine.report("h1")
    await engine.waits(operation, HoldReason.DISARMED)
    with pytest.raises(Refused, match="NOT_APPROVABLE"):
        await engine.act(ApproveFence(host_id=engine.hosts["h1"], reason="do it anyway"))
    assert engine.centre.powered_off == []


async def test_a_cancelled_hold_leaves_the_host_and_says_so(engine: Bench) -> None:
    ended = await engine.operation(await failovers.a_held_recovery_is_cancelled(engine))
    assert ended["state"] == "cancelled"
    assert ended["summary"] == "nothing was moved; h1 is left non_responsive, with its VMs"
    assert [row["outcome"] for row in await engine.rows("incident")] == ["cancelled"]
    assert await engine.rows("entity_lock") == []
    assert await engine.broken() == []


async def test_a_cancel_during_a_judgement_is_heeded_before_the_next_wait(engine: Bench) -> None:
    operation = await failovers.a_recovery_is_cancelled_while_it_judges(engine)
    assert (await engine.operation(operation))["state"] == "cancelled"
    assert not await waited(engine, operation)
    assert [row["outcome"] for row in await engine.rows("incident")] == ["cancelled"]
    assert await engine.broken() == []


async def test_a_host_left_by_a_cancelled_recovery_can_be_activated(engine: Bench) -> None:
    await failovers.a_held_recovery_is_cancelled(engine)
    engine.centre.hosts["h1"].reachable = True

    async def up() -> bool:
        return bool((await engine.host("h1"))["state"] == "up")

    await engine.until(up, "a host that answers again never came back")
    assert engine.copies("db") == ["h1"]
    assert await engine.broken() == []


async def test_a_recovery_cancelled_while_it_fences_certifies_and_moves_nothing(
    engine: Bench,
) -> None:
    operation = await failovers.a_recovery_is_cancelled_while_its_fence_runs(engine)
    ended, fences = (
        await engine.operation(operation),
        await engine.children_of(operation, "host.fence"),
    )
    assert (ended["state"], [row["state"] for row in fences]) == ("cancelled", ["cancelled"])
    assert fences[0]["summary"] == "the power of h1 may be off; no certificate was issued"
    assert await engine.rows("death_certificate") == []
    assert (await engine.host("h1"))["state"] == "non_responsive"
    assert await engine.rows("entity_lock") == []
    assert await engine.broken() == []


async def test_a_fence_cancelled_by_itself_is_tried_again(engine: Bench) -> None:
    operation = await failovers.a_fence_alone_is_cancelled(engine)
    fences = await engine.children_of(operation, "host.fence")
    assert [row["state"] for row in fences] == ["cancelled", "succeeded"]
    assert (await engine.operation(operation))["state"] == "succeeded"
    assert await engine.broken() == []


async def test_a_controller_that_calls_a_living_host_off_is_not_believed(engine: Bench) -> None:
    operation = await failovers.a_host_that_answers_though_it_reads_off_is_no_dead_host(engine)
    assert (await engine.operation(operation))["state"] == "cancelled"
    assert await engine.rows("death_certificate") == []
    assert engine.copies("db") == ["h1"]
    assert await engine.broken() == []


async def test_a_sign_of_life_voids_the_certificate_and_stops_the_starts(engine: Bench) -> None:
    operation = await a_certificate_is_voided_before_the_starts(engine)
    assert [row["state"] for row in await engine.rows("death_certificate")] == ["void"]
    starts = await engine.children_of(operation, "vm.start")
    assert {(row["state"], row["problem"]["code"]) for row in starts} == {
        ("cancelled", "SUPERSEDED")
    }
    for vm in ("db", "mail", "web"):
        assert engine.copies(vm) == ["h1"]
    assert await engine.broken() == []


async def test_the_only_copy_of_a_lost_run_is_revived_when_its_host_comes_back(
    engine: Bench,
) -> None:
    await a_certificate_is_voided_before_the_starts(engine)
    ended = await engine.ended(await engine.activate("h1"))
    assert ended["state"] == "succeeded", ended
    for vm in ("db", "mail", "web", "batch"):
        assert engine.copies(vm) == ["h1"]
    active = {row["vm_id"]: row["host_id"] for row in await engine.rows("vm_run") if row["active"]}
    assert active == {engine.vms[vm]: engine.hosts["h1"] for vm in engine.vms}
    assert await engine.broken() == []


async def test_while_its_old_host_may_live_a_vm_cannot_be_started(engine: Bench) -> None:
    await a_certificate_is_voided_before_the_starts(engine)
    try:
        ended = await engine.ended(await engine.start("db"))
    except Refused:
        pass
    else:
        assert ended["state"] == "cancelled"
        assert ended["problem"]["code"] == "SUPERSEDED"
    assert engine.copies("db") == ["h1"]
    assert await engine.broken() == []


async def test_stale_copies_are_destroyed_and_survivors_kept(engine: Bench) -> None:
    await failovers.guests(engine)
    h1 = engine.centre.hosts["h1"]
    h1.lose_power()
    await engine.ended(await engine.report("h1"))
    old = {domain.name for domain in h1.domains.values()}
    ended = await engine.ended(await engine.activate("h1"))
    assert old == {"db", "mail", "web", "batch"}
    assert (ended["state"], h1.domains) == ("succeeded", {})
    assert "destroyed old copies of" in ended["summary"]
    assert await engine.broken() == []


async def a_certificate_is_voided_before_the_starts(engine: Bench) -> UUID:
    """Outside the fault model: a lying controller, and a host that nobody hears for a while."""
    await failovers.guests(engine)
    h1 = engine.centre.hosts["h1"]
    h1.bmc, h1.reachable = Bmc.LYING, False
    gate = engine.centre.before["define"] = Gate()
    operation = await engine.report("h1")
    await gate.reached.wait()
    h1.reachable = True

    async def voided() -> bool:
        return [row["state"] for row in await engine.rows("death_certificate")] == ["void"]

    await engine.until(voided, "the certificate was never voided")
    gate.open()
    await engine.ended(operation)
    return operation
