"""vCPUs are promised by the statement that promises memory, up to the limit of the cluster."""

from functools import partial
from itertools import product
from typing import Any
from uuid import UUID, uuid4

import pytest

from domain.capacity import vcpus_allowed
from domain.errors import Invalid
from domain.explain import Question
from domain.operations import OperationState
from engine.actions.clusters import EditCluster
from engine.actions.vms import StartVm
from engine.closing import LOOK_AGAIN
from engine.queries.forecasts import ForecastLoss
from engine.queries.inventory import ListHosts
from engine.records.runs import rooms_of
from store import hosts, inventory, migrating, runs
from store.rows import Row
from tests.store.engine_room import Engine
from tests.store.test_explanations import answers
from tests.store.test_hosts import taking
from tests.store.test_making_room import crowded
from tests.store.test_recovery_records import Death
from tests.store.test_run_records import order, start_of
from tests.store.world import World

pytestmark = pytest.mark.store


async def limited(world: World, overcommit: float | None, **values: Any) -> UUID:
    """A host of 4 CPUs in a cluster with that limit."""
    await world.put("cluster", world.cluster_id, vcpu_overcommit=overcommit)
    return await world.host(**{"cpus": 4, "memory_mib": 10_000} | values)


async def test_vcpus_are_promised_up_to_the_limit_of_the_cluster_and_no_further(
    world: World,
) -> None:
    host = await limited(world, 1.5)
    assert await world.do(hosts.reserve, host, 1, taking(1, 4))
    assert not await world.do(hosts.reserve, host, 1, taking(1, 3))
    assert await world.do(hosts.reserve, host, 1, taking(1, 2))
    row = await world.get("host", host)
    assert (row["vcpus_reserved"], row["memory_reserved_mib"]) == (6, 2)
    await world.do(hosts.release, host, taking(1, 4))
    row = await world.get("host", host)
    assert (row["vcpus_reserved"], row["memory_reserved_mib"]) == (2, 1)


async def test_concurrent_reservations_never_exceed_the_vcpus_of_a_host(world: World) -> None:
    host = await limited(world, 2.0)
    reserve = partial(hosts.reserve, host_id=host, epoch=1, wanted=taking(1, 3))
    assert sum(await world.together(*[reserve] * 6)) == 2
    assert (await world.get("host", host))["vcpus_reserved"] == 6


@pytest.mark.parametrize(
    ("overcommit", "cpus"), [(None, 4), (1.0, 0)], ids=["no limit", "CPUs not read yet"]
)
async def test_without_a_limit_or_known_cpus_vcpus_are_counted_and_bind_nobody(
    world: World, overcommit: float | None, cpus: int
) -> None:
    host = await limited(world, overcommit, cpus=cpus)
    assert await world.do(hosts.reserve, host, 1, taking(1, 500))
    assert (await world.get("host", host))["vcpus_reserved"] == 500


async def test_the_limit_of_another_cluster_binds_nobody(world: World) -> None:
    host = await limited(world, None)
    other = {"id": uuid4(), "name": "strict", "profile": "fast", "virt_type": "test"}
    other |= {"vcpu_overcommit": 0.25, "created_at": world.now}
    await world.do(inventory.insert, "cluster", other)
    assert await world.do(hosts.reserve, host, 1, taking(1, 400))


async def test_the_statement_and_the_planner_round_a_limit_alike(world: World) -> None:
    host = await limited(world, 1.0)
    for overcommit, cpus in product((0.1, 0.29, 0.7, 1.1, 2.3, 4.0, 7.77), (1, 10, 96, 100)):
        await world.put("cluster", world.cluster_id, vcpu_overcommit=overcommit)
        await world.put("host", host, cpus=cpus, vcpus_reserved=0)
        most = vcpus_allowed(cpus, overcommit)
        assert most is not None
        assert not await world.do(hosts.reserve, host, 1, taking(0, most + 1)), (overcommit, cpus)
        assert await world.do(hosts.reserve, host, 1, taking(0, most)), (overcommit, cpus)


