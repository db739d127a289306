"""VMs that were shut down with their host, whose plan is over before they had ended."""

import pytest

from engine.records.planned import PlannedRecords
from store import planned
from store.rows import Row
from tests.store.engine_room import Engine

pytestmark = pytest.mark.store


async def test_a_stop_that_was_left_half_done_is_ordered_again_and_the_vm_remembered(
    engine: Engine,
) -> None:
    world = engine.world
    host = await world.host("h1")
    vm = await world.vm("db")
    run = await world.running(vm, host)
    plan = await world.operation(host, kind="host.shut_down", target_type="host", state="cancelled")
    await world.do(planned.remember, vm, host, plan, world.now, frozen=False)
    await world.stopping(run["id"])
    duty = PlannedRecords(world.database, engine.backend, world.clock)

    async def stops() -> list[Row]:
        return [op for op in await engine.rows("operation") if op["kind"] == "vm.stop"]

    for _ in range(2):  # the second time, the first one is under way
        assert await duty.start_remembered() == 0
        assert len(await stops()) == 1
    (stop,) = await stops()
    assert (stop["target_id"], stop["parent_id"]) == (vm, plan)
    assert (await world.get("vm", vm))["wanted"]
    assert len(await engine.rows("planned_stop")) == 1
