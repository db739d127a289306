"""A host whose libvirtd hangs is told from a dead one by its door."""

from collections import Counter

import pytest

from domain.inventory import PowerReading
from domain.profiles import Profile
from domain.readings import Knock
from tests.unit.worker.monitor_scene import SILENT, SOON, Scene, until

pytestmark = [pytest.mark.unit, pytest.mark.usefixtures("patient")]


@pytest.mark.parametrize("door", [Knock.OPEN, Knock.REFUSED, Knock.ANSWERS])
async def test_a_silent_host_whose_kernel_opens_its_door_is_not_reported(
    scene: Scene, door: Knock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.monitor.TIMINGS", {Profile.BALANCED: SOON})
    scene.hosts.doors["qemu+tcp://h1/system"] = door
    scene.answer(SILENT)
    async with scene.watched():
        await until(lambda: scene.hosts.knocks["qemu+tcp://h1/system"] >= 3)
    assert (await scene.incidents(), await scene.state()) == ([], "connecting")


async def test_a_door_is_only_knocked_at_before_a_host_is_reported(scene: Scene) -> None:
    scene.answer(SILENT)
    async with scene.watched():
        await scene.rounds(3)
    assert scene.hosts.knocks == Counter()


async def test_a_power_cut_is_reported_whatever_its_door_does(scene: Scene) -> None:
    scene.hosts.doors["qemu+tcp://h1/system"] = Knock.OPEN
    scene.power.readings["bmc1"] = PowerReading.OFF
    scene.answer(SILENT)
    async with scene.watched():
        await scene.incident()
    assert scene.hosts.knocks == Counter()
