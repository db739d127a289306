"""The rows of reconciling: which copies stay, which runs end, how an epoch begins."""

import asyncio
from uuid import UUID

import pytest

from activities.hosts import AdmitOrder, FailOrder
from domain.errors import Conflict, Superseded
from domain.orders import Reconciliation
from domain.readings import Domain, DomainState
from store import runs
from store.ids import new_id
from tests.store.engine_room import Engine, columns

pytestmark = pytest.mark.store


def domain(
    vm: UUID, generation: int | None = 1, state: DomainState = DomainState.RUNNING
) -> Domain:
    return Domain(vm_id=vm, name="db", state=state, generation=generation)


async def judged(engine: Engine, host: UUID, *domains: Domain) -> list[tuple[bool, int]]:
    verdicts = await engine.hosts.judge_copies(await engine.ref(host), domains)
    return [(verdict.keep, verdict.generation) for verdict in verdicts]


async def lost(engine: Engine, vm: UUID, host: UUID) -> UUID:
    """Run the VM there, prove the host dead, and bring it back as far as `reconciling`."""
    world = engine.world
    run = await world.running(vm, host)
    certificate = await world.certificate(host)
    assert await world.do(runs.lose, run["id"], certificate, world.now)
    await world.put("host", host, state="reconciling")
    return certificate


async def test_the_active_run_of_this_host_is_kept_with_its_own_generation_only(
    engine: Engine,
) -> None:
    world = engine.world
    vm, host = await world.vm(), await world.host()
    await world.running(vm, host)
    assert await judged(engine, host, domain(vm, 1)) == [(True, 1)]
    assert await judged(engine, host, domain(vm, 0)) == [(False, 1)]


async def imported(engine: Engine, host: UUID) -> tuple[UUID, UUID]:
    """A VM with a run on a host, and the import that has recorded both, which has ended."""
    world, claim = engine.world, await engine.world.operation(state="failed")
    vm = await world.vm(spec={"imported_by": str(claim)})
    await world.running(vm, host)
    return vm, claim


async def claims(engine: Engine, host: UUID, *domains: Domain) -> list[tuple[bool, UUID | None]]:
    verdicts = await engine.hosts.judge_copies(await engine.ref(host), domains)
    return [(verdict.keep, verdict.claim) for verdict in verdicts]


async def test_a_copy_that_its_import_never_marked_is_kept_and_gets_the_mark(
    engine: Engine,
) -> None:
    host = await engine.world.host()
    vm, claim = await imported(engine, host)
    assert await claims(engine, host, domain(vm, None)) == [(True, claim)]
    assert await claims(engine, host, domain(vm, 1)) == [(True, None)]


async def test_a_lost_vm_whose_copy_was_never_marked_lives_again(engine: Engine) -> None:
    world, host = engine.world, await engine.world.host()
    vm, claim = await imported(engine, host)
    run = await world.do(runs.active_run, vm)
    assert run is not None
    assert await world.do(runs.lose, run["id"], await world.certificate(host), world.now)
    assert await claims(engine, host, domain(vm, None)) == [(True, claim)]
    assert (await world.run(run["id"]))["state"] == "running"


async def test_an_unmarked_copy_that_cannot_be_told_as_ours_refuses_the_host(
    engine: Engine,
) -> None:
    world, host = engine.world, await engine.world.host()
    vm = await world.vm()
    await world.running(vm, host)
    with pytest.raises(Conflict) as refused:
        await judged(engine, host, domain(vm, None))
    assert (refused.value.code, bool(refused.value.next_step)) == ("COPY_UNMARKED", True)


async def test_an_unmarked_copy_whose_vm_runs_elsewhere_by_now_refuses_the_host(
    engine: Engine,
) -> None:
    world, host = engine.world, await engine.world.host("old")
    vm, _claim = await imported(engine, host)
    run = await world.do(runs.active_run, vm)
    assert run is not None
    certificate = await world.certificate(host)
    assert await world.do(runs.lose, run["id"], certificate, world.now)
    await world.running(vm, await world.host("new"), licence_id=certificate)
    with pytest.raises(Conflict, match="COPY_UNMARKED"):
        await judged(engine, host, domain(vm, None))


async def test_an_unmarked_domain_that_no_run_here_explains_is_foreign(engine: Engine) -> None:
    world, host = engine.world, await engine.world.host()
    vm = await world.vm()
    await world.running(vm, await world.host("h2"))
    assert await judged(engine, host, domain(vm, None), domain(new_id(), None)) == []


async def test_a_copy_whose_run_has_moved_on_goes(engine: Engine) -> None:
    world = engine.world
    vm, host = await world.vm(), await world.host("old")
    certificate = await lost(engine, vm, host)
    await world.running(vm, await world.host("new"), licence_id=certificate)
    assert await judged(engine, host, domain(vm, 1)) == [(False, 2)]


async def test_the_only_copy_of_a_lost_vm_is_kept_and_its_run_lives_again(engine: Engine) -> None:
    world = engine.world
    vm, host = await world.vm(memory_mib=100), await world.host()
    await lost(engine, vm, host)
    for _ in range(2):
        assert await judged(engine, host, domain(vm, 1)) == [(True, 1)]
    run = await world.do(runs.active_run, vm)
    assert run is not None
    assert (run["state"], run["host_id"]) == ("running", host)
    assert (await world.get("host", host))["memory_reserved_mib"] == 100


