"""A host with a BMC and two outlets is fenced level by level, and its VMs start elsewhere."""

from uuid import UUID

import pytest

from store import operations
from tests.fakes import Bmc
from tests.workflow import failovers
from tests.workflow.bench import Bench

pytestmark = pytest.mark.workflow


async def steps_of(engine: Bench, operation: UUID) -> list[str]:
    """The steps of the last fence, in order."""
    fence = (await engine.children_of(operation, "host.fence"))[-1]
    rows = await engine.database.read(lambda c: operations.steps(c, fence["id"]))
    return [row["name"] for row in rows]


WALKED = [
    "fencing.power_off",
    "fencing.read_level",
    "fencing.power_off",
    "fencing.read_level",
    "fencing.certify",
]


async def test_a_dead_controller_leads_to_the_outlets_that_prove_it(engine: Bench) -> None:
    operation = await failovers.a_dead_controller_leads_to_the_outlets(engine)
    assert (await engine.operation(operation))["state"] == "succeeded"
    assert await steps_of(engine, operation) == WALKED
    (certificate,) = await engine.rows("death_certificate")
    said = [(fact["device"], fact["verdict"]) for fact in certificate["evidence"]]
    outlets = [("pdu-h1-1", "off"), ("pdu-h1-2", "off")]
    assert said == [("bmc-h1", "unknown"), *outlets, ("h1", "silent")]
    assert not engine.centre.hosts["h1"].powered
    assert await engine.broken() == []


async def test_outlets_that_read_on_against_the_controller_are_cut_at_once(engine: Bench) -> None:
    operation = await failovers.the_outlets_are_cut_after_the_controller_has_read_off(engine)
    assert (await engine.operation(operation))["state"] == "succeeded"
    assert await steps_of(engine, operation) == WALKED
    (fence,) = await engine.children_of(operation, "host.fence")
    assert engine.centre.powered_off == ["h1"] * 3
    assert fence["state"] == "succeeded"
    assert await engine.broken() == []


async def test_one_outlet_of_two_proves_nothing_however_long_it_takes(engine: Bench) -> None:
    await failovers.guests(engine)
    for name in ("pdu-h1-1", "pdu-h1-2"):
        await engine.add_outlet("h1", name)
    h1 = engine.centre.hosts["h1"]
    h1.reachable, h1.bmc, h1.bmcs = False, Bmc.DEAD, {"pdu-h1-2": Bmc.DEAD}
    operation = await engine.report("h1")
    await engine.waits(operation, "BMC_NO_ANSWER")
    assert (h1.powered, await engine.rows("death_certificate")) == (True, [])
    h1.bmcs.clear()
    await engine.workflow(operation).signal("look_again")
    assert (await engine.ended(operation))["state"] == "succeeded"
    assert not h1.powered
    assert await engine.broken() == []


async def test_current_that_is_gone_for_all_but_the_controller_needs_no_cut(engine: Bench) -> None:
    await failovers.guests(engine)
    await engine.add_outlet("h1", "pdu-h1-1")
    engine.centre.hosts["h1"].lose_power()  # and with it the controller of its outlet
    operation = await engine.report("h1")
    assert (await engine.ended(operation))["state"] == "succeeded"
    assert engine.centre.powered_off == []
    assert await engine.broken() == []
