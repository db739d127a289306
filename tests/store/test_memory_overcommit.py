"""Memory: promised once, or so often as the cluster says."""

from functools import partial
from itertools import product
from typing import Any
from uuid import UUID

import pytest

from domain.capacity import memory_allowed_mib
from domain.operations import OperationState
from engine.actions.clusters import EditCluster
from engine.actions.vms import StartVm
from engine.closing import LOOK_AGAIN
from engine.queries.forecasts import ForecastLoss
from engine.queries.inventory import ListHosts
from engine.records.runs import rooms_of
from store import hosts, migrating
from tests.store.engine_room import Engine
from tests.store.test_hosts import taking
from tests.store.world import World

pytestmark = pytest.mark.store


async def overcommitted(world: World, ratio: float, **values: Any) -> UUID:
    """A host of 1000 MiB in a cluster with that ratio."""
    await world.put("cluster", world.cluster_id, memory_overcommit=ratio)
    return await world.host(**{"memory_mib": 1000} | values)


async def test_memory_is_promised_once_unless_the_cluster_says_otherwise(world: World) -> None:
    host = await world.host(memory_mib=1000)
    assert await world.do(hosts.reserve, host, 1, taking(1000, 1))
    assert not await world.do(hosts.reserve, host, 1, taking(1, 1))
    await world.put("cluster", world.cluster_id, memory_overcommit=1.5)
    assert not await world.do(hosts.reserve, host, 1, taking(501, 1))
    assert await world.do(hosts.reserve, host, 1, taking(500, 1))
    assert (await world.get("host", host))["memory_reserved_mib"] == 1500


async def test_concurrent_reservations_never_exceed_the_memory_that_may_be_promised(
    world: World,
) -> None:
    host = await overcommitted(world, 1.5)
    reserve = partial(hosts.reserve, host_id=host, epoch=1, wanted=taking(600, 1))
    assert sum(await world.together(*[reserve] * 6)) == 2
    assert (await world.get("host", host))["memory_reserved_mib"] == 1200


async def test_the_statement_and_the_planner_round_memory_alike(world: World) -> None:
    host = await overcommitted(world, 1.0)
    for ratio, mib in product((1.0, 1.1, 1.29, 1.7, 2.3, 4.0, 7.77), (1, 10, 1001, 262_144)):
        await world.put("cluster", world.cluster_id, memory_overcommit=ratio)
        await world.put("host", host, memory_mib=mib, memory_reserved_mib=0)
        most = memory_allowed_mib(mib, ratio)
        for held, has_room in ((most, False), (most - 1, True)):
            await world.put("host", host, memory_reserved_mib=held)
            found = await world.do(hosts.reserve, host, 1, taking(1, 0))
            assert found is has_room, (ratio, mib, held)


async def test_whoever_allows_more_memory_wakes_what_waits_for_room(engine: Engine) -> None:
    await overcommitted(engine.world, 1.0)
    vm = await engine.world.vm("db")
    waiting = {"state": OperationState.WAITING.value, "reason_code": "NO_ROOM"}
    start = await engine.world.operation(vm, **waiting)
    await engine.act(EditCluster(cluster_id=engine.world.cluster_id, memory_overcommit=2.0))
    looks = [row for row in await engine.rows("outbox") if row["signal"] == LOOK_AGAIN]
    assert [row["operation_id"] for row in looks] == [start]


async def test_a_lowered_ratio_ends_nobody_and_lets_nobody_in(engine: Engine) -> None:
    world = engine.world
    host = await overcommitted(world, 2.0)
    for name in ("web", "mail"):
        await world.running(await world.vm(name, memory_mib=750), host)
    await engine.act(EditCluster(cluster_id=world.cluster_id, memory_overcommit=1.0))
    (room,) = await world.do(rooms_of, world.cluster_id)
    assert (room.reserved_mib, room.memory_mib, room.free_mib) == (1500, 1000, -500)
    assert not await world.do(hosts.reserve, host, 1, taking(1, 1))
    assert [run["state"] for run in await engine.rows("vm_run")] == ["running", "running"]


async def test_no_vm_gets_more_memory_than_its_host_has(engine: Engine) -> None:
    world = engine.world
    large = await overcommitted(world, 4.0)
    small = await world.host("h2", memory_mib=500)
    vm = await world.vm("big", memory_mib=600, protected=True)
    await world.running(vm, large)
    assert not await world.do(hosts.reserve, small, 1, taking(501, 1))
    assert await world.do(hosts.reserve, small, 1, taking(500, 1))
    forecast = await engine.backend.run_query(ForecastLoss(host_id=large))
    (waits,) = forecast.waits
    assert "big needs 600 MiB; the largest gap on 1 usable hosts is 500 MiB" in waits.why


async def test_a_vm_larger_than_every_host_is_refused_whatever_the_ratio(engine: Engine) -> None:
    await overcommitted(engine.world, 4.0)
    problem = await engine.refusal(StartVm(vm_id=await engine.world.vm("big", memory_mib=1001)))
    assert (problem.code, problem.context["largest_mib"]) == ("VM_TOO_BIG", 1000)


async def test_a_list_of_hosts_tells_what_there_is_and_what_may_be_promised(
    engine: Engine,
) -> None:
    await overcommitted(engine.world, 1.25)
    page = await engine.backend.run_query(ListHosts())
    assert [(one.memory_mib, one.memory_allowed_mib) for one in page.items] == [(1000, 1250)]


async def test_a_move_finds_memory_where_its_cluster_lets_more_be_promised(world: World) -> None:
    source = await overcommitted(world, 1.0)
    target = await world.host("h2", memory_mib=800, memory_reserved_mib=500)
    vm = await world.vm(memory_mib=500)
    run = await world.running(vm, source)
    mover = await world.operation(vm, kind="vm.migrate")
    assert await world.do(migrating.begin, run["id"], target, 1, mover) is None
    await world.put("cluster", world.cluster_id, memory_overcommit=1.25)
    assert await world.do(migrating.begin, run["id"], target, 1, mover) is not None


@pytest.mark.parametrize(("ratio", "back"), [(1.0, ["a"]), (2.0, ["a", "b"])])
async def test_a_forecast_places_as_much_as_may_be_promised(
    engine: Engine, ratio: float, back: list[str]
) -> None:
    world = engine.world
    dead = await overcommitted(world, ratio, memory_mib=2000)
    for name in ("a", "b"):
        await world.running(await world.vm(name, protected=True, memory_mib=700), dead)
    await world.host("h2", memory_mib=1000)
    forecast = await engine.backend.run_query(ForecastLoss(host_id=dead))
    assert [one.name for one in forecast.back] == back
