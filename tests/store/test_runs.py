"""Never two copies: what the statements on runs let through, alone and in races (I1, I2, I6)."""

import asyncio
from functools import partial
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from store import hosts, incidents, runs
from store.ids import new_id
from tests.store.world import World

pytestmark = pytest.mark.store


async def lost_run(world: World) -> tuple[UUID, UUID, UUID]:
    """A VM whose host is proven dead: the VM, the dead host, the certificate."""
    vm, dead = await world.vm(), await world.host("dead")
    run = await world.running(vm, dead)
    certificate = await world.certificate(dead)
    assert await world.do(runs.lose, run["id"], certificate, world.now)
    return vm, dead, certificate


async def may_start(world: World, vm: UUID, licence: UUID | None) -> bool:
    run = await world.placed(vm, await world.host("other"), licence_id=licence)
    return await world.do(runs.begin_start, run["id"], run["operation_id"])


@pytest.mark.parametrize("rivals", [2, 8])
async def test_of_concurrent_placements_of_one_vm_exactly_one_wins(
    world: World, rivals: int
) -> None:
    vm, owner = await world.vm(memory_mib=100), await world.operation()
    places = [await world.host(f"h{n}") for n in range(rivals)]
    made = await world.together(
        *(
            partial(runs.place, vm_id=vm, host_id=h, epoch=1, operation_id=owner, now=world.now)
            for h in places
        )
    )
    won = [run for run in made if run is not None]
    assert [run["id"] for run in won] == [r["id"] for r in await world.do(runs.active_runs)]
    assert len(won) == 1
    reserved = [(await world.get("host", h))["memory_reserved_mib"] for h in places]
    assert sorted(reserved) == [0] * (rivals - 1) + [100]


async def test_concurrent_placements_never_promise_more_memory_than_a_host_has(
    world: World,
) -> None:
    host, owner = await world.host(memory_mib=1000), await world.operation()
    vms = [await world.vm(f"vm{n}", memory_mib=300) for n in range(6)]
    made = await world.together(
        *(
            partial(runs.place, vm_id=v, host_id=host, epoch=1, operation_id=owner, now=world.now)
            for v in vms
        )
    )
    assert len([run for run in made if run is not None]) == 3
    assert (await world.get("host", host))["memory_reserved_mib"] == 900


async def test_a_second_placement_gets_none_and_reserves_nothing(world: World) -> None:
    vm, h1, h2 = await world.vm(), await world.host("h1"), await world.host("h2")
    run = await world.placed(vm, h1)
    again = await world.do(runs.place, vm, h2, 1, run["operation_id"], world.now)
    assert again is None
    assert (await world.get("host", h2))["memory_reserved_mib"] == 0


@pytest.mark.parametrize(
    ("state", "epoch"), [("down", 1), ("connecting", 1), ("reconciling", 1), ("up", 2)]
)
async def test_nothing_is_placed_on_a_host_that_is_not_up_at_that_epoch(
    world: World, state: str, epoch: int
) -> None:
    vm, host, owner = await world.vm(), await world.host(state=state), await world.operation()
    assert await world.do(runs.place, vm, host, epoch, owner, world.now) is None


async def test_generations_rise_by_one_and_a_closed_run_gives_its_memory_back(
    world: World,
) -> None:
    vm, host = await world.vm(memory_mib=256), await world.host()
    seen = []
    for _ in range(3):
        run = await world.running(vm, host)
        seen.append((run["generation"], (await world.get("host", host))["memory_reserved_mib"]))
        assert await world.do(runs.end, run["id"], "stopped", world.now)
        assert not await world.do(runs.end, run["id"], "stopped", world.now)
    assert seen == [(1, 256), (2, 256), (3, 256)]
    assert (await world.get("host", host))["memory_reserved_mib"] == 0


async def test_a_start_may_be_claimed_again_by_its_own_operation_only(world: World) -> None:
    run = await world.placed(await world.vm(), await world.host())
    mine = partial(world.do, runs.begin_start, run["id"])
    assert await mine(run["operation_id"])
    assert await mine(run["operation_id"])
    assert not await mine(await world.operation())
    assert not await mine(new_id())


