"""Which hosts show a process of a VM, as a recovery asks before it starts one."""

from uuid import UUID

import pytest

from domain.orders import Placement
from store import observations, runs, shown
from store.ids import new_id
from store.rows import Row
from tests.store.engine_room import Engine
from tests.store.test_run_records import order
from tests.store.world import World

pytestmark = pytest.mark.store


async def seen(world: World, host: UUID, vms: list[UUID]) -> None:
    """One poll of a host."""
    guests = [{"vm_id": str(vm), "name": "db", "state": "running"} for vm in vms]
    row: Row = {"host_id": host, "memory_total_mib": 1, "memory_free_mib": 1, "cpus": 1}
    row |= {"took_s": 0.1, "guests": guests}
    round_: Row = {"warm": True, "observations": [], "samples": [row]}
    round_ |= {"now": world.now, "watched_ms": int}
    await world.do(observations.record_round, "m1", 1, **round_)


async def test_each_vm_has_the_hosts_whose_newest_sample_shows_it(world: World) -> None:
    h1, h2, h3 = await world.host("h1"), await world.host("h2"), await world.host("h3")
    moved, twice, gone, other = (new_id() for _ in range(4))
    await world.monitor()
    await seen(world, h1, [gone, moved])
    world.later(2)
    await seen(world, h1, [twice, other])
    await seen(world, h2, [moved, twice])
    cluster = (await world.get("host", h3))["cluster_id"]
    found = await world.do(shown.shown, cluster, [moved, twice, gone])
    now = world.now
    assert found == {
        moved: (shown.Shower(h2, "h2", now),),
        twice: (shown.Shower(h1, "h1", now), shown.Shower(h2, "h2", now)),
    }
    assert await world.do(shown.shown, cluster, []) == {}


@pytest.mark.parametrize(
    ("state", "counts"),
    [
        *(("up", True), ("connecting", True), ("preparing_maintenance", True)),
        *(("maintenance", True), ("non_operational", True)),
        *(("non_responsive", False), ("fencing", False), ("down", False)),
    ],
)
async def test_only_hosts_that_answer_as_far_as_anybody_knows_are_believed(
    world: World, state: str, counts: bool
) -> None:
    await world.monitor()
    host, vm = await world.host("h1"), new_id()
    await seen(world, host, [vm])
    await world.put("host", host, state=state)
    cluster = (await world.get("host", host))["cluster_id"]
    assert bool(await world.do(shown.shown, cluster, [vm])) is counts


async def placed_by_the_engine(engine: Engine, vm: UUID) -> Placement:
    """A start that another operation has ordered looks for a place."""
    world = engine.world
    start = await world.operation(vm, parent_id=await world.operation(vm, kind="vm.recover"))
    await world.lock(vm, start)
    return await engine.runs.place(order(vm, start))


async def test_a_host_from_which_a_vm_was_read_as_gone_makes_its_restart_not_wait(
    engine: Engine,
) -> None:
    world = engine.world
    vm, h1 = await world.vm(), await world.host("h1")
    await world.monitor()
    run = await world.running(vm, h1)
    await seen(world, h1, [vm])
    assert await world.do(runs.end, run["id"], "stopped", world.now)
    assert (await placed_by_the_engine(engine, vm)).run is not None


async def test_a_restart_waits_while_another_host_shows_the_vm(engine: Engine) -> None:
    world = engine.world
    vm, h1, h2 = await world.vm(), await world.host("h1"), await world.host("h2")
    await world.monitor()
    run = await world.running(vm, h1)
    await seen(world, h2, [vm])
    assert await world.do(runs.end, run["id"], "stopped", world.now)
    waits = await placed_by_the_engine(engine, vm)
    assert waits.no_room is not None
    assert "the last poll of h2 shows a process of db" in waits.no_room
