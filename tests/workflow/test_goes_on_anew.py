"""An operation that goes on in a new run, since its history has grown long, forgets no cancel."""

import pytest
from temporalio import workflow

from activities.guests import PlaceOrder
from domain.orders import Placement
from engine.records.runs import RunRecords
from store import hosts
from tests.fakes import Gate
from tests.workflow.bench import Bench
from tests.workflow.scenarios import cancel_is_known, finished

pytestmark = pytest.mark.workflow


async def test_a_restart_that_failed_and_waits_long_for_room_starts_once_there_is_some(
    engine: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await finished(engine, await engine.maintain("h3"))
    await engine.add_vm("db", "h1")
    engine.centre.refusing[engine.vms["db"]] = 1  # where its recovery has kept a place for it
    engine.centre.before["create"] = lambda: has_memory(engine, "h2", 100)
    engine.centre.hosts["h1"].lose_power()
    recovery = await engine.report("h1")

    async def waits_for_room() -> bool:
        found = await engine.children_of(recovery, "vm.start")
        return [row["reason_code"] for row in found] == ["NO_ROOM"]

    await engine.until(waits_for_room, "its start never waited for room")
    (start,) = await engine.children_of(recovery, "vm.start")
    first = (await engine.workflow(start["id"]).describe()).run_id
    with monkeypatch.context() as patched:
        patched.setattr(workflow.Info, "is_continue_as_new_suggested", lambda _: True)
        await engine.workflow(start["id"]).signal("look_again")

        async def is_anew() -> bool:
            return (await engine.workflow(start["id"]).describe()).run_id != first

        await engine.until(is_anew, "it never went on in a new run")
    del engine.centre.before["create"]
    await has_memory(engine, "h2", 1024)
    ended = await engine.ended(recovery)
    assert (ended["state"], ended["summary"]) == ("succeeded", "1 of 1 VMs of h1 run again")
    (start,) = await engine.children_of(recovery, "vm.start")
    assert "it failed before on h2" in start["summary"], "its tries are counted on"
    assert engine.copies("db") == ["h2"]
    assert await engine.broken() == []


async def has_memory(engine: Bench, host: str, mib: int) -> None:
    """Write what a host has said of its memory."""
    wanted = hosts.set_capacity
    await engine.write(lambda c: wanted(c, engine.hosts[host], mib, 4))


async def test_a_cancel_that_a_step_swallowed_ends_the_start_and_not_only_its_run(
    engine: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await engine.add_vm("big", "h1", memory_mib=1000)
    await engine.add_vm("db")
    operation = await engine.start("db", "h1")
    await engine.waits(operation, "NO_ROOM")
    gate, place = Gate(), RunRecords.place

    async def late(self: RunRecords, order: PlaceOrder) -> Placement:
        await gate()
        return await place(self, order)

    monkeypatch.setattr(RunRecords, "place", late)
    monkeypatch.setattr(workflow.Info, "is_continue_as_new_suggested", lambda _: gate.is_open)
    await engine.workflow(operation).signal("look_again")
    await gate.reached.wait()
    await engine.workflow(operation).cancel()
    await cancel_is_known(engine, operation)
    gate.open()
    assert (await engine.ended(operation))["state"] == "cancelled"
    assert engine.copies("db") == []
    assert await engine.broken() == []