async def full(engine: Engine, held: int = 3) -> UUID:
    """h1 of 4 CPUs, a vCPU each, of which a VM `web` holds some."""
    host = await limited(engine.world, 1.0)
    await engine.world.running(await engine.world.vm("web", vcpus=held), host)
    return host


async def test_a_start_without_vcpus_waits_with_numbers_until_another_vm_has_ended(
    engine: Engine,
) -> None:
    host = await full(engine)
    db = await engine.world.vm("db", vcpus=2)
    wish = order(db, await start_of(engine, db))
    placement = await engine.runs.place(wish)
    assert placement.no_room == (
        "no host has 2 vCPUs left for db: h1 holds 3 of 4; its 256 MiB are free on 1 of 1 usable "
        "hosts. End or move VMs, or allow more: `holdfast cluster edit --vcpu-overcommit`"
    )
    assert (await engine.world.get("host", host))["vcpus_reserved"] == 3
    (web,) = await engine.rows("vm_run")
    assert await engine.world.do(runs.end, web["id"], "stopped", engine.world.now)
    placement = await engine.runs.place(wish)
    assert placement.run is not None
    assert (await engine.world.get("host", host))["vcpus_reserved"] == 2


async def test_a_run_keeps_the_vcpus_that_it_began_with(engine: Engine) -> None:
    host = await full(engine)
    (web,) = await engine.rows("vm_run")
    await engine.world.put("vm", web["vm_id"], vcpus=1)
    assert (await engine.world.get("host", host))["vcpus_reserved"] == 3
    assert await engine.world.do(runs.end, web["id"], "stopped", engine.world.now)
    assert (await engine.world.get("host", host))["vcpus_reserved"] == 0


async def test_a_vm_that_no_host_could_ever_hold_is_refused_at_once(engine: Engine) -> None:
    host = await limited(engine.world, 1.5)
    await engine.world.host("h2", cpus=2)
    vm = await engine.world.vm("wide", vcpus=7)
    problem = await engine.refusal(StartVm(vm_id=vm))
    assert (problem.code, type(problem)) == ("VM_TOO_MANY_VCPUS", Invalid)
    assert problem.context["allowed_vcpus"] == 6
    assert "7 vCPUs; any host of its cluster may promise 6 in all" in problem.detail
    await engine.world.put("vm", vm, vcpus=6)
    named = await engine.refusal(StartVm(vm_id=vm, host_id=await engine.world.host("h3", cpus=1)))
    assert named.context["allowed_vcpus"] == 1
    await engine.act(StartVm(vm_id=vm, host_id=host))


async def test_a_host_that_has_not_said_how_many_cpus_it_has_may_hold_any_vm(
    engine: Engine,
) -> None:
    await limited(engine.world, 1.0)
    await engine.world.host("h2", cpus=0)
    await engine.act(StartVm(vm_id=await engine.world.vm("wide", vcpus=7)))


@pytest.mark.parametrize("change", [{"vcpu_overcommit": 2.0}, {"vcpu_overcommit": None}])
async def test_whoever_allows_more_wakes_what_waits_for_room(
    engine: Engine, change: dict[str, float | None]
) -> None:
    await full(engine)
    vm = await engine.world.vm("db", vcpus=2)
    waiting = {"state": OperationState.WAITING.value, "reason_code": "NO_ROOM"}
    start = await engine.world.operation(vm, **waiting)
    other = await engine.world.operation(vm, **waiting | {"reason_code": "START_FAILED"})
    edit = EditCluster(cluster_id=engine.world.cluster_id, **change)
    await engine.act(edit)
    told = [row["operation_id"] for row in await engine.rows("outbox") if _looks(row)]
    assert (start in told, other in told) == (True, False)


def _looks(row: Row) -> bool:
    return bool(row["signal"] == LOOK_AGAIN)


async def test_a_lowered_limit_ends_nobody_and_lets_nobody_in(engine: Engine) -> None:
    host = await full(engine)
    await engine.act(EditCluster(cluster_id=engine.world.cluster_id, vcpu_overcommit=0.5))
    (room,) = await engine.world.do(rooms_of, engine.world.cluster_id)
    assert (room.vcpus_reserved, room.vcpus_most, room.free_vcpus) == (3, 2, -1)
    assert not await engine.world.do(hosts.reserve, host, 1, taking(1, 1))
    assert [run["state"] for run in await engine.rows("vm_run")] == ["running"]


