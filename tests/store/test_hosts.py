"""A host moves only as the table says, and each epoch is admitted once."""

from functools import partial

import pytest

from domain.errors import Conflict
from domain.hosts import HostEvent, advance
from domain.inventory import HostState
from store import fence_budgets, hosts, runs
from store.ids import new_id
from store.rows import Row
from tests.store.world import World

pytestmark = pytest.mark.store


async def test_every_move_follows_the_table_of_states_and_no_other_is_made(world: World) -> None:
    host = await world.host()
    for state in HostState:
        for event in HostEvent:
            await world.put("host", host, state=state.value, state_reason="before")
            moved = await world.do(hosts.move, host, event, "because", world.now)
            row = await world.get("host", host)
            try:
                expected = (True, advance(state, event).value, "because")
            except Conflict:
                expected = (False, state.value, "before")
            assert (moved, row["state"], row["state_reason"]) == expected, (state, event)


async def test_moving_a_host_that_does_not_exist_moves_nothing(world: World) -> None:
    assert not await world.do(hosts.move, new_id(), HostEvent.MISSED, "", world.now)


async def test_a_reason_of_any_length_is_kept_as_far_as_it_fits(world: World) -> None:
    host = await world.host()
    assert await world.do(hosts.move, host, HostEvent.MISSED, "x" * 5000, world.now)
    assert len((await world.get("host", host))["state_reason"]) == 1024


async def test_of_two_moves_that_exclude_each_other_one_is_made(world: World) -> None:
    host = await world.host(state="connecting")
    moves = [
        partial(hosts.move, host_id=host, event=event, why="", now=world.now)
        for event in (HostEvent.ANSWERED, HostEvent.SILENT)
    ]
    assert sorted(await world.together(*moves)) == [False, True]


async def test_concurrent_admissions_raise_the_epoch_once(world: World) -> None:
    host = await world.host(state="reconciling")
    admit = partial(hosts.admit, host_id=host, epoch=1, now=world.now)
    assert sorted(await world.together(*[admit] * 6)) == [False] * 5 + [True]
    row = await world.get("host", host)
    assert (row["epoch"], row["state"], row["version"]) == (2, "up", 2)


@pytest.mark.parametrize(("state", "epoch"), [("up", 1), ("down", 1), ("reconciling", 2)])
async def test_only_a_reconciling_host_at_that_epoch_is_admitted(
    world: World, state: str, epoch: int
) -> None:
    host = await world.host(state=state, epoch=epoch)
    assert not await world.do(hosts.admit, host, 1, world.now)
    assert (await world.get("host", host))["epoch"] == epoch


def taking(memory_mib: int = 0, vcpus: int = 0) -> Row:
    """What a VM takes."""
    return {"memory_mib": memory_mib, "vcpus": vcpus}


async def test_memory_is_promised_up_to_the_last_mebibyte_and_no_further(world: World) -> None:
    host = await world.host(memory_mib=100)
    assert await world.do(hosts.reserve, host, 1, taking(60))
    assert not await world.do(hosts.reserve, host, 1, taking(41))
    assert await world.do(hosts.reserve, host, 1, taking(40))
    await world.do(hosts.release, host, taking(60))
    assert (await world.get("host", host))["memory_reserved_mib"] == 40


async def test_concurrent_reservations_never_exceed_the_capacity_of_a_host(world: World) -> None:
    host = await world.host(memory_mib=100)
    reserve = partial(hosts.reserve, host_id=host, epoch=1, wanted=taking(30))
    assert sum(await world.together(*[reserve] * 8)) == 3
    assert (await world.get("host", host))["memory_reserved_mib"] == 90


async def test_silent_hosts_are_counted_among_those_in_service(world: World) -> None:
    states = ("up", "connecting", "non_responsive", "fencing", "down", "maintenance", "reconciling")
    for state in states:
        await world.host(state.replace("_", "-"), state=state)
    (tally,) = await world.do(fence_budgets.tallies)
    assert (tally["serving"], tally["silent"], tally["counted"]) == (4, 3, 6)


async def test_surviving_runs_are_carried_into_the_new_epoch_and_ended_ones_are_not(
    world: World,
) -> None:
    host = await world.host()
    alive = await world.running(await world.vm("alive"), host)
    gone = await world.running(await world.vm("gone"), host)
    await world.do(runs.end, gone["id"], "stopped", world.now)
    assert await world.do(runs.adopt, host, 2) == 1
    assert (await world.run(alive["id"]))["epoch"] == 2
    assert (await world.run(gone["id"]))["epoch"] == 1
