"""A person's word against every channel of its host, all of them asked side by side."""

import asyncio
from collections.abc import Callable
from uuid import UUID

import pytest

from activities.fencing import ConfirmedOrder, Fencing
from activities.power import ASKED_AGAIN_S
from domain.errors import EngineError, NoAnswer, Refused
from domain.inventory import CONFIRMATION, Confirmation, FenceDevice, PowerReading, Silence
from domain.orders import Evidence
from domain.readings import Knock
from tests.fakes import FakePower
from tests.unit.activities.test_fencing import Door, Rows, Scene

pytestmark = pytest.mark.unit

WORD = Evidence(
    kind=CONFIRMATION, device="ann", verdict=Confirmation.DEAD, took_s=0.0, at="2026-01-01T00:00:00"
)


class Mute(FakePower):
    """A controller that takes its deadline and says nothing, or what it is told to say."""

    verdict = PowerReading.UNKNOWN
    asked_s: float | None = None
    told_at_s = 0.0

    async def read(self, device: FenceDevice) -> PowerReading:
        """Nothing, late."""
        self.asked_s = device.deadline_s
        await asyncio.sleep(device.deadline_s)
        self.told_at_s = asyncio.get_running_loop().time()
        return self.verdict


class GivenUp(Rows):
    """The device had its time, and gave no answer."""

    async def given_up(self, incident_id: UUID) -> frozenset[str]:
        """It."""
        return frozenset({self.device.name})


class SlowDoor(Door):
    """A door that is listened at for the whole time; it keeps when it was knocked at."""

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene.centre)
        self.knocked_at_s: list[float] = []

    async def knock(self, uri: str, deadline_s: float) -> Knock:
        """Silent, or what it is told to be."""
        self.knocked_at_s.append(asyncio.get_running_loop().time())
        await asyncio.sleep(deadline_s)
        return await super().knock(uri, deadline_s)


@pytest.fixture
def scene() -> Scene:
    found = Scene()
    found.rows = GivenUp(found.host)
    return found


async def checked(scene: Scene, power: Mute, door: SlowDoor) -> tuple[Evidence, ...] | EngineError:
    """What came of it."""
    fencing = Fencing(power, door, scene.rows)
    try:
        return await fencing.check_word(ConfirmedOrder(step=scene.step, confirmation=WORD))
    except EngineError as error:
        return error


async def test_a_word_waits_for_the_slowest_channel_and_not_for_their_sum(scene: Scene) -> None:
    power, door = Mute(scene.centre), SlowDoor(scene)
    evidence = await checked(scene, power, door)
    assert isinstance(evidence, tuple)
    said = [fact.verdict for fact in evidence]
    assert said == [Confirmation.DEAD, PowerReading.UNKNOWN, Silence.SILENT]
    assert power.asked_s == ASKED_AGAIN_S
    assert [at_s < power.told_at_s for at_s in door.knocked_at_s] == [True]
    assert [fact.verdict for fact in scene.rows.kept] == said[1:]


def reads_on(power: Mute, door: SlowDoor) -> None:
    power.verdict = PowerReading.ON


def answers(power: Mute, door: SlowDoor) -> None:
    door.sign = Knock.ANSWERS


def refuses(power: Mute, door: SlowDoor) -> None:
    door.sign = Knock.REFUSED


@pytest.mark.parametrize("life", [reads_on, answers, refuses])
async def test_any_channel_that_shows_life_refuses_a_word(
    scene: Scene, life: Callable[[Mute, SlowDoor], None]
) -> None:
    power, door = Mute(scene.centre), SlowDoor(scene)
    life(power, door)
    refusal = await checked(scene, power, door)
    assert isinstance(refusal, Refused)
    assert refusal.code == "SIGN_OF_LIFE"
    assert "libvirt_knock" not in scene.kinds()
    assert [fact.verdict for fact in scene.rows.kept] == [power.verdict]


async def test_a_door_that_could_not_be_tried_is_no_silence_though_a_device_was_asked(
    scene: Scene,
) -> None:
    power, door = Mute(scene.centre), SlowDoor(scene)
    door.sign = NoAnswer("KNOCK_NOT_POSSIBLE", "the name of h1 is not known")
    untried = await checked(scene, power, door)
    assert isinstance(untried, NoAnswer)
    assert untried.code == "KNOCK_NOT_POSSIBLE"
    assert scene.kinds() == ["power_reading"]


async def test_behind_a_slow_device_the_door_is_listened_at_once_more(scene: Scene) -> None:
    """What the door was when a device began to think says little when it has thought."""
    scene.rows = Rows(scene.host)  # it was not given up, so it has its whole deadline
    scene.rows.device = scene.rows.device.model_copy(update={"deadline_s": 1.2})
    power, door = Mute(scene.centre), SlowDoor(scene)
    evidence = await checked(scene, power, door)
    assert isinstance(evidence, tuple)
    assert power.asked_s == 1.2
    assert [at_s < power.told_at_s for at_s in door.knocked_at_s] == [True, False]
    assert len([fact for fact in evidence if fact.verdict is Silence.SILENT]) == 1
