"""What the sweeper makes of looks that another machine's clock has noted."""

import pytest

from domain.operations import WorkflowState
from engine.sweeper import EVERY_S
from tests.store.engine_room import Engine
from tests.store.test_sweeper import Scene

pytestmark = pytest.mark.store


@pytest.fixture
def scene(engine: Engine) -> Scene:
    """A scene without hosts."""
    return Scene(engine)


async def test_a_look_that_a_clock_ahead_has_noted_keeps_no_vanished_workflow_unnoticed(
    scene: Scene,
) -> None:
    scene.world.later(900)
    operation = await scene.start()
    await scene.sweep()
    scene.world.later(-900)
    scene.is_now(operation, WorkflowState.TERMINATED)
    assert await scene.sweeper.sweep() == 1
    assert (await scene.row(operation))["state"] == "cancelled"


async def test_looks_of_clocks_that_differ_a_little_are_not_repeated(scene: Scene) -> None:
    await scene.start()
    await scene.sweep()
    scene.world.later(1 - EVERY_S)
    await scene.sweeper.sweep()
    assert len(scene.temporal.asked) == 1
