"""What a test of fence devices finds, and what it keeps."""

from uuid import UUID, uuid4

import pytest

from activities.fence_checks import CheckStep, FenceChecks
from domain.errors import Refused
from domain.fence_checks import DeviceCheck, Identity
from domain.inventory import FenceDevice
from domain.orders import HostRef
from domain.profiles import Policy
from simulator.world.latency import Call
from tests.fakes import Bmc, DataCentre, FakeHypervisor, FakePower, lost_once

pytestmark = pytest.mark.unit


class Rows:
    """Fits `FenceCheckRecords`."""

    def __init__(self, *names: str) -> None:
        self.kept: tuple[DeviceCheck, ...] = ()
        self.held = tuple(
            FenceDevice(id=uuid4(), host_id=uuid4(), name=name, agent="fence_x", options={})
            for name in names
        )

    async def devices(self, host_id: UUID) -> tuple[FenceDevice, ...]:
        return self.held

    async def note_checks(self, host: HostRef, checks: tuple[DeviceCheck, ...]) -> None:
        self.kept = checks


class Scene:
    """One host with a BMC and an outlet."""

    def __init__(self, *names: str) -> None:
        self.centre = DataCentre()
        self.host = self.centre.add("h1")
        self.host.outlets["pdu-h1-1"] = True
        self.rows = Rows(*names)
        self.checks = FenceChecks(FakePower(self.centre), FakeHypervisor(self.centre), self.rows)
        ref = HostRef(host_id=uuid4(), name="h1", uri=self.host.uri, epoch=1)
        self.step = CheckStep(operation_id=uuid4(), host=ref, policy=Policy(connect_deadline_s=0.1))

    async def fails(self) -> str:
        with pytest.raises(Refused) as failed:
            await self.checks.check_devices(self.step)
        assert failed.value.next_step
        return f"{failed.value.code}: {failed.value.detail}"


async def test_devices_that_answer_for_this_machine_pass_with_their_times() -> None:
    scene = Scene("bmc-h1", "pdu-h1-1")
    said = await scene.checks.check_devices(scene.step)
    assert said == "bmc-h1: on in 0.0 s, machine same, pdu-h1-1: on in 0.0 s, machine untold"
    assert [check.identity for check in scene.rows.kept] == [Identity.SAME, Identity.UNTOLD]


async def test_a_silent_device_fails_the_test_and_all_are_kept() -> None:
    scene = Scene("bmc-h1", "pdu-h1-1")
    scene.host.bmc = Bmc.DEAD
    assert await scene.fails() == (
        "FENCE_TEST_FAILED: 1 of 2 fence devices of h1 could not be relied on:"
        " bmc-h1 does not answer"
    )
    assert [check.answers for check in scene.rows.kept] == [False, True]


async def test_a_controller_of_another_machine_is_found_though_it_answers() -> None:
    scene = Scene("bmc-h1")
    scene.host.managed = uuid4()
    assert (await scene.fails()).endswith("bmc-h1 manages another machine than this host")


async def test_a_device_that_reads_off_while_its_host_answers_is_wrong() -> None:
    scene = Scene("bmc-h1")
    scene.host.bmc = Bmc.LYING
    assert (await scene.fails()).endswith("bmc-h1 reads off though the host answers")


async def test_a_host_that_is_off_contradicts_nothing() -> None:
    scene = Scene("bmc-h1")
    scene.host.switch_off("bmc-h1")
    assert "bmc-h1: off" in await scene.checks.check_devices(scene.step)
    assert scene.rows.kept[0].identity is Identity.UNTOLD


@pytest.mark.parametrize("lost", [Call.BMC_READ, Call.OPEN])
async def test_one_answer_that_is_lost_is_no_reason_for_a_warning(lost: Call) -> None:
    scene = Scene("bmc-h1")
    scene.centre.before[lost] = lost_once()
    assert (await scene.checks.check_devices(scene.step)).endswith("machine same")


async def test_a_controller_that_does_not_say_what_it_manages_is_asked_again() -> None:
    scene = Scene("bmc-h1")
    scene.checks = FenceChecks(Forgetful(scene.centre), FakeHypervisor(scene.centre), scene.rows)
    scene.host.managed = uuid4()
    assert (await scene.fails()).endswith("bmc-h1 manages another machine than this host")


class Forgetful(FakePower):
    """The first time it is asked which machine it manages, it does not say."""

    asked = False

    async def machine(self, device: FenceDevice) -> tuple[UUID, ...]:
        """Nothing, then the truth."""
        known = await super().machine(device) if self.asked else ()
        self.asked = True
        return known


async def test_a_host_without_devices_has_nothing_to_test() -> None:
    assert await Scene().fails() == "NO_FENCE_DEVICE: h1 has no fence device"
