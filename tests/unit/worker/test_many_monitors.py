"""Several monitors over one store: who watches what, who takes over, who mistrusts itself."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from uuid import UUID

import pytest

from domain.errors import Conflict
from domain.eyes import Eye, eyes_of
from engine.actions.hosts import ActivateHostAction, RecoverHostAction
from engine.backend import Backend
from engine.records.watching import WatchRecords
from store import observations
from store.schema import event
from store.schema_ha import monitor, observation
from tests.unit.worker.monitor_scene import SILENT, Hosts, Scene, until
from worker.monitor import Monitor
from worker.owners import Identity

pytestmark = [pytest.mark.unit, pytest.mark.usefixtures("patient", "hurried")]

NAMES = ("m1", "m2", "m3")


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beats and losses take no time, and nobody watches more than its own hosts."""
    monkeypatch.setattr("worker.monitor.BEAT_S", 0.05)
    monkeypatch.setattr("domain.eyes.LOOK_S", 1.0)
    # Far more than a monitor may wait for its turn to write on a busy machine.
    monkeypatch.setattr("domain.eyes.GONE_S", 6.0)
    monkeypatch.setattr("domain.eyes.TARGETS_MIN", 0)


@asynccontextmanager
async def watching(
    scene: Scene, name: str, hosts: Hosts | None = None, who: Identity | None = None
) -> AsyncIterator[asyncio.Task[None]]:
    """One more monitor, which sees the same hosts unless it has some of its own."""
    backend = Backend(
        scene.database, [RecoverHostAction(), ActivateHostAction()], [], scene.delivered
    )
    records, seen = WatchRecords(scene.database), hosts or scene.hosts
    made = Monitor(name, records, backend, seen, scene.power, who=who or Identity(name, name))
    task = asyncio.create_task(made.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait({task})
        await backend.close()


async def watchers(scene: Scene) -> dict[UUID, set[str]]:
    """Who has a row of each host, and knows it well enough to judge."""
    found: defaultdict[UUID, set[str]] = defaultdict(set)
    for row in await scene.rows(observation):
        if row["warm"]:
            found[row["host_id"]].add(row["monitor"])
    return found


async def told(scene: Scene, kind: str) -> list[str]:
    """The monitors that events of one kind name, oldest first."""
    rows = [row for row in await scene.rows(event) if row["type"] == kind]
    return [row["data"]["monitor"] for row in sorted(rows, key=lambda row: row["at"])]


async def ten_hosts(scene: Scene) -> list[UUID]:
    return [scene.host_id] + [await scene.world.host(f"h{n}") for n in range(2, 11)]


def settled(scene: Scene, hosts: list[UUID], *names: str) -> Callable[[], Awaitable[bool]]:
    """Whether each host is watched by its own monitors of these, and by no other."""
    eyes = [Eye(name=name, machine=name) for name in names]
    wanted = {host: set(eyes_of(host, eyes, 2)) for host in hosts}

    async def holds() -> bool:
        return dict(await watchers(scene)) == wanted

    return holds


async def test_each_host_is_watched_by_its_two_monitors_of_three_and_polled_by_no_other(
    scene: Scene,
) -> None:
    hosts = await ten_hosts(scene)
    eyes = [Eye(name=name, machine=name) for name in NAMES]
    own = {name: Hosts() for name in NAMES}
    async with (
        watching(scene, "m1", own["m1"]),
        watching(scene, "m2", own["m2"]),
        watching(scene, "m3", own["m3"]),
    ):
        await until(settled(scene, hosts, *NAMES))
        for each in own.values():
            each.polls.clear()
        await until(lambda: all(sum(each.polls.values()) > 30 for each in own.values()))
        for name, each in own.items():
            mine = {h for h in hosts if name in eyes_of(h, eyes, 2)}
            assert len(each.polls) == len(mine)


async def test_a_monitor_that_dies_is_told_of_once_and_others_take_its_hosts(scene: Scene) -> None:
    hosts = await ten_hosts(scene)
    async with watching(scene, "m1"), watching(scene, "m2"):
        async with watching(scene, "m3"):
            await until(settled(scene, hosts, *NAMES))

        async def taken() -> bool:
            found = await watchers(scene)
            return all({"m1", "m2"} <= found[host] for host in hosts)

        await until(taken)
        (row,) = [row for row in await scene.rows(monitor) if row["name"] == "m3"]
        assert row["gone_at"] is not None
        assert await told(scene, "monitor.gone") == ["m3"]
        async with watching(scene, "m3"):
            await until(settled(scene, hosts, *NAMES))
    assert {row["gone_at"] for row in await scene.rows(monitor)} == {None}


async def test_while_a_monitor_joins_no_host_is_without_those_that_know_it(scene: Scene) -> None:
    hosts = await ten_hosts(scene)
    async with watching(scene, "m1"), watching(scene, "m2"):
        await until(settled(scene, hosts, "m1", "m2"))
        fewest: list[int] = []

        async def joined() -> bool:
            found = await watchers(scene)
            fewest.append(min(len(found[host]) for host in hosts))
            return bool(await settled(scene, hosts, *NAMES)())

        async with watching(scene, "m3"):
            await until(joined)
    assert min(fewest) == 2


async def test_a_monitor_that_hears_nothing_says_so_and_speaks_of_no_host(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("domain.eyes.TARGETS_MIN", 4)  # what it listens to, to hear again
    hosts, deaf = await ten_hosts(scene), Hosts()
    async with watching(scene, "m1"), watching(scene, "m2", deaf):
        await until(settled(scene, hosts, "m1", "m2"))
        for number in range(1, 11):
            deaf.answers[f"qemu+tcp://h{number}/system"] = SILENT

        async def blind() -> bool:
            return await told(scene, "monitor.blind") == ["m2"]

        async def all_up() -> bool:
            return {(await scene.world.get("host", host))["state"] for host in hosts} == {"up"}

        await until(blind)
        await until(all_up)
        before, polled = len(await scene.rows(event)), deaf.polls.total()
        await until(lambda: deaf.polls.total() > polled + 100)
        assert len(await scene.rows(event)) == before
        assert await scene.incidents() == []
        deaf.answers.clear()

        async def sees() -> bool:
            return await told(scene, "monitor.sees") == ["m2"]

        await until(sees)
        await until(settled(scene, hosts, "m1", "m2"))
    assert {row["blind_at"] for row in await scene.rows(monitor)} == {None}


async def test_two_monitors_of_different_views_tell_of_a_host_once(scene: Scene) -> None:
    hosts, partly = await ten_hosts(scene), Hosts()
    async with watching(scene, "m1"), watching(scene, "m2", partly):
        await until(settled(scene, hosts, "m1", "m2"))
        partly.answers["qemu+tcp://h1/system"] = SILENT
        polled = partly.polls["qemu+tcp://h1/system"]
        await until(lambda: partly.polls["qemu+tcp://h1/system"] > polled + 40)
        assert await scene.state() == "connecting"
        assert await told(scene, "host.missed") == ["m2"]
        assert await told(scene, "host.answered") == []
        partly.answers.clear()

        async def up() -> bool:
            return await scene.state() == "up"

        await until(up)
    assert len(await told(scene, "host.answered")) == 1


async def test_a_second_live_process_of_one_name_is_refused_and_the_first_goes_on(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.owners.TAKEN_S", 2.0)
    async with watching(scene, "m1", who=Identity("a", "first")) as first:
        await scene.rounds(3)
        async with watching(scene, "m1", who=Identity("b", "second")) as second:
            with pytest.raises(Conflict, match="MONITOR_NAME_TAKEN") as refused:
                await second
        assert "on a, is the monitor m1" in refused.value.detail
        assert "HOLDFAST_MONITOR_NAME" in refused.value.next_step
        await scene.rounds(3)
        assert not first.done()


async def test_a_name_whose_process_is_dead_or_silent_is_taken(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.owners.TAKEN_S", 0.3)
    for who in (
        Identity("a", "first"),
        Identity("a", "second", lambda mark: mark == "first"),
        Identity("b", "third"),
    ):
        async with watching(scene, "m1", who=who):
            await scene.rounds(3)
        (row,) = await scene.rows(monitor)
        assert (row["owner"], row["machine"]) == (who.mark, who.machine)


async def test_a_monitor_that_has_lost_its_name_while_it_stood_still_ends(scene: Scene) -> None:
    async with watching(scene, "m1", who=Identity("a", "first")) as first:
        await scene.rounds(3)
        await scene.world.do(
            observations.register_monitor, "m1", scene.world.now, machine="b", owner="second"
        )
        with pytest.raises(ExceptionGroup) as ended:
            await first
    assert ended.group_contains(Conflict, match="MONITOR_NAME_TAKEN")
    assert [row["owner"] for row in await scene.rows(monitor)] == ["second"]


async def test_a_monitor_that_ends_in_order_is_gone_at_once(scene: Scene) -> None:
    made = Monitor(
        "m1",
        WatchRecords(scene.database),
        Backend(scene.database, [], []),
        scene.hosts,
        scene.power,
    )
    task = asyncio.create_task(made.run())
    await scene.rounds(2)
    task.cancel()
    await asyncio.wait({task})
    await made.leave()
    await made.leave()
    assert [row["gone_at"] is None for row in await scene.rows(monitor)] == [False]
    scene.database.away = True
    await made.leave()
    scene.database.away = False
    assert Counter(await told(scene, "monitor.gone"))["m1"] >= 1
