"""A person's word where no controller can prove a death: checked, kept, and enough."""

import pytest

from domain.errors import Refused
from engine.actions.confirmations import ConfirmHostDead
from tests.fakes import Bmc, Gate
from tests.workflow import failovers
from tests.workflow.bench import POLICY, Bench, quick
from tests.workflow.scenarios import finished

pytestmark = pytest.mark.workflow

SEEN = "I pulled its cords"


async def held(engine: Bench) -> None:
    """h1 is down with its controller, and its guests wait."""
    await failovers.guests(engine)
    h1 = engine.centre.hosts["h1"]
    h1.lose_power()
    h1.bmc = Bmc.DEAD


async def test_with_a_persons_word_the_vms_of_a_host_whose_controller_died_with_it_return(
    engine: Bench,
) -> None:
    operation = await failovers.a_person_confirms_what_no_controller_tells(engine)
    assert (await engine.operation(operation))["state"] == "succeeded"
    assert [len(engine.copies(vm)) for vm in ("db", "mail", "web")] == [1, 1, 1]
    (certificate,) = await engine.rows("death_certificate")
    said = [(fact["kind"], fact["device"], fact["verdict"]) for fact in certificate["evidence"]]
    assert said == [
        ("confirmation", "ann", "dead"),
        ("power_reading", "bmc-h1", "unknown"),
        ("libvirt_knock", "h1", "silent"),
    ]
    assert certificate["evidence"][0]["detail"] == SEEN
    assert await engine.broken() == []


async def test_a_word_about_a_host_that_takes_connections_starts_nothing(engine: Bench) -> None:
    await failovers.guests(engine)
    h1 = engine.centre.hosts["h1"]
    h1.bmc = Bmc.DEAD
    engine.watcher.blind.add("h1")  # alive, and our monitor alone does not hear it
    operation = await engine.report("h1")
    await engine.waits(operation, "BMC_NO_ANSWER")
    await engine.act(ConfirmHostDead(host_id=engine.hosts["h1"], reason=SEEN))
    row = await engine.waits(operation, "SIGN_OF_LIFE")
    assert "though ann says that it is dead" in row["waiting_for"]
    assert await engine.rows("death_certificate") == []
    assert engine.copies("db") == ["h1"]
    await engine.workflow(operation).cancel()
    await finished(engine, operation)


async def test_a_word_ends_a_fence_that_is_being_tried(engine: Bench) -> None:
    await held(engine)
    gate = engine.centre.before["bmc_off"] = Gate()  # which nobody opens
    operation = await engine.report("h1")
    await gate.reached.wait()
    await engine.act(ConfirmHostDead(host_id=engine.hosts["h1"], reason=SEEN))
    # Without another look there is none: the wait between looks is longer than any test.
    row = await engine.ended(operation)
    assert row["state"] == "succeeded", row["problem"]
    fences = await engine.children_of(operation, "host.fence")
    ends = [(fence["state"], (fence["problem"] or {}).get("code")) for fence in fences]
    assert ends == [("cancelled", "SUPERSEDED"), ("succeeded", None)]
    assert await engine.broken() == []


async def test_a_word_ends_the_waiting_for_a_controller_that_does_not_answer(
    engine: Bench,
) -> None:
    await held(engine)
    gate = engine.centre.before["bmc_read"] = Gate()  # which nobody opens
    operation = await engine.report("h1")
    await gate.reached.wait()
    engine.centre.before.pop("bmc_read")  # the next reading ends, as every reading does
    await engine.act(ConfirmHostDead(host_id=engine.hosts["h1"], reason=SEEN))
    row = await engine.ended(operation)
    assert row["state"] == "succeeded", row["problem"]
    assert len(await engine.children_of(operation, "host.fence")) == 1
    assert await engine.broken() == []


async def test_a_word_that_was_known_before_ends_no_later_fence(engine: Bench) -> None:
    await failovers.guests(engine)
    h1 = engine.centre.hosts["h1"]
    h1.reachable, h1.bmc = False, Bmc.DEAD
    # Between the looks there is time for the word, which has the host judged anew at once.
    with quick(POLICY.model_copy(update={"hold_retry_s": 60, "hold_retry_max_s": 60})):
        operation = await engine.report("h1")
    await engine.waits(operation, "BMC_NO_ANSWER")
    h1.bmc = Bmc.OK  # it reads on: the word is contradicted, and the power has to be cut
    await engine.act(ConfirmHostDead(host_id=engine.hosts["h1"], reason=SEEN))
    row = await engine.ended(operation)
    assert row["state"] == "succeeded", row["problem"]
    (certificate,) = await engine.rows("death_certificate")
    assert "confirmation" not in [fact["kind"] for fact in certificate["evidence"]]
    assert await engine.broken() == []


async def test_a_host_that_answers_is_refused_a_word(engine: Bench) -> None:
    await failovers.guests(engine)
    with pytest.raises(Refused, match="NO_OPEN_INCIDENT"):
        await engine.act(ConfirmHostDead(host_id=engine.hosts["h1"], reason=SEEN))
