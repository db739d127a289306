"""What monitors wrote: one row a host and monitor, and the samples of the last hour."""

from datetime import datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.errors import Conflict
from engine.queries.eyes import HostMonitors, HostMonitorsQuery
from engine.queries.inventory import GetHost, GetHostQuery
from engine.views import HostView
from store import incidents, observations
from store.observations import Me
from store.rows import Row
from tests.store.world import START, World

pytestmark = pytest.mark.store

BEAT: Row = {"watched_ms": int, "warm": True, "observations": [], "samples": []}


async def test_a_round_replaces_what_that_monitor_last_saw(world: World) -> None:
    await world.monitor()
    h1, h2 = await world.host("h1"), await world.host("h2")
    await world.observe(h1, 1)
    await world.observe(h2, 2)
    await world.observe(h1, 3, verdict="connecting", misses=1)
    seen = {row["host_id"]: row for row in await world.do(observations.latest)}
    assert (seen[h1]["sequence"], seen[h1]["verdict"], seen[h1]["misses"]) == (3, "connecting", 1)
    assert seen[h2]["sequence"] == 2
    (monitor,) = await world.do(observations.monitors)
    assert (monitor["rounds"], monitor["sequence"], monitor["warm"]) == (3, 3, True)


async def test_a_monitor_that_starts_afresh_is_cold_and_has_seen_nothing(world: World) -> None:
    await world.monitor()
    host = await world.host()
    await world.observe(host)
    await world.monitor()
    assert await world.do(observations.latest, host) == []
    (monitor,) = await world.do(observations.monitors)
    assert (monitor["rounds"], monitor["warm"]) == (0, False)


async def test_a_monitor_that_starts_afresh_goes_on_with_its_counts(world: World) -> None:
    await world.monitor()
    world.watched_ms = 4_000
    await world.observe(await world.host(), 3)
    assert await world.do(observations.register_monitor, "m1", world.now) == (3, 4_000)
    assert await world.do(observations.register_monitor, "m2", world.now) == (0, 0)


async def last_answer(world: World, host: UUID) -> datetime | None:
    """When anybody last heard a host, as a person reads it."""

    async def read(connection: AsyncConnection) -> HostView:
        return await GetHostQuery().answer(connection, GetHost(host_id=host), world.now)

    return (await world.database.read(read)).last_answer_at


async def test_the_last_answer_is_the_newest_of_any_monitor(world: World) -> None:
    host = await world.host()
    assert await last_answer(world, host) is None
    for name, seconds in (("m1", 5), ("m2", 9)):
        await world.monitor(name)
        heard = START + timedelta(seconds=seconds)
        row: Row = {"host_id": host, "verdict": "up", "silent_s": 0.0, "last_answer_at": heard}
        seen = {
            "warm": True,
            "observations": [row],
            "samples": [],
            "now": world.now,
            "watched_ms": int,
        }
        await world.do(observations.record_round, name, 1, **seen)
    assert await last_answer(world, host) == START + timedelta(seconds=9)
    assert len(await world.do(observations.latest, host)) == 2


async def sample(world: World, host: object, free: int) -> None:
    row = {"host_id": host, "memory_total_mib": 1000, "memory_free_mib": free, "cpus": 2}
    row |= {"took_s": 0.01, "guests": [{"name": "db"}]}
    seen = {"warm": True, "observations": [], "samples": [row], "now": world.now, "watched_ms": int}
    await world.do(observations.record_round, "m1", free, **seen)


async def test_samples_come_newest_first_and_old_ones_are_pruned(world: World) -> None:
    await world.monitor()
    host = await world.host()
    for free in range(5):
        await sample(world, host, free)
        world.later(600)
    since = START + timedelta(seconds=600)
    rows = await world.do(observations.samples, host, since, 3)
    assert [row["memory_free_mib"] for row in rows] == [4, 3, 2]
    assert rows[0]["guests"] == [{"name": "db"}]
    assert await world.do(observations.prune_samples, START + timedelta(seconds=1800)) == 3
    rows = await world.do(observations.samples, host, START, 100)
    assert [row["memory_free_mib"] for row in rows] == [4, 3]


async def test_what_a_clock_that_was_ahead_has_written_is_not_the_newest_word(world: World) -> None:
    await world.monitor()
    host = await world.host()
    await sample(world, host, 1)
    world.later(600)
    await sample(world, host, 2)
    world.later(-599)
    await sample(world, host, 3)
    newest = await world.do(observations.newest_sample, host)
    assert newest is not None
    assert newest["memory_free_mib"] == 3
    rows = await world.do(observations.samples, host, START, 100)
    assert [row["memory_free_mib"] for row in rows] == [3, 1]


async def test_a_round_of_a_hundred_hosts_is_written_in_one_go(world: World) -> None:
    await world.monitor()
    hosts = [await world.host(f"h{n}") for n in range(100)]
    rows: list[Row] = [
        {"host_id": host, "verdict": "up", "silent_s": 0.0, "last_answer_at": world.now}
        for host in hosts
    ]
    figures: Row = {"memory_total_mib": 1, "memory_free_mib": 1, "took_s": 0.1, "guests": []}
    samples: list[Row] = [{"host_id": host} | figures for host in hosts]
    seen = {
        "warm": True,
        "observations": rows,
        "samples": samples,
        "now": world.now,
        "watched_ms": int,
    }
    await world.do(observations.record_round, "m1", 1, **seen)
    assert {row["host_id"] for row in await world.do(observations.latest)} == set(hosts)


async def test_a_monitor_whose_row_is_gone_is_written_anew(world: World) -> None:
    await world.observe(await world.host(), 5)
    (monitor,) = await world.do(observations.monitors)
    assert (monitor["name"], monitor["sequence"], monitor["rounds"]) == ("m1", 5, 1)


