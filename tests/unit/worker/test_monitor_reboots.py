"""What a monitor does about hosts that keep no mark of their boot, or are out of service."""

from uuid import UUID

import pytest

from domain.operations import OperationState, Outcome
from engine.closing import close_operation
from tests.unit.worker.monitor_scene import SILENT, Scene, reading, until

pytestmark = [pytest.mark.unit, pytest.mark.usefixtures("patient")]


async def _settled(scene: Scene, operation_id: UUID) -> None:
    """As if the activation had ended well and the host had lost its mark again."""
    outcome = Outcome(operation_id=operation_id, state=OperationState.SUCCEEDED)
    await scene.world.do(close_operation, outcome, scene.world.now)
    await scene.world.put("host", scene.host_id, state="up")


@pytest.mark.parametrize(("wait_s", "times"), [(3600.0, 1), (0.01, 2)])
async def test_a_host_that_keeps_no_mark_is_not_activated_at_every_poll(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, wait_s: float, times: int
) -> None:
    monkeypatch.setattr("worker.reports.REACTIVATE_S", wait_s)
    scene.answer(reading(None))

    async def activated() -> bool:
        return len(await scene.operations()) == times

    async with scene.watched():
        await until(scene.operations)
        await _settled(scene, (await scene.operations())[0]["id"])
        await scene.rounds(5)
        await until(activated)
    assert await activated()


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("state", ["non_operational", "preparing_maintenance"])
async def test_a_silent_host_out_of_service_is_reported_while_a_copy_may_run_there(
    scene: Scene, state: str
) -> None:
    await scene.world.running(await scene.world.vm(), scene.host_id)
    await scene.world.put("host", scene.host_id, state=state)
    scene.answer(SILENT)
    async with scene.watched():
        await until(scene.incidents)
    assert await scene.state() == state
    assert (await scene.operations())[0]["kind"] == "host.recover"


async def test_a_host_that_reboots_while_it_is_drained_is_activated(scene: Scene) -> None:
    await scene.world.put("host", scene.host_id, state="preparing_maintenance")
    scene.answer(reading(None))
    async with scene.watched():
        await until(scene.operations)
    assert (await scene.operations())[0]["kind"] == "host.activate"
