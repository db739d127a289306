"""Failures of hosts that are proven: fenced or found off, and their VMs started elsewhere."""

from uuid import UUID

import pytest

from domain.errors import Conflict
from engine.actions.operations import CancelOperation
from engine.records.runs import RunRecords
from store.rows import Row
from tests.fakes import Gate
from tests.workflow import failovers
from tests.workflow.bench import Bench
from tests.workflow.held_records import held
from tests.workflow.scenarios import cancel_is_known

pytestmark = pytest.mark.workflow


async def test_an_isolated_host_is_cut_read_back_certified_and_its_vms_run_elsewhere(
    engine: Bench,
) -> None:
    operation = await failovers.an_isolated_host_is_fenced(engine)
    ended, host = await engine.operation(operation), await engine.host("h1")
    assert (ended["state"], ended["summary"]) == ("succeeded", "3 of 3 VMs of h1 run again")
    assert engine.centre.powered_off == ["h1"]
    assert (host["state"], engine.centre.hosts["h1"].powered) == ("down", False)
    for vm in ("db", "mail", "web"):
        assert len(engine.copies(vm)) == 1
        assert engine.copies(vm) != ["h1"]
    assert await engine.broken() == []


async def test_the_certificate_names_the_host_its_epoch_and_what_was_read(engine: Bench) -> None:
    await failovers.an_isolated_host_is_fenced(engine)
    (certificate,) = await engine.rows("death_certificate")
    read = [(fact["device"], fact["verdict"]) for fact in certificate["evidence"]]
    assert (certificate["host_id"], certificate["epoch"]) == (engine.hosts["h1"], 1)
    assert certificate["state"] == "valid"
    assert read == [("bmc-h1", "off"), ("h1", "silent")]


async def test_a_power_cut_is_proven_by_reading_and_nothing_is_cut(engine: Bench) -> None:
    operation = await failovers.a_power_cut_needs_no_fence(engine)
    assert (await engine.operation(operation))["state"] == "succeeded"
    assert engine.centre.powered_off == []
    assert await engine.broken() == []


async def test_what_nobody_protects_is_left_down(engine: Bench) -> None:
    operation = await failovers.a_power_cut_needs_no_fence(engine)
    started = [row["target_name"] for row in await engine.children_of(operation, "vm.start")]
    assert sorted(started) == ["db", "mail", "web"]
    assert engine.copies("batch") == []
    assert await engine.broken() == []


async def test_a_vm_starts_after_the_one_it_depends_on_and_priorities_place_first(
    engine: Bench,
) -> None:
    await failovers.guests(engine)
    gate = engine.centre.before["create"] = Gate()
    engine.centre.hosts["h1"].lose_power()
    operation = await engine.report("h1")
    await gate.reached.wait()

    def defined() -> set[str]:
        """What has a definition on a host that lives."""
        others = [host for name, host in engine.centre.hosts.items() if name != "h1"]
        return {domain.name for host in others for domain in host.domains.values()}

    async def both_are_defined() -> bool:
        return {"db", "mail"} <= defined()

    await engine.until(both_are_defined, "those that depend on nothing were not defined at once")
    children = await engine.children_of(operation, "vm.start")
    assert [row["target_name"] for row in children] == ["db", "mail", "web"]
    web = next(row for row in children if row["target_name"] == "web")
    assert (web["state"], web["run_id"]) == ("pending", None)
    assert "web" not in defined()
    gate.open()
    assert (await engine.ended(operation))["state"] == "succeeded"
    runs = {row["vm_id"]: row["started_at"] for row in await engine.rows("vm_run") if row["active"]}
    assert runs[engine.vms["db"]] < runs[engine.vms["web"]]
    assert await engine.broken() == []


async def test_restarts_without_room_wait_as_operations_of_their_own(engine: Bench) -> None:
    await engine.add_vm("big", "h1", memory_mib=1000)
    await engine.add_vm("other-2", "h2", memory_mib=512)
    await engine.add_vm("other-3", "h3", memory_mib=512)
    engine.centre.hosts["h1"].lose_power()
    operation = await engine.report("h1")

    async def opened() -> bool:
        return bool(await engine.children_of(operation, "vm.start"))

    await engine.until(opened, "the restart was never opened")
    (child,) = await engine.children_of(operation, "vm.start")
    await engine.waits(child["id"], "NO_ROOM")
    held = {row["entity_type"] for row in await engine.rows("entity_lock")}
    assert held == {"vm"}, "the host must be free to come back with the room that is missing"
    assert (await engine.ended(await engine.activate("h1")))["state"] == "succeeded"
    assert (await engine.ended(operation))["state"] == "succeeded"
    assert engine.copies("big") == ["h1"]
    assert await engine.broken() == []