async def test_two_monitors_may_write_of_one_host_in_the_same_microsecond(world: World) -> None:
    host = await world.host()
    row: Row = {"host_id": host, "memory_total_mib": 1, "memory_free_mib": 1, "cpus": 1}
    row |= {"took_s": 0.0, "guests": []}
    seen = {"watched_ms": int, "warm": True, "observations": [], "samples": [row]}
    for name in ("m1", "m2"):
        await world.monitor(name)
        await world.do(observations.record_round, name, 1, **seen, now=world.now)
    assert len(await world.do(observations.samples, host, START, 10)) == 1


async def left(world: World, host: UUID, name: str = "m1", *to: str) -> bool:
    return await world.do(observations.release, name, host, to or ("m2",))


async def watched_by_two(world: World, *, warm: bool = True) -> UUID:
    """A host that m1 hands over to m2."""
    host = await world.host()
    for name in ("m1", "m2"):
        await world.monitor(name)
    await world.observe(host)
    seen: Row = {"host_id": host, "verdict": "up", "silent_s": 0.0, "misses": 0}
    seen |= {"others_seen": 1, "last_answer_at": world.now, "warm": warm}
    rows = {"watched_ms": int, "observations": [seen], "samples": [], "now": world.now}
    await world.do(observations.record_round, "m2", 1, warm=True, **rows)
    return host


async def test_a_host_is_left_to_a_monitor_that_knows_it(world: World) -> None:
    host = await watched_by_two(world)
    assert await left(world, host)
    assert [row["monitor"] for row in await world.do(observations.latest, host)] == ["m2"]
    assert not await left(world, host)


async def test_a_host_is_not_left_to_one_that_is_cold_or_gone_or_not_there(world: World) -> None:
    host = await watched_by_two(world, warm=False)
    assert not await left(world, host)
    assert not await left(world, host, "m1", "m2", "m3")
    other = await world.host("h2")
    assert not await left(world, other)
    assert len(await world.do(observations.latest, host)) == 2


async def test_a_host_is_not_left_to_one_that_is_held_to_be_gone(world: World) -> None:
    host = await watched_by_two(world)
    assert await world.do(observations.hold_gone, "m2", 1, world.now)
    assert not await world.do(observations.hold_gone, "m2", 1, world.now)
    assert not await left(world, host)


@pytest.mark.parametrize("state", ["connecting", "up"])
async def test_nobody_leaves_a_host_while_its_failure_is_in_question(
    world: World, state: str
) -> None:
    host = await watched_by_two(world)
    await world.put("host", host, state=state)
    if state == "up":
        await world.incident(host)
    assert not await left(world, host)
    assert len(await world.do(observations.latest, host)) == 2


async def test_a_sign_of_life_after_that_number_keeps_a_monitor_from_being_held_gone(
    world: World,
) -> None:
    await world.monitor()
    await world.round(5)
    assert not await world.do(observations.hold_gone, "m1", 4, world.now)
    assert await world.do(observations.hold_gone, "m1", 5, world.now)
    await world.round(6)
    (row,) = await world.do(observations.monitors)
    assert row["gone_at"] is None


async def test_a_name_that_another_process_has_taken_is_neither_registered_nor_written(
    world: World,
) -> None:
    name = {"machine": "a", "owner": "first"}
    await world.do(observations.register_monitor, "m1", world.now, **name)
    with pytest.raises(Conflict, match="MONITOR_NAME_TAKEN"):
        await world.do(observations.register_monitor, "m1", world.now, owner="x", was="second")
    with pytest.raises(Conflict, match="MONITOR_NAME_TAKEN"):
        await world.round(1)
    (row,) = await world.do(observations.monitors)
    assert (row["owner"], row["sequence"]) == ("first", 0)


async def test_what_a_monitor_saw_that_is_long_gone_is_forgotten_unless_it_is_judged(
    world: World,
) -> None:
    host = await watched_by_two(world)
    assert await world.do(observations.hold_gone, "m2", 1, world.now)
    incident = await world.incident(host)
    later = world.now + timedelta(hours=1)
    await world.do(observations.prune_samples, later)
    assert len(await world.do(observations.latest, host)) == 2
    await world.do(incidents.close, incident, "returned", world.now)
    await world.do(observations.prune_samples, world.now)
    assert len(await world.do(observations.latest, host)) == 2
    await world.do(observations.prune_samples, later)
    assert [row["monitor"] for row in await world.do(observations.latest, host)] == ["m1"]


async def test_a_host_shows_who_watches_it_and_what_each_said_last(world: World) -> None:
    async def eyes(connection: AsyncConnection) -> list[tuple[str, str, str | None]]:
        query = HostMonitors(host_id=host)
        found = await HostMonitorsQuery().answer(connection, query, world.now)
        return [(eye.monitor, eye.state, eye.verdict) for eye in found]

    host = await watched_by_two(world)
    await world.monitor("m3")
    shown = await world.database.read(eyes)
    assert shown == [("m1", "watching", "up"), ("m2", "watching", "up")]
    # One that starts anew is given nothing, and whom it hands over to is joining.
    assert await world.do(observations.hold_gone, "m2", 1, world.now)
    await world.do(observations.record_round, "m3", 1, **BEAT, now=world.now)
    assert await world.database.read(eyes) == [
        ("m1", "watching", "up"),
        ("m2", "gone", "up"),
        ("m3", "joining", None),
    ]
    blind = Me(blind_at=world.now)
    await world.do(observations.record_round, "m1", 2, **BEAT, now=world.now, me=blind)
    assert await world.database.read(eyes) == [
        ("m1", "blind", "up"),
        ("m2", "gone", "up"),
        ("m3", "joining", None),
    ]
