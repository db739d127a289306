"""The rows that steps on guests keep: each step may be repeated, and none outlives its run."""

import asyncio
from typing import Any
from uuid import UUID

import pytest

from activities.guests import PlaceOrder
from domain.errors import NotFound, Superseded
from domain.orders import RunRef
from store import incidents, locks, runs
from store.ids import new_id
from store.rows import Row
from tests.store.engine_room import Engine, columns

pytestmark = pytest.mark.store


def order(vm: UUID, operation: UUID, **values: Any) -> PlaceOrder:
    wish: Row = {"host_id": None, "licence_id": None, "incident_id": None}
    return PlaceOrder(**{"operation_id": operation, "vm_id": vm} | wish | values)


async def start_of(engine: Engine, vm: UUID) -> UUID:
    """An operation that starts a VM and holds its lock."""
    operation = await engine.world.operation(vm)
    await engine.world.lock(vm, operation)
    return operation


async def placed(engine: Engine, vm: UUID) -> RunRef:
    run = (await engine.runs.place(order(vm, await start_of(engine, vm)))).run
    assert run is not None
    return run


async def test_placing_again_for_the_same_operation_gives_the_same_run(engine: Engine) -> None:
    await engine.world.host()
    vm = await engine.world.vm(memory_mib=100)
    wish = order(vm, await start_of(engine, vm))
    first = await engine.runs.place(wish)
    assert await engine.runs.place(wish) == first
    assert first.run is not None
    assert (first.run.generation, first.run.epoch, first.run.host_name) == (1, 1, "h1")
    assert columns(await engine.rows("host"), "memory_reserved_mib") == [100]


async def test_an_older_try_of_a_start_neither_places_nor_takes_anything_back(
    engine: Engine,
) -> None:
    world = engine.world
    await world.host()
    vm = await world.vm(memory_mib=100)
    operation = await start_of(engine, vm)
    await world.put("operation", operation, attempt=2, state="running")
    await world.do(locks.pass_on, operation, 2)
    with pytest.raises(Superseded):
        await engine.runs.place(order(vm, operation))
    run = (await engine.runs.place(order(vm, operation, attempt=2))).run
    assert run is not None
    with pytest.raises(Superseded):
        await engine.runs.place(order(vm, operation))
    assert await engine.runs.end_unclaimed(operation, vm) is None
    assert await engine.runs.begin_withdraw(operation, vm) is None
    assert await engine.runs.end_unclaimed(operation, vm, 2) == run


async def test_placing_at_once_for_the_same_operation_gives_one_run(engine: Engine) -> None:
    for name in ("h1", "h2"):
        await engine.world.host(name)
    vm = await engine.world.vm(memory_mib=100)
    wish = order(vm, await start_of(engine, vm))
    placements = await asyncio.gather(*(engine.runs.place(wish) for _ in range(6)))
    assert {p.run.run_id for p in placements if p.run} == {
        row["id"] for row in await engine.rows("vm_run")
    }
    assert len(await engine.rows("vm_run")) == 1
    assert sum(columns(await engine.rows("host"), "memory_reserved_mib")) == 100


async def test_an_operation_that_lost_the_vms_lock_places_nothing(engine: Engine) -> None:
    await engine.world.host()
    vm = await engine.world.vm()
    with pytest.raises(Superseded):
        await engine.runs.place(order(vm, await engine.world.operation(vm)))
    assert await engine.rows("vm_run") == []


async def test_a_vm_that_another_operation_runs_is_left_running(engine: Engine) -> None:
    vm = await engine.world.vm()
    await engine.world.running(vm, await engine.world.host())
    assert (await engine.runs.place(order(vm, await start_of(engine, vm)))).already_running


async def test_no_room_is_an_answer_with_numbers_and_reserves_nothing(engine: Engine) -> None:
    await engine.world.host(memory_mib=100)
    vm = await engine.world.vm(memory_mib=101)
    placement = await engine.runs.place(order(vm, await start_of(engine, vm)))
    assert placement.run is None
    assert placement.no_room == "db needs 101 MiB; the largest gap on 1 usable hosts is 100 MiB"
    assert columns(await engine.rows("vm"), "generation") == [0]


async def test_a_persons_choice_of_host_is_kept_even_where_another_has_more_room(
    engine: Engine,
) -> None:
    small = await engine.world.host("h1", memory_mib=300)
    await engine.world.host("h2", memory_mib=3000)
    vm = await engine.world.vm()
    chosen = order(vm, await start_of(engine, vm), host_id=small)
    placement = await engine.runs.place(chosen)
    assert placement.run is not None
    assert placement.run.host_id == small


async def test_vms_are_spread_to_the_host_with_the_most_free_memory(engine: Engine) -> None:
    for name in ("h1", "h2"):
        await engine.world.host(name, memory_mib=1000)
    hosts = [
        (await placed(engine, await engine.world.vm(f"vm{n}", memory_mib=100))).host_name
        for n in range(4)
    ]
    assert hosts == ["h1", "h2", "h1", "h2"]


async def test_placing_an_unknown_vm_says_so(engine: Engine) -> None:
    with pytest.raises(NotFound, match="VM_NOT_FOUND"):
        await engine.runs.place(order(new_id(), await engine.world.operation()))


async def test_every_step_of_a_life_may_be_repeated(engine: Engine) -> None:
    world = engine.world
    await world.host()
    run = await placed(engine, await world.vm())
    states = []
    for step in (engine.runs.begin_start, engine.runs.started, engine.runs.begin_stop):
        await step(run)
        await step(run)
        states.append((await world.run(run.run_id))["state"])
    for _ in range(2):
        await engine.runs.ended(run, "stopped")
    assert states == ["starting", "running", "stopping"]
    assert (await world.run(run.run_id))["end_reason"] == "stopped"
    assert columns(await engine.rows("host"), "memory_reserved_mib") == [0]


async def test_a_start_whose_answer_was_lost_is_claimed_again_as_running(engine: Engine) -> None:
    await engine.world.host()
    run = await placed(engine, await engine.world.vm())
    await engine.runs.begin_start(run)
    await engine.runs.started(run)
    await engine.runs.begin_start(run)
    assert (await engine.world.run(run.run_id))["state"] == "running"


async def test_a_run_that_a_recovery_closed_can_take_no_further_step(engine: Engine) -> None:
    world = engine.world
    host = await world.host()
    run = await placed(engine, await world.vm())
    await engine.runs.begin_start(run)
    certificate = await world.certificate(host)
    assert await world.do(runs.lose, run.run_id, certificate, world.now)
    for step in (engine.runs.begin_start, engine.runs.started, engine.runs.begin_stop):
        with pytest.raises(Superseded, match="run 1 of db on h1"):
            await step(run)
    await engine.runs.ended(run, "stopped")
    assert (await world.run(run.run_id))["state"] == "lost"


async def test_a_start_under_a_certificate_that_was_voided_is_superseded(engine: Engine) -> None:
    world = engine.world
    vm, dead = await world.vm(), await world.host("dead")
    lost = await world.running(vm, dead)
    certificate = await world.certificate(dead)
    assert await world.do(runs.lose, lost["id"], certificate, world.now)
    await world.host("other")
    wish = order(vm, await start_of(engine, vm), licence_id=certificate)
    placement = await engine.runs.place(wish)
    assert placement.run is not None
    await world.do(incidents.void_certificate, dead, 1, "alive", world.now)
    with pytest.raises(Superseded, match="may not start"):
        await engine.runs.begin_start(placement.run)
