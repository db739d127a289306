"""Switching an empty host by plan, while answers are lost on the way."""

from collections import Counter
from uuid import UUID, uuid4

import pytest

from activities.host_power import HostPowers, PowerStep
from domain.errors import Conflict
from domain.inventory import FenceDevice, PowerReading
from domain.orders import HostRef
from domain.planned import HostPower
from domain.profiles import Policy
from domain.readings import DomainState
from simulator.world.latency import Call
from tests.fakes import Bmc, DataCentre, FakeDomain, FakeHypervisor, FakePower, lost_once

pytestmark = pytest.mark.unit


class Lossy(FakePower):
    """Loses answers of a device: those of which number is named."""

    lost: tuple[tuple[str, int], ...] = ()

    def __init__(self, centre: DataCentre) -> None:
        super().__init__(centre)
        self.asked = Counter[str]()

    async def read(self, device: FenceDevice) -> PowerReading:
        """What it says, or nothing."""
        self.asked[device.name] += 1
        found = await super().read(device)
        mine = (device.name, self.asked[device.name])
        return PowerReading.UNKNOWN if mine in self.lost else found


class Room:
    """A host with a BMC and an outlet behind it; fits `PowerRecords`."""

    def __init__(self) -> None:
        self.centre = DataCentre()
        self.host = self.centre.add("h1")
        self.host.mark = 1
        self.host.outlets["pdu-h1-1"] = True
        self.power = Lossy(self.centre)
        self.noted: list[HostPower] = []
        self.steps = HostPowers(FakeHypervisor(self.centre), self.power, self)
        ref = HostRef(host_id=uuid4(), name="h1", uri=self.host.uri, epoch=1)
        policy = Policy(connect_deadline_s=0.3, off_read_back_s=0.3, off_read_every_s=0.01)
        self.step = PowerStep(operation_id=uuid4(), host=ref, policy=policy)

    async def devices(self, host_id: UUID) -> tuple[FenceDevice, ...]:
        facts = {"host_id": host_id, "agent": "fence_x", "options": {}, "deadline_s": 0.05}
        return (
            FenceDevice(id=uuid4(), name="bmc-h1", **facts),
            FenceDevice(id=uuid4(), name="pdu-h1-1", level=2, **facts),
        )

    async def claim_power(self, step: PowerStep, power: HostPower) -> None:
        """It is ours."""

    async def note_power(self, step: PowerStep, power: HostPower, why: str) -> None:
        self.noted.append(power)

    async def begin_return(self, step: PowerStep) -> None:
        raise AssertionError("that is another step")


@pytest.mark.parametrize("lost", [1, 2])
async def test_a_bmc_that_misses_questions_switches_its_host_on_all_the_same(lost: int) -> None:
    room = Room()
    room.host.switch_off("bmc-h1")
    room.power.lost = tuple(("bmc-h1", number + 1) for number in range(lost))
    assert await room.steps.power_on_again(room.step) == "on: bmc-h1 reads on, pdu-h1-1 reads on"
    assert (room.host.powered, room.noted) == (True, [HostPower.ON])


async def test_a_bmc_that_goes_on_saying_nothing_is_made_up_for_by_its_outlet() -> None:
    room = Room()
    room.host.bmc = Bmc.DEAD
    said = await room.steps.power_on_again(room.step)
    assert said == "on: bmc-h1 reads unknown, pdu-h1-1 reads on"


async def test_a_guest_that_no_row_knows_of_is_found_though_one_question_was_lost() -> None:
    room = Room()
    room.host.domains[uuid4()] = FakeDomain(
        "stray", 64, generation=1, running=1, state=DomainState.RUNNING
    )
    room.centre.before[Call.OPEN] = lost_once()
    with pytest.raises(Conflict, match="HOST_NOT_EMPTY"):
        await room.steps.power_off_empty(room.step)
    assert (room.host.powered, room.noted) == (True, [])


async def test_a_host_that_is_off_already_is_not_waited_for() -> None:
    room = Room()
    room.host.switch_off("bmc-h1")
    assert await room.steps.power_off_empty(room.step) == "off: bmc-h1 reads off"
    assert room.power.asked["pdu-h1-1"] == 1
