"""RestartLibvirtd on a real server: what comes of each scenario, and that no guest is touched."""

import pytest

from tests.workflow import soft_steps as scenes
from tests.workflow.bench import Bench

pytestmark = pytest.mark.workflow

EXPECTED: dict[scenes.SoftScenario, tuple[str, str | None, str, int]] = {
    scenes.a_hung_libvirtd_is_restarted: ("succeeded", None, "answered", 1),
    scenes.a_libvirtd_is_restarted_for_a_person: ("succeeded", None, "answered", 1),
    scenes.a_libvirtd_whose_restart_fails_is_left_alone: (
        *("failed", "SSH_COMMAND_FAILED", "failed"),
        1,
    ),
    scenes.a_libvirtd_that_answers_again_by_itself_is_not_restarted: (
        *("succeeded", None, "answered"),
        0,
    ),
    scenes.a_guest_that_is_missing_after_the_restart_is_told: (
        *("failed", "GUESTS_MISSING", "guests_missing"),
        1,
    ),
    scenes.a_restart_is_cancelled_while_it_is_under_way: ("cancelled", None, "cancelled", 1),
}


@pytest.mark.parametrize("scenario", scenes.SOFT_STEPS, ids=lambda s: s.__name__)
async def test_what_comes_of_it(engine: Bench, scenario: scenes.SoftScenario) -> None:
    sent: list[str] = []
    engine.centre.happenings.observers.append(lambda kind, _facts: sent.append(kind))
    operation = await engine.operation(await scenario(engine))
    (step,) = await engine.rows("soft_step")
    problem = (operation["problem"] or {}).get("code")
    found = (operation["state"], problem, step["outcome"], sent.count("ssh.restart"))
    assert found == EXPECTED[scenario]
    assert engine.centre.powered_off == []
    assert await engine.rows("incident") == []
    if problem != "GUESTS_MISSING":
        assert await engine.broken() == []
        return

    # A guest that is gone has a run until a monitor, which is not here, has it recovered; that is
    # asked of hosts that are up, and the watcher may take a round more to hear this one again.
    async def is_told() -> bool:
        return bool((await engine.host("h1"))["state"] == "up")

    await engine.until(is_told, "h1 answers, and the watcher does not hear it")
    assert await engine.broken() == ["every_running_run_has_its_copy: db does not run on h1"]


def test_each_scenario_has_its_end_here() -> None:
    assert set(EXPECTED) == set(scenes.SOFT_STEPS)