async def test_a_list_of_hosts_tells_what_is_held_and_what_is_allowed(engine: Engine) -> None:
    await full(engine)
    await engine.world.host("h2", cpus=0)
    page = await engine.backend.run_query(ListHosts())
    shown = [(one.vcpus_reserved, one.vcpus_allowed) for one in page.items]
    assert shown == [(3, 4), (0, None)]


async def test_a_move_holds_vcpus_on_both_hosts_and_finds_none_where_they_are_short(
    world: World,
) -> None:
    source = await limited(world, 1.0)
    target, narrow = await world.host("h2", cpus=3), await world.host("h3", cpus=2)
    vm = await world.vm(vcpus=3)
    run = await world.running(vm, source)
    mover = await world.operation(vm, kind="vm.migrate")
    assert await world.do(migrating.begin, run["id"], narrow, 1, mover) is None
    assert await world.do(migrating.begin, run["id"], target, 1, mover) is not None
    assert await _held(world, source, target, narrow) == (3, 3, 0)
    arrived = await world.do(migrating.arrived, run["id"], mover, 2, world.now)
    assert arrived is not None
    assert await _held(world, source, target, narrow) == (0, 3, 0)
    assert await world.do(runs.end, arrived["id"], "stopped", world.now)
    assert await _held(world, source, target, narrow) == (0, 0, 0)


async def _held(world: World, *ids: UUID) -> tuple[int, ...]:
    return tuple([(await world.get("host", one))["vcpus_reserved"] for one in ids])


async def test_a_copy_that_is_found_again_counts_whether_there_is_room_or_not(
    world: World,
) -> None:
    host = await limited(world, 1.0)
    vm = await world.vm(vcpus=4)
    run = await world.running(vm, host)
    assert await world.do(runs.lose, run["id"], await world.certificate(host), world.now)
    await world.put("host", host, vcpus_reserved=2)
    assert await world.do(runs.revive, vm, host, 1)
    assert await _held(world, host) == (6,)


async def test_a_recovery_places_up_to_the_limit_and_says_why_no_further(engine: Engine) -> None:
    world = engine.world
    dead = await limited(world, 1.0, cpus=8)
    for name in ("a", "b"):
        await world.running(await world.vm(name, protected=True, vcpus=3), dead)
    await world.host("h2", cpus=4)
    forecast = await engine.backend.run_query(ForecastLoss(host_id=dead))
    assert [one.name for one in forecast.back] == ["a"]
    (waits,) = forecast.waits
    assert "no host has 3 vCPUs left for b: h2 holds 3 of 4" in waits.why
    death = await Death(engine, dead).build()
    plan = await death.claim()
    assert [(one.vm_name, one.run is not None) for one in plan.restarts] == [
        ("a", True),
        ("b", False),
    ]
    told = await answers(engine, death, Question.VM_PLACE)
    assert "for the 256 it needs and 4 vCPUs for 3" in told["a"].why
    assert told["b"].rejected[0].why == "3 of 4 vCPUs are held, 3 are needed"


async def test_room_is_made_of_vcpus_and_kept_for_whom_it_was_made(engine: Engine) -> None:
    scene = await crowded(engine, vcpus=3)
    world = engine.world
    await world.put("vm", scene.vms["big"], vcpus=3)
    await world.put("vm", scene.vms["small"], vcpus=1)  # from its next start on
    await world.put("host", scene.host, cpus=4)
    await world.put("cluster", world.cluster_id, vcpu_overcommit=1.0)
    assert (await scene.place()).no_room == "small on h2 is being stopped to make room for big"
    await scene.stopped()
    (room,) = await world.do(rooms_of, world.cluster_id)
    assert (room.free_vcpus, room.vcpus_reserved) == (0, 4), "three are kept for `big`"
    (own,) = await world.do(rooms_of, world.cluster_id, but_for=scene.vms["big"])
    assert own.free_vcpus == 3
    await scene.serves()
