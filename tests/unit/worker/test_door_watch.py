"""A door that opens voids a certificate where the power reads off, and only there."""

import asyncio
from collections import Counter
from typing import Any

import pytest

from domain.doors import KNOCK
from domain.errors import EngineError, NoAnswer
from domain.inventory import PowerReading
from domain.readings import HostReading, Knock
from store.schema import event
from store.schema_ha import death_certificate
from tests.unit.worker.monitor_scene import REFUSED, SILENT, Hosts, Scene, until
from worker import door_watch

pytestmark = [pytest.mark.unit, pytest.mark.usefixtures("patient")]

H1 = "qemu+tcp://h1/system"
OFF, ON, UNKNOWN = PowerReading.OFF, PowerReading.ON, PowerReading.UNKNOWN
NOT_TRIED = NoAnswer("KNOCK_NOT_POSSIBLE", "no descriptor left")


class Doors(Hosts):
    """Each door does one thing after the other; its last one again and again."""

    def __init__(self) -> None:
        super().__init__()
        self.turns: dict[str, list[Knock | EngineError]] = {}

    async def knock(self, uri: str, deadline_s: float) -> Knock:
        self.knocks[uri] += 1
        turns = self.turns.get(uri, [Knock.SILENT])
        door = turns.pop(0) if len(turns) > 1 else turns[0]
        if isinstance(door, EngineError):
            raise door
        return door


