"""A host in maintenance is really switched off and on, and always comes back or says that not."""

from datetime import datetime, timedelta
from uuid import UUID

import pytest

from domain.errors import EngineError
from engine.actions.operations import CancelOperation
from engine.actions.rehearsals import RehearseFencing
from engine.clock import utc_now
from engine.records.rehearsals import RehearsalRecords
from engine.sweeper import Sweeper
from store import inventory
from tests.fakes import Bmc, Gate
from tests.workflow import rehearsals
from tests.workflow.bench import Bench
from worker.temporal_client import TemporalWorkflows

pytestmark = pytest.mark.workflow


async def shown(engine: Bench) -> dict[str, str | None]:
    """What the devices of h1 are known for."""
    rows = await engine.database.read(
        lambda c: inventory.listing(c, "fence_device", host_id=engine.hosts["h1"])
    )
    return {row["name"]: row["rehearsal"] for row in rows}


async def failure(engine: Bench, operation: UUID) -> tuple[str, str, str]:
    row = await engine.operation(operation)
    assert row["problem"]["next_step"]
    return row["state"], row["problem"]["code"], row["problem"]["detail"]


async def test_each_level_is_cut_and_the_host_comes_back_as_another_boot(engine: Bench) -> None:
    boot = engine.centre.hosts.get("h1")
    assert boot is not None
    before = boot.boot
    operation = await rehearsals.each_level_is_cut_and_brought_back(engine)
    row = await engine.operation(operation)
    assert (row["state"], row["summary"]) == (
        "succeeded",
        "level 1 (bmc-h1) cuts this host; level 2 (pdu-h1-1) cuts this host",
    )
    assert await shown(engine) == {"bmc-h1": "proven", "pdu-h1-1": "proven"}
    h1 = engine.centre.hosts["h1"]
    assert (h1.powered, h1.boot - before) == (True, 2)
    assert engine.centre.powered_off == ["h1", "h1"]
    assert (await engine.host("h1"))["state"] == "maintenance"
    assert await engine.broken() == []


async def test_a_device_that_cuts_another_machine_is_found_and_that_one_is_put_back(
    engine: Bench,
) -> None:
    operation = await rehearsals.an_outlet_that_feeds_another_host_is_found(engine)
    state, code, detail = await failure(engine, operation)
    assert (state, code) == ("failed", "FENCE_TEST_FAILED")
    assert "level 2 (pdu-h1-1) read off: this device cuts another machine" in detail
    assert await shown(engine) == {"bmc-h1": "proven", "pdu-h1-1": "other"}
    assert engine.centre.powered_off == ["h1", "h2"]
    assert all(engine.centre.hosts[name].powered for name in ("h1", "h2"))


async def test_a_device_that_fails_when_it_is_needed_is_known_as_such(engine: Bench) -> None:
    operation = await rehearsals.a_controller_that_dies_when_it_is_told_fails_its_rehearsal(engine)
    state, code, detail = await failure(engine, operation)
    assert (state, code) == ("failed", "FENCE_TEST_FAILED")
    assert "level 1 (bmc-h1) did not read off: bmc-h1 does not answer" in detail
    assert await shown(engine) == {"bmc-h1": "failed"}
    assert engine.centre.hosts["h1"].powered


async def test_a_host_that_stays_away_is_not_forgotten(engine: Bench) -> None:
    operation = await rehearsals.a_host_that_does_not_come_back_needs_a_person(engine)
    state, code, detail = await failure(engine, operation)
    assert (state, code) == ("needs_attention", "HOST_LEFT_OFF")
    assert "h1 was cut at level 1 and is not back after" in detail
    assert await shown(engine) == {"bmc-h1": "cut"}


async def test_a_guest_of_somebody_else_keeps_its_host_on(engine: Bench) -> None:
    operation = await rehearsals.a_host_with_a_guest_is_not_cut(engine)
    state, code, detail = await failure(engine, operation)
    assert (state, code) == ("failed", "HOST_NOT_EMPTY")
    assert "somebodys" in detail
    assert engine.centre.powered_off == []


