"""A recovery without room has less important VMs stopped; they come back when there is room."""

import pytest

from engine.records.making_room import StoppedForOthers
from tests.workflow import failovers
from tests.workflow.bench import Bench

pytestmark = pytest.mark.workflow


async def test_a_recovery_stops_a_less_important_vm_which_starts_again_once_there_is_room(
    engine: Bench,
) -> None:
    operation = await failovers.a_less_important_vm_makes_room(engine)
    assert (await engine.operation(operation))["state"] == "succeeded"
    assert [engine.copies(name) for name in ("db", "web", "batch")] == [["h2"], ["h2"], []]
    (start,) = await engine.children_of(operation, "vm.start")
    (stop,) = await engine.children_of(start["id"], "vm.stop")
    stop = await engine.ended(stop["id"])  # its room is free a little before
    assert (stop["target_name"], stop["state"]) == ("batch", "succeeded")
    assert await StoppedForOthers(engine.database, engine.backend).start_again() == 1
    (again,) = await engine.children_of(stop["id"], "vm.start")
    await engine.begun(again["id"])
    waiting = await engine.waits(again["id"], "NO_ROOM")
    assert "batch needs 500 MiB" in waiting["waiting_for"]
    assert await engine.broken() == []
    await engine.ended(await engine.stop("web", force=True))
    await engine.ended(await engine.stop("db", force=True))
    assert (await engine.ended(again["id"]))["state"] == "succeeded"
    assert engine.copies("batch") == ["h2"]
    assert await engine.broken() == []


async def test_a_deaf_vm_is_ended_hard_to_make_room(engine: Bench) -> None:
    async def deaf() -> None:
        engine.centre.deaf.update(engine.vms.values())

    engine.centre.before["shutdown"] = deaf
    operation = await failovers.a_less_important_vm_makes_room(engine)
    assert (await engine.operation(operation))["state"] == "succeeded"
    (stop,) = [op for op in await engine.rows("operation") if op["kind"] == "vm.stop"]
    stop = await engine.ended(stop["id"])
    assert stop["summary"].endswith("ended hard")
    assert await engine.broken() == []
