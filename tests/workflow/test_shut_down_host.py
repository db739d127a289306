"""ShutDownHost: what becomes of VMs and power, and of both when things go wrong."""

from datetime import datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.errors import Refused
from domain.planned import PlannedVms
from engine.actions.hosts import RecoverHost
from engine.actions.operations import CancelOperation
from engine.clock import utc_now
from engine.records.planned import PlannedRecords
from engine.sweeper import Sweeper
from store.ids import new_id
from store.rows import changed
from store.schema import fence_device
from store.schema import host as host_table
from tests.fakes import FakeDomain, Gate
from tests.workflow import planned
from tests.workflow.bench import MONITOR, POLICY, Bench, quick, relaying
from worker.temporal_client import TemporalWorkflows

pytestmark = pytest.mark.workflow


async def _start_remembered(engine: Bench) -> None:
    await PlannedRecords(engine.database, engine.backend).start_remembered()


async def _own_host(connection: AsyncConnection) -> None:
    await changed(connection, host_table.update().values(own_host=True))


async def _no_devices(connection: AsyncConnection) -> None:
    await changed(connection, fence_device.delete())


async def test_frozen_vms_run_once_again_on_their_rebooted_host(engine: Bench) -> None:
    operation = await planned.a_host_is_rebooted_and_its_vms_wait_for_it(engine)
    ended = await engine.operation(operation)
    assert ended["state"] == "succeeded", ended
    host = await engine.host("h1")
    assert (host["state"], host["epoch"], host["power"]) == ("up", 2, None)
    assert (engine.copies("db"), engine.copies("web")) == (["h1"], ["h1"])
    assert engine.centre.hosts["h1"].boot == 2
    assert await engine.rows("planned_stop") == []
    assert (await engine.rows("incident"), await engine.rows("death_certificate")) == ([], [])
    assert "2 VMs were shut down" in ended["summary"]
    assert "2 run again" in ended["summary"]
    assert await engine.broken() == []


async def test_a_vm_stops_before_and_starts_after_those_it_depends_on(engine: Bench) -> None:
    operation = await planned.a_host_is_rebooted_and_its_vms_wait_for_it(engine)
    stops = await engine.children_of(operation, "vm.stop")
    starts = await engine.children_of(operation, "vm.start")
    assert [stop["target_name"] for stop in stops] == ["web", "db"]
    assert [start["target_name"] for start in starts] == ["db", "web"]
    (web,) = [
        run["ended_at"]
        for run in await engine.rows("vm_run")
        if (run["vm_id"], run["generation"]) == (engine.vms["web"], 1)
    ]
    assert web <= stops[1]["started_at"]
    assert starts[0]["finished_at"] <= starts[1]["started_at"]


async def test_vms_of_a_host_that_is_shut_down_fail_over_without_a_proof(engine: Bench) -> None:
    operation = await planned.a_host_is_shut_down_and_its_vms_fail_over(engine)
    ended = await engine.operation(operation)
    assert ended["state"] == "succeeded", ended
    host = await engine.host("h1")
    assert (host["state"], host["power"]) == ("maintenance", "off")
    assert not engine.centre.hosts["h1"].powered
    assert {*engine.copies("db"), *engine.copies("web")} <= {"h2", "h3"}
    assert (await engine.rows("incident"), await engine.rows("death_certificate")) == ([], [])
    assert await engine.broken() == []


async def test_a_host_that_is_off_by_plan_has_not_failed(engine: Bench) -> None:
    await planned.a_host_is_shut_down_and_its_vms_are_moved(engine)
    host = await engine.host("h1")
    silent = RecoverHost(host_id=host["id"], epoch=host["epoch"], why="silent", reported_by="m1")
    with pytest.raises(Refused, match="HOST_STATE_FORBIDS"):
        await engine.act(silent, MONITOR)
    assert len(engine.copies("db")) == 1
    assert engine.centre.powered_off == ["h1"]


async def test_vms_frozen_by_a_shutdown_start_when_their_host_is_activated(engine: Bench) -> None:
    await engine.add_vm("db", "h1", protected=False)
    await engine.add_vm("web", "h1", after=("db",))
    async with relaying(engine):
        ended = await engine.ended(await planned.shut_down(engine, "h1", PlannedVms.FREEZE))
        assert ended["state"] == "succeeded", ended
        assert "started once h1 is active: db, web" in ended["summary"]
        assert (engine.copies("db"), engine.copies("web")) == ([], [])
        assert (await engine.ended(await engine.activate("h1")))["state"] == "succeeded"

        async def both_run() -> bool:
            await _start_remembered(engine)
            return engine.copies("db") == engine.copies("web") == ["h1"]

        await engine.until(both_run, "they never ran again")
        await engine.idle()
    assert await engine.broken() == []


