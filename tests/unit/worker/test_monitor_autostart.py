"""A monitor warns of what a host starts by itself at boot, takes that back, and does no more."""

import pytest

from engine.records.watching import WatchedHost, WatchRecords
from store.rows import Row
from store.schema import event
from tests.unit.worker.monitor_scene import Scene, reading, until

pytestmark = [pytest.mark.unit, pytest.mark.usefixtures("patient")]


async def told(scene: Scene) -> list[Row]:
    found = await scene.rows(event)
    return [row for row in found if row["type"].startswith("host.autostart")]


async def kept(scene: Scene) -> str:
    said: str = (await scene.world.get("host", scene.host_id))["autostart"]
    return said


async def test_domains_that_start_at_boot_are_warned_of_once_with_what_to_do(scene: Scene) -> None:
    scene.answer(reading(autostart=("db", "web")))
    async with scene.watched():
        await until(lambda: told(scene))
        await scene.rounds(3)
    (alarm,) = await told(scene)
    assert (alarm["type"], alarm["subject_id"]) == ("host.autostart", scene.host_id)
    assert "h1 starts db, web by itself at boot" in alarm["data"]["why"]
    assert "`virsh autostart --disable db`" in alarm["data"]["next_step"]
    assert await kept(scene) == "db\nweb"


async def test_the_warning_names_what_is_left_and_is_taken_back_when_nothing_is(
    scene: Scene,
) -> None:
    async def says(expected: str) -> None:
        async def so() -> bool:
            return await kept(scene) == expected

        await until(so)

    async with scene.watched():
        for names, expected in ((("db", "web"), "db\nweb"), (("web",), "web"), ((), "")):
            scene.answer(reading(autostart=names))
            await says(expected)
    types = [row["type"] for row in await told(scene)]
    assert types == ["host.autostart", "host.autostart", "host.autostart_off"]


async def test_what_is_not_known_warns_of_nothing_and_takes_nothing_back(scene: Scene) -> None:
    scene.answer(reading(autostart=None))
    async with scene.watched():
        await scene.rounds(3)
        assert await told(scene) == []
        scene.answer(reading(autostart=("db",)))
        await until(lambda: told(scene))
        scene.answer(reading(autostart=None))
        await scene.rounds(3)
    assert (await kept(scene), len(await told(scene))) == ("db", 1)


async def test_nothing_is_fenced_moved_or_ordered_for_it(scene: Scene) -> None:
    scene.answer(reading(autostart=("db",)))
    async with scene.watched():
        await until(lambda: told(scene))
        await scene.rounds(3)
    assert await scene.state() == "up"
    assert (await scene.incidents(), await scene.operations()) == ([], [])
    assert scene.power.asked["bmc1"] == 0


async def test_a_warning_that_cannot_be_written_leaves_the_host_heard(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    async def defective(
        _self: WatchRecords, host: WatchedHost, _names: tuple[str, ...], _by: str
    ) -> bool:
        tried.append(host.name)
        raise LookupError("a column that is not there")

    monkeypatch.setattr(WatchRecords, "autostart", defective)
    scene.answer(reading(autostart=("db",)))
    async with scene.watched():
        await until(lambda: len(tried) >= 3)
    assert await scene.state() == "up"
    assert (await scene.seen())["verdict"] == "up"
