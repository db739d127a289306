"""MaintainHost: what moves, what cannot and why, and what becomes of it when things go wrong."""

import pytest

from domain.errors import Refused
from engine.actions.hosts import RecoverHost
from tests.workflow import maintenances
from tests.workflow.bench import MONITOR, Bench
from tests.workflow.migrations import under_way

pytestmark = pytest.mark.workflow


async def test_a_drained_host_is_empty_and_out_of_service(engine: Bench) -> None:
    operation = await maintenances.a_host_is_drained(engine)
    ended = await engine.operation(operation)
    assert ended["state"] == "succeeded", ended
    assert ended["summary"] == "h1 is in maintenance; 2 VMs were moved"
    assert (await engine.host("h1"))["state"] == "maintenance"
    assert len(await engine.children_of(operation, "vm.migrate")) == 2
    assert engine.centre.hosts["h1"].domains == {}
    assert {*engine.copies("db"), *engine.copies("web")} <= {"h2", "h3"}
    assert (ended["progress_done"], ended["progress_total"]) == (2, 2)
    assert await engine.broken() == []


async def test_a_host_in_maintenance_is_not_recovered_and_gets_no_vm(engine: Bench) -> None:
    await maintenances.a_host_is_drained(engine)
    host = await engine.host("h1")
    engine.centre.hosts["h1"].lose_power()
    silent = RecoverHost(host_id=host["id"], epoch=host["epoch"], why="silent", reported_by="m1")
    with pytest.raises(Refused, match="HOST_STATE_FORBIDS"):
        await engine.act(silent, MONITOR)
    assert (await engine.ended(await engine.migrate("db")))["state"] == "succeeded"
    assert (await engine.host("h1"))["state"] == "maintenance"
    assert engine.centre.powered_off == []


async def test_a_host_comes_back_from_maintenance_by_being_activated(engine: Bench) -> None:
    await maintenances.a_host_is_drained(engine)
    assert (await engine.ended(await engine.activate("h1")))["state"] == "succeeded"
    host = await engine.host("h1")
    assert (host["state"], host["epoch"]) == ("up", 2)
    assert await engine.broken() == []


async def test_a_vm_that_fits_nowhere_is_named_with_its_reason_and_moves_once_there_is_room(
    engine: Bench,
) -> None:
    await engine.add_vm("db", "h1", memory_mib=512)
    for name in ("h2", "h3"):
        await engine.add_vm(f"big-{name}", name, memory_mib=1000)
    operation = await engine.maintain("h1")
    waiting = await engine.waits(operation, "VMS_CANNOT_MOVE")
    assert waiting["waiting_for"].startswith("db: db needs 512 MiB")
    assert (await engine.host("h1"))["state"] == "preparing_maintenance"
    await engine.ended(await engine.stop("big-h3", force=True))
    assert (await engine.ended(operation))["state"] == "succeeded"
    assert (engine.copies("db"), await engine.broken()) == (["h3"], [])


async def test_a_cancelled_drain_gives_its_moves_up_and_the_host_serves_on(engine: Bench) -> None:
    ended = await engine.operation(await maintenances.a_drain_is_cancelled(engine))
    assert ended["state"] == "cancelled"
    assert ended["summary"] == "h1 is up; 0 VMs were moved, 1 moves were asked to end"
    await engine.idle()
    assert (await engine.host("h1"))["state"] == "up"
    assert (engine.copies("db"), await engine.broken()) == (["h1"], [])


async def test_no_more_vms_leave_a_host_at_once_than_the_policy_allows(engine: Bench) -> None:
    ids = [await engine.add_vm(f"vm{n}", "h1", memory_mib=64) for n in range(4)]
    engine.centre.stalled.update(ids)
    operation = await engine.maintain("h1")

    async def two_leave() -> bool:
        return len(engine.centre.hosts["h1"].moves) == 2

    await engine.until(two_leave, "two VMs never left together")
    assert len(await engine.children_of(operation, "vm.migrate")) == 2
    engine.centre.stalled.clear()
    assert (await engine.ended(operation))["state"] == "succeeded"
    assert await engine.broken() == []


async def test_a_host_that_dies_while_it_is_drained_is_recovered(engine: Bench) -> None:
    vm_id = await engine.add_vm("db", "h1")
    await engine.add_vm("web", "h1")
    engine.centre.stalled.add(vm_id)
    operation = await engine.maintain("h1")
    await under_way(engine, "h1", vm_id)
    engine.centre.hosts["h1"].lose_power()
    recovery = await engine.ended(await engine.report("h1"))
    assert recovery["state"] == "succeeded"
    assert (await engine.ended(operation))["state"] == "cancelled"
    for move in await engine.children_of(operation, "vm.migrate"):
        await engine.ended(move["id"])
    await engine.idle()
    assert (await engine.host("h1"))["state"] == "down"
    assert [len(engine.copies(name)) for name in ("db", "web")] == [1, 1]
    assert await engine.broken() == []
