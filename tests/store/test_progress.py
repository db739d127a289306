"""How far a recovery is: the VMs that run again, of those that are to; and when it may end."""

from typing import Any
from uuid import UUID

import pytest

from activities.recovery import ReportOrder
from domain.operations import OperationState, Outcome
from engine.queries.operations import GetOperation, ListOperations
from store import incidents
from tests.store.engine_room import Engine
from tests.store.test_recovery_records import Death

pytestmark = pytest.mark.store

VMS = 4


class Recovery:
    """A recovery that has claimed four protected VMs, and one VM that is left down."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.world = engine, engine.world
        self.operation = UUID(int=0)

    async def build(self) -> "Recovery":
        world = self.world
        dead, _ = await world.host("dead", memory_mib=4096), await world.host(memory_mib=4096)
        for number in range(VMS):
            await world.running(await world.vm(f"vm-{number}", protected=True), dead)
        await world.running(await world.vm("scratch"), dead)
        self.death = await Death(self.engine, dead).build()
        self.operation = self.death.operation
        await world.do(incidents.link_operation, self.death.incident, self.operation)
        await self.engine.operations.claim(self.operation, 1, "run-1")
        return self

    async def told(self) -> Any:
        return await self.engine.backend.run_query(GetOperation(operation_id=self.operation))

    async def numbers(self) -> tuple[int | None, int | None]:
        view = await self.told()
        listed = await self.engine.backend.run_query(ListOperations(kind="host.recover"))
        (item,) = listed.items
        numbers = (view.progress_done, view.progress_total)
        assert (item.progress_done, item.progress_total) == numbers, "the list says the same"
        return numbers

    async def ends(self, number: int, state: str = "succeeded") -> Outcome:
        """One of the restarts ends."""
        child = (await self.death.children())[number]
        outcome = Outcome(operation_id=child["id"], state=OperationState(state))
        await self.engine.operations.close(outcome)
        return outcome


@pytest.fixture
async def recovery(engine: Engine) -> Recovery:
    return await Recovery(engine).build()


async def test_a_recovery_counts_its_vms_from_when_they_are_claimed(recovery: Recovery) -> None:
    assert await recovery.numbers() == (None, None), "nobody knows yet how many there are"
    await recovery.death.claim()
    assert await recovery.numbers() == (0, VMS)
    await recovery.ends(0)
    await recovery.ends(2)
    assert await recovery.numbers() == (2, VMS)
    await recovery.ends(1, "failed")
    assert await recovery.numbers() == (2, VMS), "one that failed does not run"


async def test_its_end_is_predicted_by_the_pace_of_the_restarts_alone(recovery: Recovery) -> None:
    world = recovery.world
    world.later(300)  # spent on proving the host dead
    await recovery.death.claim()
    began = world.now
    world.later(10)
    assert (await recovery.told()).predicted_end_at is None, "no pace yet"
    await recovery.ends(0)
    end = (await recovery.told()).predicted_end_at
    assert (end - began).total_seconds() == 10 * VMS


async def test_a_recovery_that_has_ended_keeps_its_numbers(recovery: Recovery) -> None:
    engine = recovery.engine
    await recovery.death.claim()
    outcomes = [await recovery.ends(number) for number in range(VMS - 1)]
    outcomes.append(await recovery.ends(VMS - 1, "failed"))
    order = ReportOrder(
        incident_id=recovery.death.incident,
        host=await engine.ref(recovery.death.host),
        returned=False,
        outcomes=tuple(outcomes),
    )
    await engine.recoveries.report(order)
    ended = Outcome(operation_id=recovery.operation, state=OperationState.FAILED)
    await engine.operations.close(ended)
    assert await recovery.numbers() == (VMS - 1, VMS)
    row = {row["id"]: row for row in await engine.rows("operation")}[recovery.operation]
    assert (row["progress_done"], row["progress_total"]) == (VMS - 1, VMS)
