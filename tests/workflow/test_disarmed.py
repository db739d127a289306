"""Recoveries while a cluster is disarmed: each mode lets other things go on."""

from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.disarming import FAILURE_IGNORED, DisarmMode
from domain.errors import Refused
from domain.storm import HoldReason
from engine.actions.approvals import ApproveFence
from engine.actions.clusters import ArmCluster
from engine.actions.host_config import EditHost
from store.rows import changed
from store.schema import host
from tests.fakes import Bmc, Gate
from tests.workflow import failovers
from tests.workflow.bench import Bench

pytestmark = pytest.mark.workflow


async def put_host(engine: Bench, name: str, **values: Any) -> None:
    """Set columns of a host, past every rule."""
    query = host.update().where(host.c.id == engine.hosts[name]).values(**values)

    async def work(connection: AsyncConnection) -> None:
        await changed(connection, query)

    await engine.write(work)


async def test_a_frozen_recovery_keeps_its_places_and_starts_its_vms_once_armed(
    engine: Bench,
) -> None:
    operation = await failovers.a_frozen_recovery_starts_its_vms_once_armed(engine)
    assert (await engine.operation(operation))["state"] == "succeeded"
    starts = await engine.children_of(operation, "vm.start")
    assert [row["state"] for row in starts] == ["succeeded"] * 3
    assert [len(engine.copies(name)) for name in ("db", "mail", "web")] == [1, 1, 1]
    again = [run for run in await engine.rows("vm_run") if run["incident_id"]]
    assert len(again) == 3, "each kept the place that it had"
    assert await engine.broken() == []


async def test_a_start_that_is_cancelled_while_frozen_gives_its_place_back(engine: Bench) -> None:
    await engine.add_vm("db", "h1")
    gate = engine.centre.before["define"] = Gate()
    engine.centre.hosts["h1"].lose_power()
    operation = await engine.report("h1")
    await gate.reached.wait()
    await engine.arm(False, mode=DisarmMode.FREEZE)
    gate.open()
    (start,) = await engine.children_of(operation, "vm.start")
    await engine.waits(start["id"], "DISARMED")
    await engine.workflow(start["id"]).cancel()
    assert (await engine.ended(start["id"]))["state"] == "cancelled"
    assert (await engine.ended(operation))["problem"]["code"] == "RESTARTS_FAILED"
    assert engine.copies("db") == []
    assert [row["memory_reserved_mib"] for row in await engine.rows("host")] == [0, 0, 0]
    assert await engine.broken() == []


async def test_a_recovery_that_waits_for_room_takes_none_while_frozen(engine: Bench) -> None:
    await engine.add_vm("db", "h1")
    for name in ("h2", "h3"):
        await put_host(engine, name, memory_mib=0)
    engine.centre.hosts["h1"].lose_power()
    operation = await engine.report("h1")

    async def waiting() -> bool:
        rows = await engine.children_of(operation, "vm.start")
        return [row["reason_code"] for row in rows] == ["NO_ROOM"]

    await engine.until(waiting, "it found room")
    await engine.arm(False, mode=DisarmMode.FREEZE)
    await put_host(engine, "h2", memory_mib=4096)
    (start,) = await engine.children_of(operation, "vm.start")
    await engine.waits(start["id"], "DISARMED")
    assert engine.copies("db") == []
    await engine.arm(True)
    assert (await engine.ended(operation))["state"] == "succeeded"
    assert engine.copies("db") == ["h2"]
    assert await engine.broken() == []


async def test_a_recovery_under_way_goes_on_while_failures_are_ignored(engine: Bench) -> None:
    await failovers.guests(engine)
    h1 = engine.centre.hosts["h1"]
    h1.reachable, h1.bmc = False, Bmc.DEAD
    operation = await engine.report("h1")
    await engine.waits(operation, "BMC_NO_ANSWER")
    await engine.arm(False, mode=DisarmMode.IGNORE)
    engine.watcher.blind.add("h2")  # else it may be `up` again before its failure is reported
    with pytest.raises(Refused, match=FAILURE_IGNORED):
        await engine.report("h2")
    engine.watcher.blind.clear()

    async def heard() -> bool:
        return bool((await engine.host("h2"))["state"] == "up")

    await engine.until(heard, "h2 answers, and no monitor hears it")
    h1.bmc = Bmc.OK
    await engine.workflow(operation).signal("look_again")
    assert (await engine.ended(operation))["state"] == "succeeded"
    assert engine.centre.powered_off == ["h1"]
    assert [row["open"] for row in await engine.rows("incident")] == [None]
    assert await engine.broken() == []


async def test_arming_wakes_a_recovery_that_waits_at_once(engine: Bench) -> None:
    await engine.add_vm("db", "h1")
    await engine.arm(False, mode=DisarmMode.FREEZE)
    engine.centre.hosts["h1"].reachable = False
    operation = await engine.report("h1")
    waiting = await engine.waits(operation, HoldReason.DISARMED)
    assert "disarmed: freeze, by ann" in waiting["waiting_for"]
    await engine.act(ArmCluster(cluster_id=engine.cluster_id, armed=True))
    assert (await engine.ended(operation))["state"] == "succeeded"


async def test_a_silent_rack_is_told_to_whoever_has_to_approve(engine: Bench) -> None:
    for name in ("h4", "h5", "h6", "h7"):
        await engine.add_host(name)
    engine.centre.hosts["h1"].reachable = False
    assert (await engine.ended(await engine.report("h1")))["state"] == "succeeded"
    for name in ("h2", "h3"):
        await engine.act(EditHost(host_id=engine.hosts[name], rack="r1"))
        engine.centre.hosts[name].reachable = False
    await engine.watcher.missed("h3")
    operation = await engine.report("h2")
    waiting = await engine.waits(operation, HoldReason.BUDGET_SPENT)
    assert "1 of 1 fences in the last 300 s are spent in cluster" in waiting["waiting_for"]
    assert "the next one is free at" in waiting["waiting_for"]
    assert "2 of 2 hosts of rack r1 are silent, 0 of 4 elsewhere" in waiting["waiting_for"]
    await engine.act(ApproveFence(host_id=engine.hosts["h2"], reason="its feed is dead"))
    assert (await engine.ended(operation))["state"] == "succeeded"
    assert engine.centre.powered_off == ["h1", "h2"]