async def test_a_dead_copy_of_a_lost_vm_is_no_copy(engine: Engine) -> None:
    vm, host = await engine.world.vm(), await engine.world.host()
    await lost(engine, vm, host)
    assert await judged(engine, host, domain(vm, 1, DomainState.SHUTOFF)) == [(False, 1)]
    assert await engine.world.do(runs.active_run, vm) is None


async def test_a_copy_left_by_a_clean_stop_goes(engine: Engine) -> None:
    world = engine.world
    vm, host = await world.vm(), await world.host()
    run = await world.running(vm, host)
    await world.do(runs.end, run["id"], "stopped", world.now)
    assert await judged(engine, host, domain(vm, 1)) == [(False, 1)]


async def test_foreign_and_unknown_domains_get_no_verdict(engine: Engine) -> None:
    vm, host = await engine.world.vm(), await engine.world.host()
    assert await judged(engine, host, domain(vm, None), domain(new_id(), 1)) == []


async def test_runs_that_were_read_as_gone_are_closed_and_the_living_stay(engine: Engine) -> None:
    world = engine.world
    host = await world.host()
    alive, gone = await world.vm("alive", memory_mib=100), await world.vm("gone")
    for vm in (alive, gone):
        await world.running(vm, host)
    await world.put("host", host, state="reconciling")
    ref = await engine.ref(host)
    expected = await engine.hosts.expected_runs(ref)
    assert await engine.hosts.settle_runs(ref, expected, (alive,)) == ("gone",)
    assert await engine.hosts.settle_runs(ref, expected, (alive,)) == ()
    assert columns(await world.do(runs.active_runs, host), "vm_id") == [alive]
    assert (await world.get("host", host))["memory_reserved_mib"] == 100


async def test_settling_one_host_leaves_the_runs_of_others_alone(engine: Engine) -> None:
    world = engine.world
    other = await world.host("other")
    run = await world.running(await world.vm(), other)
    ref = await engine.ref(await world.host("this", state="reconciling"))
    assert await engine.hosts.expected_runs(ref) == ()
    assert await engine.hosts.settle_runs(ref, (run["id"],), ()) == ()
    assert len(await world.do(runs.active_runs)) == 1


@pytest.mark.parametrize("now", [{"epoch": 2}, {"state": "up"}, {"state": "non_operational"}])
async def test_what_was_read_of_a_host_ends_no_run_once_it_has_moved_on(
    engine: Engine, now: dict[str, object]
) -> None:
    world, host = engine.world, await engine.world.host()
    run = await world.running(await world.vm(), host)
    await world.put("host", host, state="reconciling")
    ref = await engine.ref(host)
    await world.put("host", host, **now)
    with pytest.raises(Superseded, match="EPOCH_STALE"):
        await engine.hosts.settle_runs(ref, (run["id"],), ())
    assert (await world.run(run["id"]))["state"] == "running"


async def admission(engine: Engine, host: UUID) -> AdmitOrder:
    return AdmitOrder(
        operation_id=await engine.world.operation(),
        host=await engine.ref(host),
        settled=Reconciliation(memory_mib=8192, cpus=8),
    )


async def test_an_admitted_host_is_up_at_the_next_epoch_with_what_it_said_it_has(
    engine: Engine,
) -> None:
    world = engine.world
    host = await world.host()
    run = await world.running(await world.vm(), host)
    await world.put("host", host, state="reconciling")
    order = await admission(engine, host)
    assert await engine.hosts.admit(order) == 2
    assert await engine.hosts.admit(order) == 2
    row = await world.get("host", host)
    assert (row["state"], row["epoch"], row["memory_mib"], row["cpus"]) == ("up", 2, 8192, 8)
    assert (await world.run(run["id"]))["epoch"] == 2


async def test_admitting_at_once_raises_the_epoch_once(engine: Engine) -> None:
    host = await engine.world.host(state="reconciling")
    order = await admission(engine, host)
    assert await asyncio.gather(*(engine.hosts.admit(order) for _ in range(5))) == [2] * 5
    assert (await engine.world.get("host", host))["epoch"] == 2


async def test_a_host_that_has_moved_on_is_not_admitted_and_nothing_is_written(
    engine: Engine,
) -> None:
    world = engine.world
    host = await world.host(state="reconciling")
    order = await admission(engine, host)
    await world.put("host", host, state="non_operational")
    before = await engine.everything()
    with pytest.raises(Superseded, match="EPOCH_STALE"):
        await engine.hosts.admit(order)
    assert await engine.everything() == before


async def test_a_host_that_cannot_be_reconciled_is_left_out_of_service_with_the_reason(
    engine: Engine,
) -> None:
    host = await engine.world.host(state="reconciling")
    order = FailOrder(host=await engine.ref(host), why="autostart is on")
    for _ in range(2):
        await engine.hosts.fail(order)
    row = await engine.world.get("host", host)
    assert (row["state"], row["state_reason"]) == ("non_operational", "autostart is on")


async def test_a_kept_copy_may_die_again_in_its_new_epoch(engine: Engine) -> None:
    world = engine.world
    vm, host = await world.vm(), await world.host()
    await lost(engine, vm, host)
    assert await judged(engine, host, domain(vm, 1)) == [(True, 1)]
    await engine.hosts.admit(await admission(engine, host))
    run = await world.do(runs.active_run, vm)
    assert run is not None
    certificate = await world.certificate(host, epoch=2)
    assert await world.do(runs.lose, run["id"], certificate, world.now)
    other = await world.placed(vm, await world.host("other"), licence_id=certificate)
    assert await world.do(runs.begin_start, other["id"], other["operation_id"])
