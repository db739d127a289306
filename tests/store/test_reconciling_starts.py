"""Starts that meet a host being brought into service: nothing doubled, nothing forgotten."""

import asyncio
from typing import Any
from uuid import UUID

import pytest

from activities.hosts import AdmitOrder, FailOrder
from domain.operations import OperationState, Outcome
from domain.orders import Reconciliation
from engine.actions.clusters import ArmCluster
from engine.closing import close_operation
from store import incidents, licences, locks, runs
from store.rows import Row
from tests.store.engine_room import Engine
from tests.store.test_recovery_records import Death
from tests.store.world import START

pytestmark = pytest.mark.store


async def starting(engine: Engine, vm: UUID, host: UUID) -> Row:
    """A start under way: its run is claimed, `create()` may still come."""
    operation = await engine.world.operation(vm, state="running", kind="vm.start")
    run = await engine.world.placed(vm, host, operation_id=operation)
    assert await engine.world.do(runs.begin_start, run["id"], operation)
    await engine.world.put("host", host, state="reconciling")
    return run


async def settle(engine: Engine, host: UUID, *alive: UUID) -> tuple[str, ...]:
    ref = await engine.ref(host)
    return await engine.hosts.settle_runs(ref, await engine.hosts.expected_runs(ref), alive)


async def test_a_start_under_way_is_not_closed_by_reconciling_and_joins_the_new_epoch(
    engine: Engine,
) -> None:
    vm, host = await engine.world.vm(), await engine.world.host()
    run = await starting(engine, vm, host)
    assert await settle(engine, host) == ()
    settled = Reconciliation(memory_mib=1024, cpus=4)
    order = AdmitOrder(operation_id=run["id"], host=await engine.ref(host), settled=settled)
    await engine.hosts.admit(order)
    after = await engine.world.run(run["id"])
    assert (after["state"], after["active"], after["epoch"]) == ("starting", 1, 2)


async def test_a_start_that_ends_well_behind_the_reading_is_not_called_gone(
    engine: Engine,
) -> None:
    world = engine.world
    vm, host = await world.vm(), await world.host()
    run = await starting(engine, vm, host)
    ref = await engine.ref(host)
    expected = await engine.hosts.expected_runs(ref)
    assert await world.do(runs.started, run["id"], world.now)
    assert await engine.hosts.settle_runs(ref, expected, ()) == ()
    assert (await world.run(run["id"]))["state"] == "running"


async def test_a_start_whose_operation_has_ended_is_closed_by_reconciling(engine: Engine) -> None:
    vm, host = await engine.world.vm(), await engine.world.host()
    run = await starting(engine, vm, host)
    outcome = Outcome(operation_id=run["operation_id"], state=OperationState.FAILED)
    await engine.world.do(close_operation, outcome, engine.world.now)
    assert await settle(engine, host) == ("db",)
    assert (await engine.world.run(run["id"]))["state"] == "ended"


async def test_a_placed_run_that_was_never_claimed_is_taken_back_without_its_host(
    engine: Engine,
) -> None:
    world = engine.world
    vm, host = await world.vm(memory_mib=100), await world.host()
    mine, other = await world.operation(vm), await world.operation(vm)
    run = await world.placed(vm, host, operation_id=mine)
    assert not await world.do(runs.end_unclaimed, vm, other, world.now)
    assert await world.do(runs.end_unclaimed, vm, mine, world.now)
    assert not await world.do(runs.end_unclaimed, vm, mine, world.now)
    assert (await world.run(run["id"]))["state"] == "ended"
    assert (await world.get("host", host))["memory_reserved_mib"] == 0


async def test_a_claimed_run_is_not_taken_back_without_its_host(engine: Engine) -> None:
    vm, host = await engine.world.vm(), await engine.world.host()
    run = await starting(engine, vm, host)
    ended = await engine.world.do(runs.end_unclaimed, vm, run["operation_id"], engine.world.now)
    assert not ended


async def rebooted(
    engine: Engine, *, protected: bool = True, wanted: bool = True, busy: UUID | None = None
) -> UUID:
    """A host that lost its guest in a reboot and is admitted again; the activation."""
    world = engine.world
    vm = await world.vm(protected=protected, wanted=wanted)
    host = await world.host()
    await world.running(vm, host)
    if busy is not None:
        await world.lock(vm, busy)
    await world.put("host", host, state="reconciling")
    activation = await world.operation(host, kind="host.activate", state="running")
    ended = await settle(engine, host)
    settled = Reconciliation(ended=ended, memory_mib=1024, cpus=4)
    ref = await engine.ref(host)
    await engine.hosts.admit(AdmitOrder(operation_id=activation, host=ref, settled=settled))
    return activation


async def test_a_protected_vm_that_a_reboot_took_is_started_again(engine: Engine) -> None:
    activation = await rebooted(engine)
    (child,) = [r for r in await engine.rows("operation") if r["parent_id"] is not None]
    assert (child["parent_id"], child["state"], child["priority"]) == (activation, "pending", 2)
    assert child["order"]["vm_name"] == "db"
    assert [row["operation_id"] for row in await engine.rows("outbox")] == [child["id"]]
    assert [row["operation_id"] for row in await engine.rows("entity_lock")] == [child["id"]]


@pytest.mark.parametrize("changes", [{"protected": False}, {"wanted": False}])
async def test_a_vm_that_nobody_protects_or_wants_is_left_down_after_a_reboot(
    engine: Engine, changes: dict[str, Any]
) -> None:
    await rebooted(engine, **changes)
    assert [r for r in await engine.rows("operation") if r["parent_id"] is not None] == []


