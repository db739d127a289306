"""A monitor's view is warm once it has heard each of its hosts, or missed it for long enough."""

import pytest

from store import observations
from tests.unit.worker.monitor_scene import SILENT, Scene, reading, until
from worker.roster import WARM_ROUNDS

pytestmark = [pytest.mark.unit, pytest.mark.usefixtures("patient")]


async def warmth(scene: Scene) -> list[bool]:
    """Whether the monitor held its view of the host to be warm, as it was seen until it did."""
    seen: list[bool] = []

    async def is_warm() -> bool:
        for row in await scene.world.do(observations.latest, scene.host_id):
            seen.append(row["warm"])
        return bool(seen) and seen[-1]

    await until(is_warm)
    return seen


async def test_a_monitor_is_warm_once_every_host_has_answered_it_a_few_times(scene: Scene) -> None:
    async with scene.watched():
        await warmth(scene)
        (row,) = await scene.world.do(observations.monitors)
    assert row["rounds"] >= WARM_ROUNDS


@pytest.mark.usefixtures("impatient")
async def test_a_monitor_that_never_heard_a_host_is_cold_until_it_was_missed_for_its_limit(
    scene: Scene,
) -> None:
    scene.answer(SILENT)
    async with scene.watched():
        seen = await warmth(scene)
    assert not seen[0]
    assert (await scene.seen())["verdict"] == "non_responsive"


async def test_one_host_that_was_never_heard_keeps_the_view_of_the_others_cold(
    scene: Scene,
) -> None:
    scene.answer(SILENT)
    async with scene.watched():
        await scene.rounds(WARM_ROUNDS + 3)
        assert not (await scene.seen())["warm"]
        scene.answer(reading())
        await warmth(scene)
