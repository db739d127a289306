"""Steps of a recovery that come late, or again, and find that the world has moved on."""

import pytest

from activities.recovery import ReportOrder
from engine.actions.vms import StartVm
from tests.store.engine_room import Engine
from tests.store.test_recovery_records import Death, report

pytestmark = pytest.mark.store


async def failed_again(engine: Engine) -> Death:
    """A host whose first incident is over, and which is being fenced in a second one."""
    death = await Death(engine, await engine.world.host()).build()
    await engine.world.put("host", death.host, state="non_responsive")
    await report(death, returned=True)
    await engine.world.incident(death.host)
    await engine.world.put("host", death.host, state="fencing")
    return death


async def test_a_late_word_that_a_host_has_returned_ends_no_fence_of_its_next_incident(
    engine: Engine,
) -> None:
    death = await failed_again(engine)
    before = await engine.everything()
    await report(death, returned=True)
    assert await engine.everything() == before
    assert (await engine.world.get("host", death.host))["state"] == "fencing"


async def test_a_late_word_that_a_recovery_was_cancelled_ends_no_fence_of_the_next_one(
    engine: Engine,
) -> None:
    death = await failed_again(engine)
    order = ReportOrder(
        incident_id=death.incident,
        host=await engine.ref(death.host),
        cancelled=True,
        returned=False,
        outcomes=(),
    )
    before = await engine.everything()
    await engine.recoveries.report(order)
    assert await engine.everything() == before


async def test_a_claim_that_is_repeated_leaves_a_person_s_start_alone(engine: Engine) -> None:
    world = engine.world
    dead = await world.host("dead")
    await world.host("alive")
    scratch = await world.vm("scratch")
    await world.running(scratch, dead)
    death = await Death(engine, dead).build()
    first = await death.claim()
    assert first.left_down == ("scratch",)
    start = await engine.act(StartVm(vm_id=scratch))
    before = await engine.everything()
    assert await death.claim() == first
    assert await engine.everything() == before
    assert (await world.get("operation", start.operation_id))["state"] == "pending"
