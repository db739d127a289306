"""A person's word that a host is dead: taken for a silent one, never against a sign of life."""

from uuid import UUID

import pytest

from domain.inventory import CONFIRMATION
from domain.permissions import GRANTS, Permission, Role
from engine.actions.confirmations import ConfirmHostDead
from engine.closing import LOOK_AGAIN
from store import inventory, plumbing
from tests.store.engine_room import Engine
from tests.store.scenes import Scene

pytestmark = pytest.mark.store

SEEN = "I pulled both of its cords"


async def silent(engine: Engine) -> Scene:
    """A host whose failure is judged: no monitor hears it, its controller does not answer."""
    scene = await Scene(engine).build("host", "non_responsive")
    await scene.judged_incident()
    await reads(scene, "unknown")
    return scene


async def reads(scene: Scene, reading: str) -> None:
    world = scene.world
    await world.do(inventory.note_reading, scene.ids["fence"], reading, world.now)


def word(scene: Scene) -> ConfirmHostDead:
    return ConfirmHostDead(host_id=scene.ids["host"], reason=SEEN)


async def test_the_word_is_evidence_with_its_giver_and_the_recovery_is_told(engine: Engine) -> None:
    scene = await silent(engine)
    await engine.act(word(scene))
    (fact,) = await engine.rows("evidence")
    assert (fact["kind"], fact["verdict"]) == (CONFIRMATION, "dead")
    assert (fact["device"], fact["detail"]) == ("ann", SEEN)
    assert (fact["incident_id"], fact["epoch"]) == (scene.ids["incident"], 1)
    (incident,) = await engine.rows("incident")
    told = [row for row in await engine.rows("outbox") if row["kind"] == plumbing.SIGNAL]
    assert [(row["operation_id"], row["signal"]) for row in told] == [
        (incident["operation_id"], LOOK_AGAIN)
    ]
    audit = [row for row in await engine.rows("event") if row["type"].startswith("host.confirm")]
    assert [row["principal"] for row in audit] == ["ann"]


async def test_said_twice_the_recovery_is_told_once(engine: Engine) -> None:
    scene = await silent(engine)
    await engine.act(word(scene))
    await engine.act(word(scene))
    told = [row for row in await engine.rows("outbox") if row["kind"] == plumbing.SIGNAL]
    assert len(told) == 1


@pytest.mark.parametrize("verdict", ["up", "refused"])
async def test_a_host_that_a_monitor_hears_is_not_dead_whoever_says_so(
    engine: Engine, verdict: str
) -> None:
    scene = await silent(engine)
    await scene.world.monitor()
    await scene.world.observe(scene.ids["host"], verdict=verdict)
    await refused(engine, scene, "SIGN_OF_LIFE")


async def test_a_device_that_reads_on_refuses_it_and_one_that_reads_off_does_not(
    engine: Engine,
) -> None:
    scene = await silent(engine)
    await reads(scene, "on")
    await refused(engine, scene, "POWER_ON")
    await reads(scene, "off")
    await engine.act(word(scene))


async def test_the_engines_own_host_is_alive(engine: Engine) -> None:
    scene = await silent(engine)
    await scene.world.put("host", scene.ids["host"], own_host=True)
    await refused(engine, scene, "OWN_HOST")


async def test_what_is_proven_needs_no_word(engine: Engine) -> None:
    scene = await silent(engine)
    await scene.world.put("incident", scene.ids["incident"], phase="start")
    await refused(engine, scene, "PROVEN_ALREADY")


@pytest.mark.parametrize("reason", ["", "ok", "x" * 1001])
def test_a_word_without_a_reason_is_none(reason: str) -> None:
    with pytest.raises(ValueError, match="reason"):
        ConfirmHostDead(host_id=UUID(int=1), reason=reason)


def test_a_program_confirms_no_death() -> None:
    may = {role for role, granted in GRANTS.items() if Permission.HOST_CONFIRM_DEAD in granted}
    assert may == {Role.ADMIN, Role.OPERATOR, Role.ENGINE}


async def refused(engine: Engine, scene: Scene, code: str) -> None:
    """The word is refused with this code and a next step, and nothing of it is kept."""
    error = await engine.refusal(word(scene))
    assert code in [problem.code for problem in error.problems] or error.code == code
    assert error.next_step
    assert await engine.rows("evidence") == []