async def test_nothing_is_started_by_itself_in_a_disarmed_cluster(engine: Engine) -> None:
    await engine.act(ArmCluster(cluster_id=engine.world.cluster_id, armed=False))
    await rebooted(engine)
    assert [r for r in await engine.rows("operation") if r["parent_id"] is not None] == []


async def arm(engine: Engine, armed: bool = True) -> None:
    await engine.act(ArmCluster(cluster_id=engine.world.cluster_id, armed=armed))


async def starts(engine: Engine) -> list[Row]:
    """What the engine has ordered by itself."""
    return [row for row in await engine.rows("operation") if row["parent_id"] is not None]


async def test_a_vm_that_a_reboot_took_from_a_disarmed_cluster_is_started_once_it_is_armed(
    engine: Engine,
) -> None:
    await arm(engine, False)
    activation = await rebooted(engine)
    assert await engine.hosts.start_left_down() == 0
    await arm(engine)
    started = [await engine.hosts.start_left_down() for _ in range(2)]
    (start,) = await starts(engine)
    assert (started, start["parent_id"], start["kind"]) == ([1, 0], activation, "vm.start")


async def taken_by_a_reboot(engine: Engine) -> tuple[UUID, UUID]:
    """A host whose guest was found gone by a step whose answer is lost; its activation."""
    world = engine.world
    host = await world.host()
    await world.running(await world.vm(protected=True), host)
    await world.put("host", host, state="reconciling")
    activation = await world.operation(host, kind="host.activate", state="running")
    assert await settle(engine, host) == ("db",)
    return host, activation


async def test_a_vm_that_was_found_gone_is_started_though_the_step_that_found_it_is_repeated(
    engine: Engine,
) -> None:
    host, activation = await taken_by_a_reboot(engine)
    assert await engine.hosts.start_left_down() == 0, "its admission starts it"
    again = Reconciliation(ended=await settle(engine, host), memory_mib=1024, cpus=4)
    assert again.ended == ()
    order = AdmitOrder(operation_id=activation, host=await engine.ref(host), settled=again)
    for _ in range(2):
        await engine.hosts.admit(order)
    (start,) = await starts(engine)
    assert (start["parent_id"], start["kind"]) == (activation, "vm.start")
    assert await engine.hosts.start_left_down() == 0


async def test_a_vm_that_was_found_gone_is_started_elsewhere_where_its_host_is_not_admitted(
    engine: Engine,
) -> None:
    host, activation = await taken_by_a_reboot(engine)
    await engine.hosts.fail(FailOrder(host=await engine.ref(host), why="cancelled"))
    assert [await engine.hosts.start_left_down() for _ in range(2)] == [1, 0]
    (start,) = await starts(engine)
    assert start["parent_id"] == activation


async def test_many_that_look_at_once_start_it_once(engine: Engine) -> None:
    await arm(engine, False)
    await rebooted(engine)
    await arm(engine)
    looks = [engine.hosts.start_left_down() for _ in range(4)]
    assert sum(await asyncio.gather(*looks)) == 1
    assert len(await starts(engine)) == 1


async def test_a_vm_that_somebody_was_busy_with_is_started_once_that_has_ended(
    engine: Engine,
) -> None:
    world = engine.world
    busy = await world.operation(kind="vm.edit")
    await rebooted(engine, busy=busy)
    assert await engine.hosts.start_left_down() == 0
    await world.do(locks.free, busy)
    assert await engine.hosts.start_left_down() == 1
    assert len(await starts(engine)) == 1


@pytest.mark.parametrize("change", [{"wanted": False}, {"protected": False}, {"removed_at": START}])
async def test_a_vm_that_nobody_wants_back_by_then_stays_down(engine: Engine, change: Row) -> None:
    await arm(engine, False)
    await rebooted(engine)
    (vm,) = await engine.rows("vm")
    await engine.world.put("vm", vm["id"], **change)
    await arm(engine)
    assert await engine.hosts.start_left_down() == 0


async def test_a_vm_that_a_person_has_started_meanwhile_is_left_alone(engine: Engine) -> None:
    world = engine.world
    await arm(engine, False)
    await rebooted(engine)
    (vm,) = await engine.rows("vm")
    run = await world.running(vm["id"], await world.host("h2"))
    await arm(engine)
    assert await engine.hosts.start_left_down() == 0
    assert await world.do(runs.end, run["id"], "asked to end", world.now)
    assert await engine.hosts.start_left_down() == 0


async def test_a_second_proof_restarts_what_a_withdrawn_one_had_left_down(engine: Engine) -> None:
    world = engine.world
    dead = await world.host("dead")
    await world.host("alive")
    vm = await world.vm("db", protected=True)
    run = await world.running(vm, dead)
    first = await world.certificate(dead)
    assert await world.do(runs.lose, run["id"], first, world.now)
    await world.do(incidents.void_certificate, dead, 1, "heard again", world.now)
    assert await world.do(licences.at_stake) == {dead}
    (row,) = [r for r in await engine.rows("incident")]
    await world.do(incidents.close, row["id"], "returned", world.now)
    await world.put("host", dead, state="non_operational")
    death = Death(engine, dead)
    death.certificate = await world.certificate(dead)
    death.incident = (await engine.rows("incident"))[-1]["id"]
    death.operation = await world.operation(dead, kind="host.recover")
    plan = await death.claim()
    assert [restart.vm_name for restart in plan.restarts] == ["db"]
    assert await death.claim() == plan
    again = plan.restarts[0].run
    assert again is not None
    assert await world.do(licences.at_stake) == {again.host_id}