async def test_a_second_report_of_the_same_failure_is_refused(engine: Bench) -> None:
    await failovers.guests(engine)
    await engine.arm(False)
    engine.centre.hosts["h1"].reachable = False
    operation = await engine.report("h1")
    await engine.waits(operation, "DISARMED")
    with pytest.raises(Conflict) as refused:
        await engine.report("h1")
    assert refused.value.code == "INCIDENT_OPEN"
    assert len(await engine.rows("incident")) == 1
    assert await engine.broken() == []


async def test_a_restart_that_fails_does_not_hide_the_others(engine: Bench) -> None:
    operation = await failovers.a_restart_that_fails_makes_the_recovery_fail(engine)
    ended = await engine.operation(operation)
    assert (ended["state"], ended["problem"]["code"]) == ("failed", "RESTARTS_FAILED")
    assert ended["problem"]["detail"] == "2 of 3 VMs of h1 run again"
    assert (engine.copies("mail"), len(engine.copies("db"))) == ([], 1)
    assert await engine.broken() == []


async def test_a_restart_that_is_refused_is_tried_elsewhere_and_again(engine: Bench) -> None:
    operation = await failovers.a_restart_that_is_refused_is_tried_elsewhere_and_again(engine)
    assert (await engine.operation(operation))["state"] == "succeeded"
    children = await engine.children_of(operation, "vm.start")
    (mail,) = [row for row in children if row["target_name"] == "mail"]
    assert "failed before on" in mail["summary"]
    steps = [row for row in await engine.rows("step") if row["operation_id"] == mail["id"]]
    assert [row["name"] for row in steps].count("guest.withdraw") == 2
    assert len(engine.copies("mail")) == 1
    assert await engine.broken() == []


async def test_a_restart_whose_new_host_falls_silent_waits_for_that_host_or_its_proof(
    engine: Bench,
) -> None:
    await engine.add_vm("db", "h1")
    h1 = engine.centre.hosts["h1"]

    async def silent() -> None:
        engine.centre.before.pop("create", None)
        engine.centre.hosts["h2"].reachable = False

    engine.centre.before["create"] = silent
    h1.lose_power()
    first = await engine.report("h1")
    await engine.until(lambda: _has_child(engine, first), "nothing was started elsewhere")
    (start,) = await engine.children_of(first, "vm.start")
    await engine.waits(start["id"], "START_NOT_UNDONE")
    assert [run["host_id"] for run in await _active(engine)] == [engine.hosts["h2"]]
    # Only the proof that h2 is dead lets it be started on h3.
    engine.centre.hosts["h2"].lose_power()
    assert (await engine.ended(await engine.report("h2")))["state"] == "succeeded"
    assert engine.copies("db") == ["h3"]
    await engine.ended(first)
    await engine.idle()
    assert await engine.broken() == []


async def test_a_restart_that_cannot_be_undone_can_be_cancelled_whenever_that_comes(
    engine: Bench,
) -> None:
    await engine.add_vm("db", "h1")

    async def silent() -> None:
        engine.centre.before.pop("create", None)
        engine.centre.hosts["h2"].reachable = False

    engine.centre.before["create"] = silent
    engine.centre.hosts["h1"].lose_power()
    first = await engine.report("h1")
    await engine.until(lambda: _has_child(engine, first), "nothing was started elsewhere")
    (start,) = await engine.children_of(first, "vm.start")
    await engine.waits(start["id"], "START_NOT_UNDONE")
    async with held(engine, RunRecords, "begin_withdraw") as gate:
        await gate.reached.wait()
        await engine.act(CancelOperation(operation_id=start["id"]))
        await cancel_is_known(engine, start["id"])
    ended = await engine.ended(start["id"])
    assert ended["state"] == "needs_attention"
    assert ended["summary"].startswith("cancelled, but not undone")
    # What is left on h2 is settled once h2 is.
    assert [run["host_id"] for run in await _active(engine)] == [engine.hosts["h2"]]
    await engine.ended(first)


async def _has_child(engine: Bench, operation: UUID) -> bool:
    return bool(await engine.children_of(operation, "vm.start"))


async def _active(engine: Bench) -> list[Row]:
    return [run for run in await engine.rows("vm_run") if run["active"]]


async def test_without_a_workflow_cache_a_failover_ends_the_same(engine_uncached: Bench) -> None:
    operation = await failovers.an_isolated_host_is_fenced(engine_uncached)
    assert (await engine_uncached.operation(operation))["state"] == "succeeded"
    assert await engine_uncached.broken() == []
