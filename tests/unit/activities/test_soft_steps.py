"""What each step of a soft step does with a host that is slow, gone, rebooted or back already."""

from uuid import UUID, uuid4

import pytest

from activities.soft_steps import Claimed, EndStep, Guest, RestartStep, SoftStep, SoftSteps
from domain.errors import Conflict, EngineError, NoAnswer
from domain.orders import HostRef
from domain.profiles import Policy
from domain.readings import Knock
from domain.soft_step import Hung
from domain.ssh_access import SshAccess
from simulator.world.host import Libvirtd
from tests.fakes import DataCentre, FakeDomain, FakeHypervisor, FakeSsh, Sshd
from tests.store.scenes import HOST_KEY

pytestmark = pytest.mark.unit
POLICY = Policy(connect_deadline_s=0.1, soft_restart_s=0.2, soft_answer_s=0.3)
HUNG = Hung(epoch=1, silent_s=20, door=Knock.OPEN, reported_by="m1")


class Rows:
    """Fits `SoftStepRecords`."""

    async def claim(self, step: SoftStep) -> Claimed:
        raise AssertionError("the claim is the store's, and tested there")

    forbidden = False

    async def ask_again(self, step: SoftStep) -> None:
        if self.forbidden:
            raise Conflict("SOFT_STEP_NOT_ALLOWED", "its step was given up", next_step="nothing")

    async def end(self, step: EndStep) -> None:
        raise AssertionError("so is the end")


class Scene:
    """One host that hangs, with one guest; its restart was claimed."""

    def __init__(self, hung: Hung | None = HUNG) -> None:
        self.centre = DataCentre()
        self.host = self.centre.add("h1")
        self.host.mark = 1
        self.guest = UUID(int=7)
        self.centre.run(self.host, self.guest, FakeDomain("db", 128, 1))
        self.host.set_libvirtd(Libvirtd.HUNG)
        hypervisor, self.ssh = FakeHypervisor(self.centre), FakeSsh(self.centre)
        self.rows = Rows()
        self.steps = SoftSteps(hypervisor, self.ssh, self.rows)
        ref = HostRef(host_id=uuid4(), name="h1", uri=self.host.uri, epoch=1)
        access = SshAccess(host_id=ref.host_id, address="h1", user="u", port=22, host_key=HOST_KEY)
        step = SoftStep(operation_id=uuid4(), attempt=1, host=ref, policy=POLICY, hung=hung)
        guests = (Guest(vm_id=self.guest, name="db"),)
        self.order = RestartStep(step=step, claimed=Claimed(access=access, guests=guests, why="x"))

    @property
    def restarts(self) -> int:
        return self.host.life - 1

    async def refused(self) -> str:
        with pytest.raises(EngineError) as failed:
            await self.steps.read_back(self.order)
        assert failed.value.next_step
        return failed.value.code


async def test_a_hung_libvirtd_is_restarted_and_read_back_with_its_guest() -> None:
    scene = Scene()
    assert await scene.steps.restart(scene.order) == "restarted as u at h1"
    said = await scene.steps.read_back(scene.order)
    assert said == "libvirt on h1 answers again; all 1 guests run on"
    assert scene.host.domains[scene.guest].process == 1, "its guest was touched"


async def test_what_is_repeated_after_its_effect_restarts_nothing_again() -> None:
    scene = Scene()
    await scene.steps.restart(scene.order)
    life = scene.host.life
    assert await scene.steps.restart(scene.order) == "libvirt answers already"
    assert scene.host.life == life


async def test_a_step_that_was_given_up_meanwhile_restarts_nothing() -> None:
    scene = Scene()
    scene.rows.forbidden = True
    with pytest.raises(Conflict):
        await scene.steps.restart(scene.order)
    assert scene.restarts == 0


async def test_a_person_has_a_libvirtd_restarted_that_answers() -> None:
    scene = Scene(hung=None)
    scene.host.set_libvirtd(Libvirtd.ALIVE)
    life = scene.host.life
    await scene.steps.restart(scene.order)
    assert scene.host.life > life


async def test_a_lost_answer_of_ssh_is_made_up_for_by_libvirt_itself() -> None:
    scene = Scene()

    async def cut() -> None:
        scene.host.set_libvirtd(Libvirtd.ALIVE)
        scene.host.sshd = Sshd.DOWN

    scene.centre.before["ssh_restart"] = cut
    assert "libvirt does" in await scene.steps.restart(scene.order)


async def test_no_answer_of_both_is_told() -> None:
    scene = Scene()
    scene.host.sshd = Sshd.DOWN
    with pytest.raises(NoAnswer) as failed:
        await scene.steps.restart(scene.order)
    assert failed.value.code == "SSH_NO_ANSWER"


async def test_a_host_of_another_boot_is_not_held_to_answer_already() -> None:
    scene = Scene()
    scene.host.set_libvirtd(Libvirtd.ALIVE)
    scene.host.mark = None
    life = scene.host.life
    await scene.steps.restart(scene.order)
    assert scene.host.life > life


async def test_a_libvirtd_that_stays_silent_is_told() -> None:
    assert await Scene().refused() == "LIBVIRT_STILL_SILENT"


async def test_a_host_that_has_rebooted_is_left_to_its_activation() -> None:
    scene = Scene()
    scene.host.reboot()
    assert await scene.refused() == "HOST_REBOOTED"


async def test_a_guest_that_is_gone_is_missed() -> None:
    scene = Scene()
    scene.host.end(scene.guest, "crashed")
    scene.host.set_libvirtd(Libvirtd.ALIVE)
    assert await scene.refused() == "GUESTS_MISSING"
