"""Bringing a host back whose cut may still take effect, and what a later try does first."""

import asyncio
from datetime import datetime
from uuid import UUID, uuid4

import pytest
from temporalio import activity

from activities import rehearsing
from activities.rehearsing import BackOrder, RehearsalStep, Rehearsing
from domain.errors import Refused
from domain.fence_checks import DeviceCheck
from domain.inventory import FenceDevice
from domain.orders import HostRef
from domain.profiles import Policy
from domain.rehearsal import LevelBack, LevelOff, Rehearsed
from simulator.world.latency import Call
from store.rehearsals import BACK_STEP, CUT_STEP
from tests.fakes import Bmc, DataCentre, FakeHypervisor, FakePower, lost_once

pytestmark = pytest.mark.unit

SETTLES_S = 0.2
NOT_READ_OFF = LevelOff(level=1, read_off=False, why="not within 10 s")


class Room:
    """A marked host with one BMC; fits `RehearsalRecords`."""

    def __init__(self) -> None:
        self.centre = DataCentre()
        self.host = self.centre.add("h1")
        self.host.mark = 1
        facts = {"agent": "fence_x", "options": {}, "deadline_s": 0.05}
        self.device = FenceDevice(id=uuid4(), host_id=uuid4(), name="bmc-h1", **facts)
        self.power = FakePower(self.centre)
        self.noted: list[Rehearsed] = []
        self.cut: tuple[int, ...] = ()
        self.claims = 0  # how many of them are granted
        self.forgotten = 0
        self.steps = Rehearsing(self.power, FakeHypervisor(self.centre), self)

    async def devices(self, host_id: UUID) -> tuple[FenceDevice, ...]:
        return (self.device,)

    async def note_checks(self, host: HostRef, checks: tuple[DeviceCheck, ...]) -> None:
        assert all(check.answers for check in checks)

    async def cut_levels(self, host: HostRef) -> tuple[int, ...]:
        return self.cut

    async def forget(self, step: RehearsalStep) -> None:
        self.forgotten += 1

    async def claim_cut(self, step: RehearsalStep, devices: tuple[UUID, ...], at: datetime) -> None:
        self.claims -= 1
        if self.claims < 0:
            raise Refused("REHEARSAL_NOT_ALLOWED", "the host is in service again")

    async def note_back(self, step: RehearsalStep, back: LevelBack, at: datetime) -> None:
        self.noted.append(back.verdict)

    def step(self, level: int = 1, attempt: int = 1) -> RehearsalStep:
        ref = HostRef(host_id=self.device.host_id, name="h1", uri=self.host.uri, epoch=1)
        policy = Policy(
            connect_deadline_s=0.2,
            power_on_answer_s=0.5,
            off_settles_s=SETTLES_S,
            off_read_back_s=0.2,
        )
        return RehearsalStep(
            operation_id=uuid4(), host=ref, policy=policy, level=level, attempt=attempt
        )


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearsing, "POLL_S", 0.01)


@pytest.mark.parametrize("off", [None, NOT_READ_OFF])
async def test_a_host_whose_cut_comes_late_is_not_said_to_be_back_before_it(
    off: LevelOff | None,
) -> None:
    room = Room()
    boot = room.host.boot
    room.host.bmc = Bmc.SLOW  # it takes the command, and cuts at its third reading
    await room.power.off(room.device)
    room.host.bmc = Bmc.OK
    await room.steps.bring_back(BackOrder(step=room.step(), off=off))
    assert (room.host.powered, room.host.boot - boot) == (True, 1)
    assert room.noted == [Rehearsed.FAILED]


@pytest.mark.parametrize(("off", "least_s"), [(None, SETTLES_S), (NOT_READ_OFF, SETTLES_S)])
async def test_the_boot_that_was_marked_has_to_answer_for_as_long_as_a_cut_may_take(
    off: LevelOff | None, least_s: float
) -> None:
    room = Room()
    clock = asyncio.get_running_loop().time
    began = clock()
    await room.steps.bring_back(BackOrder(step=room.step(), off=off))
    assert clock() - began >= least_s
    assert (room.noted, room.host.mark) == ([Rehearsed.FAILED], 1)


async def test_a_device_that_is_slower_than_that_is_waited_for() -> None:
    room = Room()
    room.device = room.device.model_copy(update={"deadline_s": 2 * SETTLES_S})
    clock = asyncio.get_running_loop().time
    began = clock()
    await room.steps.bring_back(BackOrder(step=room.step()))
    assert clock() - began >= 2 * SETTLES_S


@pytest.mark.parametrize(("attempt", "powered"), [(1, False), (2, True)])
async def test_a_later_try_brings_back_what_an_earlier_one_has_left_cut(
    attempt: int, powered: bool
) -> None:
    room = Room()
    room.host.switch_off("bmc-h1")
    room.cut = (1,)
    for _twice in range(2):
        assert await room.steps.begin(room.step(level=0, attempt=attempt)) == (1,)
        assert room.host.powered is powered


@pytest.mark.parametrize(("claims", "powered"), [(1, True), (2, False)])
async def test_a_cut_is_claimed_once_more_when_its_device_is_about_to_take_it(
    claims: int, powered: bool
) -> None:
    room = Room()
    room.claims = claims
    found = await room.steps.cut(room.step())
    assert (room.host.powered, found.read_off) == (powered, not powered)


async def test_a_door_that_could_not_be_tried_once_is_tried_again() -> None:
    room = Room()
    room.claims = 2
    room.centre.before[Call.KNOCK] = lost_once()
    found = await room.steps.cut(room.step())
    assert (found.read_off, found.silent, found.why) == (True, True, "")


async def test_a_host_that_misses_one_question_is_marked_all_the_same() -> None:
    room = Room()
    room.host.reboot()
    room.centre.before[Call.OPEN] = lost_once()
    await room.steps.mark(room.step())
    marked: int | None = room.host.mark
    assert marked == 1
    assert room.forgotten == 1


async def test_a_host_that_goes_on_saying_nothing_is_not_cut() -> None:
    room = Room()
    room.host.reachable = False
    with pytest.raises(Refused, match="HOST_NO_ANSWER"):
        await room.steps.mark(room.step())
    assert room.forgotten == 0


async def test_a_cut_that_may_not_be_made_is_refused_before_anything() -> None:
    room = Room()
    with pytest.raises(Refused) as found:
        await room.steps.cut(room.step())
    assert (found.value.code, room.host.powered) == ("REHEARSAL_NOT_ALLOWED", True)


def test_the_steps_by_which_the_rows_know_how_far_a_try_is_are_called_so() -> None:
    names = [
        activity._Definition.must_from_callable(s).name
        for s in (Rehearsing.cut, Rehearsing.bring_back)
    ]
    assert names == [CUT_STEP, BACK_STEP]