async def test_a_failover_without_room_ends_and_names_who_waits(engine: Bench) -> None:
    await engine.add_vm("db", "h1", memory_mib=512)
    for name in ("h2", "h3"):
        await engine.add_vm(f"big-{name}", name, memory_mib=1000)
    async with relaying(engine):
        operation = await planned.shut_down(engine, "h1")
        ended = await engine.ended(operation)
        assert ended["state"] == "succeeded", ended
        assert "not yet, and started by themselves: db: " in ended["summary"]
        assert (await engine.host("h1"))["power"] == "off"
        (start,) = await engine.children_of(operation, "vm.start")
        await engine.waits(start["id"], "NO_ROOM")
        await engine.ended(await engine.stop("big-h2", force=True))
        assert (await engine.ended(start["id"]))["state"] == "succeeded"
    assert (engine.copies("db"), await engine.broken()) == (["h2"], [])


async def test_power_that_stays_on_needs_a_person_and_says_what_to_do(engine: Bench) -> None:
    operation = await planned.a_shutdown_whose_power_stays_on_needs_a_person(engine)
    ended = await engine.operation(operation)
    assert ended["state"] == "needs_attention"
    assert ended["problem"]["code"] == "HOST_NOT_OFF"
    assert "bmc-h1 reads on" in ended["problem"]["detail"]
    host = await engine.host("h1")
    assert (host["state"], host["power"]) == ("maintenance", "going_off")


async def test_a_machine_that_does_not_come_back_needs_a_person(engine: Bench) -> None:
    operation = await planned.a_reboot_of_a_machine_that_does_not_come_back_needs_a_person(engine)
    ended = await engine.operation(operation)
    assert ended["state"] == "needs_attention"
    assert ended["problem"]["code"] == "HOST_NOT_BACK"
    assert "did not answer within 12 s" in ended["problem"]["detail"]
    host = await engine.host("h1")
    assert (host["state"], host["power"]) == ("maintenance", "on")
    assert engine.copies("db") == []
    engine.centre.hosts["h1"].booting = False
    async with relaying(engine):
        assert (await engine.ended(await engine.activate("h1")))["state"] == "succeeded"
        await engine.idle()
    assert (engine.copies("db"), await engine.broken()) == (["h1"], [])


async def test_a_machine_that_kept_its_boot_was_never_off(engine: Bench) -> None:
    host = engine.centre.hosts["h1"]

    async def with_its_old_mark() -> None:
        host.powered, host.mark = True, 1

    engine.centre.before["bmc_on"] = with_its_old_mark
    ended = await engine.ended(await planned.reboot(engine, "h1"))
    assert ended["problem"]["code"] == "HOST_NOT_BACK"
    assert "it answers in the boot that it had" in ended["problem"]["detail"]


async def test_a_shutdown_cancelled_while_its_vms_end_gives_them_back(engine: Bench) -> None:
    vm_id = await engine.add_vm("db", "h1")
    gate = engine.centre.before["shutdown"] = Gate()
    async with relaying(engine):
        operation = await planned.shut_down(engine, "h1")
        await gate.reached.wait()
        await engine.workflow(operation).cancel()
        ended = await engine.ended(operation)
        gate.open()
        assert ended["state"] == "cancelled"
        assert ended["summary"] == "h1 is up; started again by itself: db"
        await engine.idle()

        async def runs() -> bool:
            await _start_remembered(engine)
            return len(engine.copies("db")) == 1 and await engine.rows("planned_stop") == []

        await engine.until(runs, "it never ran again")
    assert vm_id in [run["vm_id"] for run in await engine.rows("vm_run") if run["active"]]
    assert await engine.broken() == []


async def test_a_host_that_dies_while_its_vms_end_is_recovered_with_them(engine: Bench) -> None:
    await engine.add_vm("db", "h1")
    await engine.add_vm("web", "h1", protected=False)
    gate = engine.centre.before["shutdown"] = Gate()
    async with relaying(engine):
        operation = await planned.reboot(engine, "h1")
        await gate.reached.wait()
        engine.centre.hosts["h1"].lose_power()
        gate.open()
        recovery = await engine.ended(await engine.report("h1"))
        assert recovery["state"] == "succeeded", recovery
        assert (await engine.ended(operation))["state"] == "cancelled"

        async def both_run() -> bool:
            await _start_remembered(engine)
            return [len(engine.copies(name)) for name in ("db", "web")] == [1, 1]

        await engine.until(both_run, "they never ran again")
        await engine.idle()
    assert await engine.broken() == []


