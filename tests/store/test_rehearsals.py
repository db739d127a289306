"""What a rehearsal may cut stands in one statement, and each of its conditions is asked."""

from collections.abc import Awaitable, Callable
from uuid import UUID

import pytest

from activities.rehearsing import RehearsalStep
from domain.errors import Refused
from domain.operations import OperationState
from domain.profiles import Policy
from domain.rehearsal import LevelBack, Rehearsed
from engine.actions.rehearsals import RehearseFencing
from engine.records.operations import StepRecords
from engine.records.rehearsals import RehearsalRecords
from tests.store.engine_room import Engine

pytestmark = pytest.mark.store


class Room:
    """A host in maintenance with one device, and a rehearsal of it."""

    def __init__(self, engine: Engine, host: UUID, device: UUID, operation: UUID) -> None:
        self.engine, self.host, self.device, self.operation = engine, host, device, operation
        self.records = RehearsalRecords(engine.world.database)
        self.steps = 0

    async def step(self) -> RehearsalStep:
        ref = await self.engine.ref(self.host)
        return RehearsalStep(operation_id=self.operation, host=ref, policy=Policy(), level=1)

    async def claim(self) -> None:
        await self.records.claim_cut(await self.step(), (self.device,), self.engine.world.now)

    async def come_back(self) -> None:
        back = LevelBack(level=1, verdict=Rehearsed.PROVEN, said="it cuts this host")
        await self.records.note_back(await self.step(), back, self.engine.world.now)

    async def begins(self, *names: str) -> None:
        """Steps of the rehearsal are written down as begun, as each worker does."""
        steps = StepRecords(self.engine.world.database, self.engine.world.clock)
        for name in names:
            self.steps += 1
            await steps.begin(self.operation, 1, str(self.steps), name, 1, 60.0)

    async def shown(self) -> str | None:
        row = await self.engine.world.get("fence_device", self.device)
        found: str | None = row["rehearsal"]
        return found


async def room(engine: Engine) -> Room:
    world = engine.world
    host = await world.host(state="maintenance")
    operation = await world.operation(host, kind="host.rehearse_fencing", state="running")
    return Room(engine, host, await world.device(host, "bmc1"), operation)


async def stands(engine: Engine, host: UUID) -> None:
    """A VM whose run nobody has closed, on a host in maintenance."""
    await engine.world.put("host", host, state="up")
    await engine.world.placed(await engine.world.vm("vm1"), host)
    await engine.world.put("host", host, state="maintenance")


async def leaves_maintenance(made: Room) -> None:
    await made.engine.world.put("host", made.host, state="reconciling")


async def runs_the_engine(made: Room) -> None:
    await made.engine.world.put("host", made.host, own_host=True)


async def gets_a_vm(made: Room) -> None:
    await stands(made.engine, made.host)


async def is_over(made: Room) -> None:
    await made.engine.world.put("operation", made.operation, state=OperationState.CANCELLED.value)


async def is_tried_anew(made: Room) -> None:
    await made.engine.world.put("operation", made.operation, attempt=2)


async def loses_its_device(made: Room) -> None:
    other = await made.engine.world.host("h2")
    await made.engine.world.put("fence_device", made.device, host_id=other)


async def manages_another_machine(made: Room) -> None:
    await made.engine.world.put("fence_device", made.device, test_identity="other")


async def test_a_cut_is_written_down_before_it_is_done_and_its_end_replaces_it(
    engine: Engine,
) -> None:
    made = await room(engine)
    for _twice in range(2):
        await made.claim()
        assert await made.shown() == "cut"
    assert await made.records.cut_levels(await engine.ref(made.host)) == (1,)
    await made.come_back()
    assert await made.shown() == "proven"
    assert await made.records.cut_levels(await engine.ref(made.host)) == ()


async def test_a_cut_that_was_held_up_is_refused_once_its_level_is_back(engine: Engine) -> None:
    made = await room(engine)
    await made.claim()
    await made.come_back()
    with pytest.raises(Refused, match="REHEARSAL_NOT_ALLOWED"):
        await made.claim()
    assert await made.shown() == "proven"


async def test_a_cut_that_was_held_up_is_refused_once_its_level_is_being_brought_back(
    engine: Engine,
) -> None:
    made = await room(engine)
    await made.begins("rehearsal.mark", "rehearsal.cut")
    await made.claim()
    await made.begins("rehearsal.bring_back")
    with pytest.raises(Refused, match="REHEARSAL_NOT_ALLOWED"):
        await made.claim()  # the host answers, and this is not written down yet
    assert await made.shown() == "cut"


