"""Switching a host on whose BMC hangs on an outlet: it answers only once that has current."""

from uuid import UUID, uuid4

import pytest

from activities import hosts
from activities.hosts import Hosts, HostStep
from activities.ports import Claim
from domain.errors import NoAnswer
from domain.inventory import FenceDevice, PowerReading
from domain.orders import HostRef
from domain.profiles import Policy
from tests.fakes import DataCentre, FakeHypervisor

pytestmark = pytest.mark.unit

BOOTS_FOR = 3
"""Readings that the BMC leaves unanswered once it has current."""


class Rack:
    """Fits `PowerSwitch`: an outlet, the BMC that it feeds, and the host, which boots by its word.

    `dies`: the BMC never answers. `alone`: it has a supply of its own, and nothing else is known.
    """

    def __init__(self, *, dies: bool = False, alone: bool = False) -> None:
        self.centre = DataCentre()
        self.host = self.centre.add("h1")
        self.host.powered = False
        self.alone = alone
        self.outlet, self.dies, self.asked = alone, dies, 0
        self.commands: list[str] = []

    async def read(self, device: FenceDevice) -> PowerReading:
        if device.name == "pdu":
            return PowerReading.ON if self.outlet else PowerReading.OFF
        self.asked += self.outlet
        if self.dies or self.asked <= BOOTS_FOR:
            return PowerReading.UNKNOWN
        return PowerReading.ON if self.host.powered else PowerReading.OFF

    async def on(self, device: FenceDevice, claim: Claim | None = None) -> None:
        self.commands.append(device.name)
        if device.name == "pdu":
            self.outlet = True
        elif self.asked > BOOTS_FOR:
            self.host.get_power()
        else:
            raise NoAnswer("FENCE_AGENT_SILENT", "it boots")

    async def off(self, device: FenceDevice, claim: Claim | None = None) -> None:
        if claim is not None:
            await claim()
        raise AssertionError("nobody is cut")

    async def machine(self, device: FenceDevice) -> tuple[UUID, ...]:
        return ()

    async def devices(self, host_id: UUID) -> tuple[FenceDevice, ...]:
        facts = {"host_id": host_id, "agent": "fence_x", "options": {}}
        bmc = FenceDevice(id=uuid4(), name="bmc", **facts)
        pdu = FenceDevice(id=uuid4(), name="pdu", level=2, **facts)
        return (bmc,) if self.alone else (bmc, pdu)

    async def switched_on(self) -> str:
        ref = HostRef(host_id=uuid4(), name="h1", uri=self.host.uri, epoch=1)
        policy = Policy(connect_deadline_s=0.05)
        steps = Hosts(FakeHypervisor(self.centre), self, self)  # type: ignore[arg-type]
        return await steps.power_on(HostStep(operation_id=uuid4(), host=ref, policy=policy))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "BMC_POLL_S", 0.01)


async def test_the_bmc_is_waited_for_until_it_can_be_told() -> None:
    rack = Rack()
    assert await rack.switched_on() == "switched on: pdu, bmc"
    assert rack.commands == ["pdu", "bmc"]
    assert rack.host.powered


async def test_a_host_that_answers_needs_no_word_of_its_bmc() -> None:
    rack = Rack(dies=True)
    rack.outlet, rack.host.powered = True, True
    assert await rack.switched_on() == "already on; no answer from bmc"
    assert rack.commands == []


async def test_a_bmc_that_stays_silent_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "BMC_BOOTS_S", 0.1)
    rack = Rack(dies=True)
    assert await rack.switched_on() == "switched on: pdu; no answer from bmc"


async def test_a_bmc_that_misses_a_question_is_asked_again() -> None:
    rack = Rack(alone=True)
    assert await rack.switched_on() == "switched on: bmc"
    assert rack.host.powered


async def test_a_host_without_a_power_controller_is_not_called_on() -> None:
    assert await Bare().switched_on() == "no power controller"


class Bare(Rack):
    """Nothing is known that could switch it."""

    async def devices(self, host_id: UUID) -> tuple[FenceDevice, ...]:
        return ()