@pytest.mark.parametrize("change", [{"state": "down"}, {"state": "fencing"}, {"epoch": 2}])
async def test_no_start_begins_on_a_host_that_has_moved_on(
    world: World, change: dict[str, str | int]
) -> None:
    host = await world.host()
    run = await world.placed(await world.vm(), host)
    await world.put("host", host, **change)
    assert not await world.do(runs.begin_start, run["id"], run["operation_id"])
    assert (await world.run(run["id"]))["state"] == "placed"


async def test_a_closed_run_neither_starts_nor_stops_nor_runs(world: World) -> None:
    run = await world.placed(await world.vm(), await world.host())
    await world.do(runs.end, run["id"], "given up", world.now)
    assert not await world.do(runs.begin_start, run["id"], run["operation_id"])
    assert not await world.do(runs.started, run["id"], world.now)
    assert not await world.do(runs.begin_stop, run["id"])
    assert (await world.run(run["id"]))["state"] == "ended"


async def test_a_run_that_was_never_claimed_cannot_be_running(world: World) -> None:
    run = await world.placed(await world.vm(), await world.host())
    assert not await world.do(runs.started, run["id"], world.now)
    assert not await world.do(runs.begin_stop, run["id"])


async def test_the_time_of_a_start_is_that_of_the_first_reading(world: World) -> None:
    run = await world.running(await world.vm(), await world.host())
    assert await world.do(runs.started, run["id"], world.later(60))
    assert (await world.run(run["id"]))["started_at"] == run["started_at"]


async def test_a_lost_vm_starts_elsewhere_under_the_valid_certificate(world: World) -> None:
    vm, _, certificate = await lost_run(world)
    assert await may_start(world, vm, certificate)


async def test_a_lost_vm_starts_without_naming_the_valid_certificate(world: World) -> None:
    vm, _, _ = await lost_run(world)
    assert await may_start(world, vm, None)


@pytest.mark.parametrize("named", [True, False])
async def test_a_void_certificate_licenses_no_start(world: World, named: bool) -> None:
    vm, dead, certificate = await lost_run(world)
    assert await world.do(incidents.void_certificate, dead, 1, "heard again", world.now)
    assert not await may_start(world, vm, certificate if named else None)


async def test_a_second_death_in_the_same_epoch_licenses_the_start_again(world: World) -> None:
    vm, dead, _ = await lost_run(world)
    await world.do(incidents.void_certificate, dead, 1, "heard again", world.now)
    await world.do(incidents.close, await incident_of(world, dead), "returned", world.now)
    again = await world.certificate(dead)
    assert await may_start(world, vm, again)


async def test_each_of_two_dead_hosts_that_may_hold_a_copy_needs_its_certificate(
    world: World,
) -> None:
    vm, dead, certificate = await lost_run(world)
    second = await world.host("second")
    run = await world.running(vm, second, licence_id=certificate)
    licence = await world.certificate(second)
    assert await world.do(runs.lose, run["id"], licence, world.now)
    third = await world.placed(vm, await world.host("third"), licence_id=licence)
    await world.do(incidents.void_certificate, dead, 1, "heard again", world.now)
    assert not await world.do(runs.begin_start, third["id"], third["operation_id"])


async def test_a_host_reconciled_since_needs_no_certificate_any_more(world: World) -> None:
    vm, dead, _ = await lost_run(world)
    await world.do(incidents.void_certificate, dead, 1, "heard again", world.now)
    await world.put("host", dead, state="reconciling")
    assert await world.do(hosts.admit, dead, 1, world.now)
    assert await may_start(world, vm, None)


async def test_a_certificate_of_another_host_licenses_no_start(world: World) -> None:
    vm, _, _ = await lost_run(world)
    foreign = await world.certificate(await world.host("stranger"))
    assert not await may_start(world, vm, foreign)


async def test_a_certificate_of_another_epoch_licenses_no_start(world: World) -> None:
    vm, dead, _ = await lost_run(world)
    await world.put("host", dead, epoch=2, state="up")
    later = await world.certificate(dead, epoch=2)
    assert not await may_start(world, vm, later)