async def test_a_mark_that_was_held_up_erases_no_verdict_of_its_own_try(engine: Engine) -> None:
    made = await room(engine)
    await engine.world.put("fence_device", made.device, rehearsal="failed")
    await made.begins("rehearsal.mark")
    for _twice in range(2):
        await made.records.forget(await made.step())
        assert await made.shown() is None
    await made.begins("rehearsal.cut")
    await made.claim()
    await made.begins("rehearsal.bring_back")
    await made.come_back()
    await made.begins("rehearsal.mark")  # of the next level
    await made.records.forget(await made.step())
    assert await made.shown() == "proven"


async def test_each_level_has_its_turn_also_where_levels_are_left_out(engine: Engine) -> None:
    made = await room(engine)
    other = await engine.world.device(made.host, "pdu")
    await engine.world.put("fence_device", other, level=7, rehearsal="proven")
    first = await made.step()
    later = first.model_copy(update={"level": 7})
    await made.begins("rehearsal.mark", "rehearsal.cut")
    await made.claim()
    await made.begins("rehearsal.bring_back")
    await made.come_back()
    await made.begins("rehearsal.mark")
    await made.records.forget(later)
    await made.begins("rehearsal.cut")
    for _twice in range(2):
        await made.records.claim_cut(later, (other,), engine.world.now)
    assert await made.records.cut_levels(first.host) == (7,)
    assert await made.shown() == "proven"


async def test_a_new_try_forgets_what_was_shown_and_may_cut_again(engine: Engine) -> None:
    made = await room(engine)
    await made.claim()
    await made.records.forget(await made.step())
    assert await made.shown() == "cut"  # that it is not known to be back is not forgotten
    await made.come_back()
    for _twice in range(2):
        await made.records.forget(await made.step())
        assert await made.shown() is None
    await made.claim()
    assert await made.shown() == "cut"


async def test_a_try_that_is_over_forgets_nothing(engine: Engine) -> None:
    made = await room(engine)
    await made.claim()
    await made.come_back()
    await is_tried_anew(made)
    await made.records.forget(await made.step())
    assert await made.shown() == "proven"


@pytest.mark.parametrize("ends", [is_over, is_tried_anew])
async def test_a_try_that_is_over_says_nothing_of_a_cut_that_came_after_it(
    engine: Engine, ends: Callable[[Room], Awaitable[None]]
) -> None:
    made = await room(engine)
    await made.claim()
    await ends(made)
    await made.come_back()
    assert await made.shown() == "cut"


async def test_a_level_of_which_a_device_is_gone_is_not_written_down_in_part(
    engine: Engine,
) -> None:
    made = await room(engine)
    gone = await engine.world.device(await engine.world.host("h2"), "bmc2")
    ref = await engine.ref(made.host)
    step = RehearsalStep(operation_id=made.operation, host=ref, policy=Policy(), level=1)
    with pytest.raises(Refused):
        await made.records.claim_cut(step, (made.device, gone), engine.world.now)
    assert await made.shown() is None


@pytest.mark.parametrize(
    "happens",
    [
        leaves_maintenance,
        runs_the_engine,
        gets_a_vm,
        is_over,
        is_tried_anew,
        loses_its_device,
        manages_another_machine,
    ],
)
async def test_nothing_is_cut_once_a_condition_does_not_hold(
    engine: Engine, happens: Callable[[Room], Awaitable[None]]
) -> None:
    made = await room(engine)
    await happens(made)
    with pytest.raises(Refused, match="REHEARSAL_NOT_ALLOWED") as refused:
        await made.claim()
    assert refused.value.next_step.startswith("nothing was cut")
    assert await made.shown() is None


async def test_each_reason_against_a_rehearsal_is_told_at_once(engine: Engine) -> None:
    world = engine.world
    host = await world.host(state="maintenance", own_host=True)
    await stands(engine, host)
    refused = await engine.refusal(RehearseFencing(host_id=host))
    codes = {problem.code for problem in (refused, *getattr(refused, "problems", ()))}
    assert codes >= {"OWN_HOST", "HOST_NOT_EMPTY", "NO_FENCE_DEVICE"}, codes
