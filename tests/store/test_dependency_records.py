"""Which VMs are worth waiting for: they do not run well, and something brings them back."""

from typing import Any
from uuid import UUID

import pytest

from activities.dependencies import BackOrder, Released, WaitingStart
from domain.orders import AwaitedVm
from engine.records.dependencies import DependencyRecords, awaited_of
from store import operations, runs
from store.left_down import FOUND_GONE, leave_down
from store.rows import Row
from tests.store.engine_room import Engine

pytestmark = pytest.mark.store


async def awaited(engine: Engine, vm: UUID) -> bool:
    return vm in await engine.world.do(awaited_of, {vm})


async def db_on(engine: Engine, state: str, **values: Any) -> UUID:
    """A protected VM that runs on a host in this state."""
    world = engine.world
    vm = await world.vm("db", **{"protected": True} | values)
    host = await world.host()
    await world.running(vm, host, operation_id=await world.operation(vm, state="succeeded"))
    await world.put("host", host, state=state)
    return vm


@pytest.mark.parametrize("state", ["up", "preparing_maintenance", "non_operational", "maintenance"])
async def test_one_on_a_host_that_serves_it_is_not(engine: Engine, state: str) -> None:
    assert not await awaited(engine, await db_on(engine, state))


@pytest.mark.parametrize("state", ["connecting", "non_responsive", "fencing", "down", "error"])
async def test_one_on_a_host_that_is_silent_is(engine: Engine, state: str) -> None:
    assert await awaited(engine, await db_on(engine, state))


async def test_one_on_a_host_that_fell_silent_while_it_was_drained_is(engine: Engine) -> None:
    vm = await db_on(engine, "preparing_maintenance")
    (host,) = await engine.rows("host")
    await engine.world.incident(host["id"])
    assert await awaited(engine, vm)


@pytest.mark.parametrize("values", [{"protected": False}, {"wanted": False}])
async def test_one_that_nobody_wants_back_is_not(engine: Engine, values: Row) -> None:
    assert not await awaited(engine, await db_on(engine, "down", **values))


@pytest.mark.parametrize(
    ("state", "comes"), [("pending", True), ("waiting", True), ("needs_attention", False)]
)
async def test_one_that_is_down_is_as_long_as_a_start_of_it_is_open(
    engine: Engine, state: str, comes: bool
) -> None:
    vm = await engine.world.vm("db", protected=True)
    await engine.world.operation(vm, state=state)
    assert await awaited(engine, vm) is comes


async def test_one_that_was_left_down_by_a_reboot_is(engine: Engine) -> None:
    world = engine.world
    vm = await db_on(engine, "up")
    (run,) = await engine.rows("vm_run")
    assert await world.do(runs.end, run["id"], FOUND_GONE, world.now)
    assert not await awaited(engine, vm)
    assert await world.do(leave_down, vm)
    assert await awaited(engine, vm)


async def test_a_start_says_what_it_waits_for_until_it_is_released_or_begins(
    engine: Engine,
) -> None:
    world, records = engine.world, DependencyRecords(engine.world.database, engine.world.clock)
    db, app = await world.vm("db", protected=True), await world.vm("app", protected=True)
    start = await world.operation(app)
    other = AwaitedVm(vm_id=db, vm_name="db")
    waiting = WaitingStart(start_id=start, vm_name="app", awaits=(other,))
    order = BackOrder(operation_id=start, starts=(waiting,), waited_s=0, deadline_s=1)
    for _ in range(2):
        await records.show({start: "db is to be back first"}, ())
    row = await world.do(operations.get, start)
    assert row is not None
    assert (row["state"], row["reason_code"]) == ("waiting", "DEPENDENCY")
    for _ in range(2):
        await records.show({}, (Released(start_id=start, why="db is back"),))
    row = await world.do(operations.get, start)
    assert row is not None
    assert (row["state"], row["reason_code"], row["waiting_for"]) == ("pending", None, None)
    assert (await records.standing(order)).begun == frozenset()
    assert await world.do(operations.claim, start, 1, "run-1", world.now)
    await records.show({start: "db is to be back first"}, ())
    assert (await records.standing(order)).begun == {start}
    row = await world.do(operations.get, start)
    assert row is not None
    assert row["reason_code"] is None
