"""The knock before a certificate: what counts as silence, and what stays on record."""

from contextlib import suppress
from uuid import UUID, uuid4

import pytest

from activities.fencing import CertifyOrder, FenceStep, Fencing
from domain.errors import NoAnswer, Refused
from domain.inventory import FenceDevice, PowerReading, Silence
from domain.orders import Certificate, Evidence, HostRef
from domain.profiles import Profile, policy_for
from domain.readings import Knock
from tests.fakes import Bmc, DataCentre, FakeHost, FakeHypervisor, FakePower

pytestmark = pytest.mark.unit


class Rows:
    """Fits `FenceRecords` for reading back: one device, and the evidence that was kept."""

    def __init__(self, host: FakeHost) -> None:
        self.device = FenceDevice(
            id=uuid4(), host_id=uuid4(), name=f"bmc-{host.name}", agent="fence_fake", options={}
        )
        self.kept: list[Evidence] = []

    async def devices(self, host_id: object) -> tuple[FenceDevice, ...]:
        return (self.device,)

    async def given_up(self, incident_id: UUID) -> frozenset[str]:
        return frozenset()

    async def words(self, incident_id: UUID) -> int:
        return 0

    async def words_known(self, operation_id: UUID) -> int:
        return 0

    async def claim_fence(self, step: FenceStep) -> None:
        raise AssertionError("reading back claims no fence")

    async def add_evidence(self, step: FenceStep, evidence: tuple[Evidence, ...]) -> None:
        self.kept += evidence

    async def certify(self, order: CertifyOrder) -> Certificate:
        raise AssertionError("reading back certifies nothing")


class Scene:
    """A host that reads off, truly or not, and the step that reads it back."""

    def __init__(self) -> None:
        self.centre = DataCentre()
        self.host = self.centre.add("h1")
        self.rows = Rows(self.host)
        self.fencing = Fencing(FakePower(self.centre), FakeHypervisor(self.centre), self.rows)
        ref = HostRef(host_id=uuid4(), name="h1", uri=self.host.uri, epoch=1)
        self.step = FenceStep(
            operation_id=uuid4(),
            host=ref,
            incident_id=uuid4(),
            policy=policy_for(Profile.BALANCED, off_read_back_s=5.0),
        )

    def kinds(self) -> list[str]:
        return [fact.kind for fact in self.rows.kept]


@pytest.fixture
def scene() -> Scene:
    return Scene()


async def test_a_host_without_power_is_silent_and_its_silence_is_kept(scene: Scene) -> None:
    scene.host.lose_power()
    evidence = await scene.fencing.read_back(scene.step)
    assert [fact.verdict for fact in evidence] == [PowerReading.OFF, Silence.SILENT]
    assert scene.kinds()[-1] == "libvirt_knock"
    assert evidence[-1].detail == scene.host.uri, "whose door was silent"


async def test_an_unreachable_host_whose_controller_lies_is_silent(scene: Scene) -> None:
    scene.host.bmc, scene.host.reachable = Bmc.LYING, False
    assert (await scene.fencing.read_back(scene.step))[-1].verdict is Silence.SILENT


async def test_a_frozen_libvirtd_is_a_sign_of_life(scene: Scene) -> None:
    scene.host.bmc, scene.host.frozen = Bmc.LYING, True
    with pytest.raises(Refused, match="takes connections") as alive:
        await scene.fencing.read_back(scene.step)
    assert alive.value.code == "SIGN_OF_LIFE"
    assert "libvirt_knock" not in scene.kinds()


class Door(FakeHypervisor):
    """A host whose door gives what the test says."""

    sign: Knock | NoAnswer = Knock.SILENT

    async def knock(self, uri: str, deadline_s: float) -> Knock:
        """As told."""
        if isinstance(self.sign, NoAnswer):
            raise self.sign
        return self.sign


@pytest.mark.parametrize("sign", sorted(set(Knock) - {Knock.SILENT}))
async def test_whatever_comes_back_from_the_door_is_a_sign_of_life(
    scene: Scene, sign: Knock
) -> None:
    door = Door(scene.centre)
    door.sign = sign
    scene.host.lose_power()
    with pytest.raises(Refused) as alive:
        await Fencing(FakePower(scene.centre), door, scene.rows).read_back(scene.step)
    assert alive.value.code == "SIGN_OF_LIFE"
    assert "libvirt_knock" not in scene.kinds()


async def test_a_knock_that_was_not_possible_is_tried_again_and_proves_nothing(
    scene: Scene,
) -> None:
    door = Door(scene.centre)
    door.sign = NoAnswer("KNOCK_NOT_POSSIBLE", "the name of h1 is not known")
    scene.host.lose_power()
    with pytest.raises(NoAnswer) as untried:
        await Fencing(FakePower(scene.centre), door, scene.rows).read_back(scene.step)
    assert (untried.value.code, untried.value.retryable) == ("KNOCK_NOT_POSSIBLE", True)
    assert "libvirt_knock" not in scene.kinds()


class Cutting(Rows):
    """Lets the device be cut."""

    async def claim_fence(self, step: FenceStep) -> None:
        """It is ours."""


@pytest.mark.parametrize(("bmc", "said"), [(Bmc.DEAD, [PowerReading.UNKNOWN]), (Bmc.OK, [])])
async def test_a_controller_that_says_nothing_before_its_cut_has_missed_one_more_question(
    scene: Scene, bmc: Bmc, said: list[PowerReading]
) -> None:
    scene.rows = Cutting(scene.host)
    scene.fencing = Fencing(FakePower(scene.centre), FakeHypervisor(scene.centre), scene.rows)
    scene.host.bmc = bmc
    with suppress(NoAnswer):
        await scene.fencing.power_off(scene.step)
    assert [fact.verdict for fact in scene.rows.kept] == said