async def test_the_machine_of_the_engine_is_never_switched(engine: Bench) -> None:
    await engine.write(_own_host)
    with pytest.raises(Refused, match="OWN_HOST"):
        await planned.shut_down(engine, "h1")


async def test_a_host_without_power_devices_is_not_shut_down(engine: Bench) -> None:
    await engine.write(_no_devices)
    with pytest.raises(Refused, match="NO_FENCE_DEVICE") as refused:
        await planned.reboot(engine, "h1")
    assert "holdfast host maintain h1" in refused.value.next_step


async def _swept(made: Bench) -> None:
    def past_every_deadline() -> datetime:
        return utc_now() + timedelta(hours=1)

    workflows = TemporalWorkflows(made.client)
    sweeper = Sweeper(made.database, made.backend, workflows, clock=past_every_deadline, every_s=0)
    assert await sweeper.sweep() == 1


async def _lost_while_settled(made: Bench) -> UUID:
    """A reboot of h1, with a frozen VM, whose workflow is ended by force in the new boot."""
    await made.add_vm("db", "h1")
    gate = made.centre.before["set_boot_mark"] = Gate()
    operation = await planned.reboot(made, "h1")
    await gate.reached.wait()
    assert (await made.host("h1"))["state"] == "reconciling"
    made.centre.hosts["h1"].reachable = False  # so that its step ends without having admitted it
    await made.workflow(operation).terminate("by the test")
    gate.open()
    return operation


async def test_a_reboot_lost_while_it_is_settled_leaves_its_host_out(engine: Bench) -> None:
    async with relaying(engine):
        operation = await _lost_while_settled(engine)
        await _swept(engine)
        ended = await engine.ended(operation)
        assert (ended["state"], ended["attempt"]) == ("needs_attention", 2), ended
        assert ended["problem"]["code"] == "HOST_NOT_BACK"
        assert "holdfast host activate h1" in ended["problem"]["next_step"]
        assert (await engine.host("h1"))["state"] == "non_operational"
        assert engine.copies("db") == []
        engine.centre.hosts["h1"].reachable = True
        assert (await engine.ended(await engine.activate("h1")))["state"] == "succeeded"

        async def runs() -> bool:
            await _start_remembered(engine)
            return engine.copies("db") == ["h1"]

        await engine.until(runs, "it never ran again")
        await engine.idle()
    assert await engine.broken() == []


async def test_a_reboot_cancelled_and_ended_by_force_leaves_its_host_out(engine: Bench) -> None:
    async with relaying(engine):
        operation = await _lost_while_settled(engine)
        await engine.act(CancelOperation(operation_id=operation))
        await _swept(engine)
        ended = await engine.operation(operation)
        assert ended["state"] == "cancelled", ended
        assert (await engine.host("h1"))["state"] == "non_operational"
        await engine.idle()


async def test_a_guest_that_no_row_knows_keeps_the_power_on(engine: Bench) -> None:
    stray = FakeDomain("stray", 256, 1)
    engine.centre.run(engine.centre.hosts["h1"], new_id(), stray)
    ended = await engine.ended(await planned.shut_down(engine, "h1"))
    assert ended["state"] == "needs_attention"
    assert "HOST_NOT_EMPTY: 1 guests" in ended["problem"]["detail"]
    assert "stray" in ended["problem"]["detail"]
    assert engine.centre.hosts["h1"].powered
    assert engine.centre.powered_off == []
    assert (await engine.host("h1"))["power"] is None


async def test_a_machine_that_falls_off_again_is_told_on_once_more(engine: Bench) -> None:
    host, told = engine.centre.hosts["h1"], []

    async def heard() -> None:
        told.append(host.powered)

    async def off_again() -> None:
        if len(told) == 1:
            host.switch_off(by="its own fault")

    engine.centre.before |= {"bmc_on": heard, "bmc_read": off_again}
    with quick(POLICY.model_copy(update={"off_read_back_s": 30})):
        operation = await planned.reboot(engine, "h1")
    ended = await engine.ended(operation)
    assert ended["state"] == "succeeded", ended
    assert told == [False, False]