@pytest.fixture
def doors(scene: Scene) -> Doors:
    scene.hosts = Doors()
    return scene.hosts


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks follow on each other."""
    monkeypatch.setattr(door_watch, "AGAIN_S", 0.05)


async def dead(
    scene: Scene, power: PowerReading, answer: HostReading | EngineError = SILENT
) -> None:
    """`h1` is down under a certificate that rests on the silence of its door."""
    evidence = [{"kind": KNOCK, "device": "h1", "verdict": "silent", "detail": H1}]
    certificate = await scene.world.certificate(scene.host_id)
    await scene.world.put("death_certificate", certificate, evidence=evidence)
    scene.power.readings["bmc1"] = power
    scene.answer(answer)


async def proofs(scene: Scene) -> list[str]:
    return [row["state"] for row in await scene.rows(death_certificate)]


async def void(scene: Scene) -> bool:
    return await proofs(scene) == ["void"]


async def alarms(scene: Scene) -> list[dict[str, Any]]:
    rows = await scene.rows(event)
    return [row["data"] for row in rows if row["type"] == "certificate.voided"]


@pytest.mark.parametrize("answer", [SILENT, REFUSED])
@pytest.mark.parametrize("door", [Knock.OPEN, Knock.REFUSED, Knock.ANSWERS])
async def test_a_door_that_opens_while_the_power_reads_off_voids_the_certificate(
    scene: Scene, doors: Doors, door: Knock, answer: EngineError
) -> None:
    await dead(scene, OFF, answer)
    doors.turns[H1] = [door]
    async with scene.watched():
        await until(lambda: void(scene))
        await scene.rounds(3)
    (told,) = await alarms(scene)
    assert (told["host"], f"at {H1} while bmc1 reads off" in told["why"]) == ("h1", True)
    (proof,) = await scene.rows(death_certificate)
    assert proof["void_reason"] == told["why"]
    assert await scene.state() == "non_operational"


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("power", [ON, UNKNOWN])
async def test_a_door_that_may_be_a_new_boots_leaves_the_certificate_true(
    scene: Scene, doors: Doors, power: PowerReading
) -> None:
    await dead(scene, power)
    doors.turns[H1] = [Knock.OPEN]
    async with scene.watched():
        await until(lambda: scene.power.asked["bmc1"] >= 3)
        await scene.rounds(3)
    assert (await proofs(scene), await alarms(scene)) == (["valid"], [])
    assert await scene.state() == "down"


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("second", [Knock.SILENT, NOT_TRIED])
async def test_a_host_that_is_gone_by_the_second_knock_leaves_the_certificate_true(
    scene: Scene, doors: Doors, second: Knock | EngineError
) -> None:
    await dead(scene, OFF)
    doors.turns[H1] = [Knock.OPEN, second, Knock.SILENT]
    async with scene.watched():
        await until(lambda: doors.knocks[H1] >= 5)
    assert (await proofs(scene), scene.power.asked["bmc1"]) == (["valid"], 1)


@pytest.mark.parametrize("door", [Knock.SILENT, NOT_TRIED])
async def test_no_power_controller_is_asked_while_the_door_shows_no_life(
    scene: Scene, doors: Doors, door: Knock | EngineError
) -> None:
    await dead(scene, OFF)
    doors.turns[H1] = [door]
    async with scene.watched():
        await until(lambda: doors.knocks[H1] >= 4)
    assert (await proofs(scene), scene.power.asked) == (["valid"], Counter())


async def test_the_controller_of_a_machine_that_is_on_again_is_not_asked_at_every_poll(
    scene: Scene, doors: Doors
) -> None:
    await dead(scene, ON)
    doors.turns[H1] = [Knock.OPEN]
    async with scene.watched():
        await until(lambda: scene.power.asked["bmc1"] >= 1)
        await scene.rounds(10)
    assert (scene.power.asked["bmc1"], doors.knocks[H1]) == (1, 1)


async def test_a_host_without_power_devices_is_not_knocked_at(scene: Scene, doors: Doors) -> None:
    other = await scene.world.host("h2")
    await scene.world.certificate(other)
    scene.answer(SILENT, "h2")
    async with scene.watched():
        await until(lambda: doors.polls["qemu+tcp://h2/system"] >= 5)
    assert doors.knocks == Counter()


@pytest.mark.parametrize("state", ["maintenance", "non_operational", "reconciling", "error"])
async def test_only_a_host_that_is_down_is_knocked_at_for_its_certificate(
    scene: Scene, doors: Doors, state: str
) -> None:
    await dead(scene, OFF)
    await scene.world.put("host", scene.host_id, state=state)
    doors.turns[H1] = [Knock.OPEN]
    async with scene.watched():
        await scene.rounds(5)
    assert (await proofs(scene), doors.knocks) == (["valid"], Counter())


async def test_a_slow_controller_of_a_dead_host_holds_up_no_poll(
    scene: Scene, doors: Doors
) -> None:
    await dead(scene, OFF)
    await scene.world.host("h2")
    doors.turns[H1] = [Knock.OPEN]
    scene.power.answering.clear()
    async with scene.watched():
        await until(lambda: scene.power.asked["bmc1"] == 1)
        before = doors.polls["qemu+tcp://h2/system"]
        await scene.rounds(10)
        assert doors.polls["qemu+tcp://h2/system"] >= before + 9
        assert (scene.power.asked["bmc1"], doors.knocks[H1]) == (1, 1)
        scene.power.answering.set()
        await until(lambda: void(scene))


@pytest.mark.usefixtures("often")
async def test_a_look_that_takes_too_long_says_nothing_and_ends(
    scene: Scene, doors: Doors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door_watch, "LOOK_S", 0.05)
    await dead(scene, OFF)
    doors.turns[H1] = [Knock.OPEN]
    scene.power.answering.clear()
    async with scene.watched():
        await until(lambda: scene.power.asked["bmc1"] >= 3)
        assert await proofs(scene) == ["valid"]
        scene.power.answering.set()
        await until(lambda: void(scene))


async def test_what_could_not_be_written_is_seen_again(scene: Scene, doors: Doors) -> None:
    await dead(scene, OFF)
    async with scene.watched():
        await scene.rounds(2)
        scene.database.away = True
        doors.turns[H1] = [Knock.OPEN]
        await until(lambda: scene.power.asked["bmc1"] >= 2)
        scene.database.away = False
        await until(lambda: void(scene))
    assert len(await alarms(scene)) == 1


async def test_two_looks_at_once_do_not_overlap(scene: Scene, doors: Doors) -> None:
    running, most = 0, 0

    async def slow(uri: str, deadline_s: float) -> Knock:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.1)
        running -= 1
        return Knock.SILENT

    doors.knock = slow  # type: ignore[method-assign]
    await dead(scene, OFF)
    async with scene.watched():
        await scene.rounds(15)
    assert most == 1