async def test_who_cancels_a_rehearsal_gets_the_host_back(engine: Bench) -> None:
    operation = await rehearsals.a_rehearsal_is_cancelled_while_its_host_is_off(engine)
    row = await engine.operation(operation)
    assert (row["state"], row["summary"]) == ("cancelled", "h1 is on")
    assert engine.centre.hosts["h1"].powered
    assert (await shown(engine))["bmc-h1"] != "cut"


async def left_off(engine: Bench) -> UUID:
    """A rehearsal whose workflow is ended by force while its host is off."""
    gate = Gate()

    async def hold() -> None:
        if not engine.centre.hosts["h1"].powered:
            await gate()

    engine.centre.before["bmc_read"] = hold
    operation = await rehearsals.rehearse(engine)
    await gate.reached.wait()
    await engine.workflow(operation).terminate("by the test")
    engine.centre.before.pop("bmc_read")
    assert not engine.centre.hosts["h1"].powered
    return operation


async def sweep(engine: Bench) -> None:
    """Find that, once no step can be at work any more."""
    workflows = TemporalWorkflows(engine.client)

    def later() -> datetime:
        return utc_now() + timedelta(hours=1)

    sweeper = Sweeper(engine.database, engine.backend, workflows, clock=later, every_s=0)
    assert await sweeper.sweep() == 1
    await engine.backend.close()


async def test_a_rehearsal_that_is_ended_while_its_host_is_off_is_begun_again(
    engine: Bench,
) -> None:
    operation = await left_off(engine)
    await sweep(engine)
    row = await engine.ended(operation)
    assert (row["attempt"], row["state"]) == (2, "succeeded"), row["problem"]
    assert engine.centre.hosts["h1"].powered
    assert await shown(engine) == {"bmc-h1": "proven"}


async def test_one_that_is_begun_again_and_cannot_switch_its_host_on_needs_a_person(
    engine: Bench,
) -> None:
    operation = await left_off(engine)
    engine.centre.hosts["h1"].reachable = False
    await sweep(engine)
    await engine.ended(operation)
    state, code, detail = await failure(engine, operation)
    assert (state, code) == ("needs_attention", "HOST_LEFT_OFF"), detail
    assert await shown(engine) == {"bmc-h1": "cut"}


async def test_a_cancelled_one_that_is_ended_says_that_its_host_may_be_off(engine: Bench) -> None:
    operation = await left_off(engine)
    await engine.act(CancelOperation(operation_id=operation))
    await sweep(engine)
    state, code, detail = await failure(engine, operation)
    assert (state, code) == ("needs_attention", "HOST_LEFT_OFF")
    assert "h1 was cut by bmc-h1" in detail
    row = await engine.operation(operation)
    assert row["summary"] == "h1 may be off: bmc-h1 cut it"


async def test_whatever_keeps_a_host_from_coming_back_it_needs_a_person(
    engine: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def break_down(*_args: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(RehearsalRecords, "note_back", break_down)
    operation = await rehearsals.each_level_is_cut_and_brought_back(engine)
    state, code, detail = await failure(engine, operation)
    assert (state, code) == ("needs_attention", "HOST_LEFT_OFF")
    assert "h1 was cut at level 1, and it is not known to be back: " in detail


async def test_a_device_known_to_be_wrong_is_not_tried(engine: Bench) -> None:
    engine.centre.hosts["h1"].managed = UUID(int=7)
    operation = await rehearsals.each_level_is_cut_and_brought_back(engine)
    assert "manages another machine" in (await failure(engine, operation))[2]
    assert engine.centre.powered_off == []


async def test_only_a_host_in_maintenance_is_rehearsed_on(engine: Bench) -> None:
    with pytest.raises(EngineError, match="only a host in maintenance") as refused:
        await engine.act(RehearseFencing(host_id=engine.hosts["h1"]))
    assert refused.value.next_step == "holdfast host maintain h1"
    engine.centre.hosts["h1"].bmc = Bmc.OK
    assert engine.centre.powered_off == []
