"""An operation that goes on in a new run, since its history has grown long, forgets no cancel."""

import pytest
from temporalio import workflow

from activities.guests import PlaceOrder
from domain.orders import Placement
from engine.records.runs import RunRecords
from tests.fakes import Gate
from tests.workflow.bench import Bench
from tests.workflow.scenarios import cancel_is_known

pytestmark = pytest.mark.workflow


async def test_a_cancel_that_a_step_swallowed_ends_the_start_and_not_only_its_run(
    engine: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await engine.add_vm("big", "h1", memory_mib=1000)
    await engine.add_vm("db")
    operation = await engine.start("db", "h1")
    await engine.waits(operation, "NO_ROOM")
    gate, place = Gate(), RunRecords.place

    async def late(self: RunRecords, order: PlaceOrder) -> Placement:
        await gate()
        return await place(self, order)

    monkeypatch.setattr(RunRecords, "place", late)
    monkeypatch.setattr(workflow.Info, "is_continue_as_new_suggested", lambda _: gate.is_open)
    await engine.workflow(operation).signal("look_again")
    await gate.reached.wait()
    await engine.workflow(operation).cancel()
    await cancel_is_known(engine, operation)
    gate.open()
    assert (await engine.ended(operation))["state"] == "cancelled"
    assert engine.copies("db") == []
    assert await engine.broken() == []