async def test_a_run_is_lost_only_under_a_valid_certificate_of_its_host_and_epoch(
    world: World,
) -> None:
    host = await world.host()
    run = await world.running(await world.vm(), host)
    foreign = await world.certificate(await world.host("stranger"))
    void = await world.certificate(host)
    await world.do(incidents.void_certificate, host, 1, "heard again", world.now)
    for certificate in (foreign, void, new_id()):
        assert not await world.do(runs.lose, run["id"], certificate, world.now)
    assert (await world.run(run["id"]))["state"] == "running"


async def test_a_certificate_of_a_later_epoch_does_not_lose_a_run(world: World) -> None:
    host = await world.host()
    run = await world.running(await world.vm(), host)
    await world.put("host", host, epoch=2)
    assert not await world.do(
        runs.lose, run["id"], await world.certificate(host, epoch=2), world.now
    )


async def test_a_void_and_a_start_that_overlap_come_one_after_the_other(world: World) -> None:
    vm, dead, certificate = await lost_run(world)
    run = await world.placed(vm, await world.host("other"), licence_id=certificate)
    voided, begun = await world.together(
        partial(incidents.void_certificate, host_id=dead, epoch=1, reason="alive", now=world.now),
        partial(runs.begin_start, run_id=run["id"], operation_id=run["operation_id"]),
    )
    found = await world.do(incidents.certificates_of, await incident_of(world, dead))
    assert voided
    assert found[0]["state"] == "void"
    # Each start that was let through raised `uses`, and that only a valid row allows.
    assert found[0]["uses"] == 1 + int(begun)
    assert not await world.do(runs.begin_start, run["id"], run["operation_id"])


async def test_voids_and_starts_in_any_order_never_license_a_start_after_the_void(
    world: World,
) -> None:
    vm, dead, certificate = await lost_run(world)
    run = await world.placed(vm, await world.host("other"), licence_id=certificate)
    order: list[tuple[str, bool]] = []

    async def start() -> None:
        done = await world.do(runs.begin_start, run["id"], run["operation_id"])
        order.append(("start", done))

    async def void() -> None:
        done = await world.do(incidents.void_certificate, dead, 1, "alive", world.now)
        order.append(("void", done))

    await asyncio.gather(start(), start(), void(), start(), start())
    assert ("void", True) in order
    licensed = order.count(("start", True))
    found = await world.do(incidents.certificates_of, await incident_of(world, dead))
    assert found[0]["uses"] == 1 + licensed
    assert not await world.do(runs.begin_start, run["id"], run["operation_id"])


async def incident_of(world: World, host: UUID) -> UUID:
    opened = await world.do(incidents.find_open, host, 1)
    assert opened is not None
    found: UUID = opened["id"]
    return found


async def test_only_the_newest_lost_run_is_revived_and_only_once(world: World) -> None:
    vm, dead, _ = await lost_run(world)
    assert not await world.do(runs.revive, vm, dead, 2)
    assert not await world.do(runs.revive, vm, new_id(), 1)
    assert await world.do(runs.revive, vm, dead, 1)
    assert not await world.do(runs.revive, vm, dead, 1)
    alive = await world.do(runs.active_run, vm)
    assert alive is not None
    assert (alive["state"], alive["lost_certificate_id"]) == ("running", None)
    assert (await world.get("host", dead))["memory_reserved_mib"] == alive["memory_mib"]


async def test_a_lost_run_is_not_revived_beside_a_newer_one(world: World) -> None:
    vm, dead, certificate = await lost_run(world)
    newer = await world.placed(vm, await world.host("other"), licence_id=certificate)
    assert not await world.do(runs.revive, vm, dead, 1)
    await world.do(runs.end, newer["id"], "stopped", world.now)
    assert not await world.do(runs.revive, vm, dead, 1)
    assert (await world.get("host", dead))["memory_reserved_mib"] == 0


async def test_a_revival_and_a_placement_that_overlap_leave_one_active_run(world: World) -> None:
    vm, dead, certificate = await lost_run(world)
    other, owner = await world.host("other"), await world.operation()

    async def revived(connection: AsyncConnection) -> bool:
        return await runs.revive(connection, vm, dead, 1)

    async def placed(connection: AsyncConnection) -> bool:
        new = await runs.place(connection, vm, other, 1, owner, world.now, licence_id=certificate)
        return new is not None

    assert sorted(await world.together(revived, placed)) == [False, True]
    assert len(await world.do(runs.active_runs)) == 1
