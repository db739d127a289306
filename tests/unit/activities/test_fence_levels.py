"""A fence level by level: what is cut, what is read, and for whom it waits."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID, uuid4

import pytest

from activities import power as asking
from activities.fencing import FenceStep, Fencing, ReadLevelOrder
from activities.ports import Claim
from activities.power import ask
from domain.errors import NoAnswer, Refused
from domain.inventory import FenceDevice, PowerReading
from domain.orders import Certificate, Evidence, HostRef
from domain.profiles import Profile, policy_for
from simulator.loop import VirtualLoop
from tests.fakes import DataCentre, FakeHypervisor

pytestmark = pytest.mark.unit

OFF, ON, UNKNOWN = PowerReading.OFF, PowerReading.ON, PowerReading.UNKNOWN


def device(name: str, level: int = 1, *, delay_s: float = 0, retries: int = 0) -> FenceDevice:
    return FenceDevice(
        id=uuid4(),
        host_id=uuid4(),
        name=name,
        agent="fence_fake",
        options={},
        level=level,
        delay_s=delay_s,
        retries=retries,
    )


class Board:
    """Fits `PowerSwitch`: each device reads what is written here, and notes what it was told."""

    def __init__(self, **reads: PowerReading) -> None:
        self.reads = reads
        self.dead: set[str] = set()  # take no command
        self.stuck: set[str] = set()  # take the command and stay as they are
        self.hanging: set[str] = set()  # are read for ever
        self.failing: dict[str, int] = {}  # commands that get no answer
        self.unheard: dict[str, int] = {}  # readings that get no answer
        self.told: list[str] = []

    async def read(self, device: FenceDevice) -> PowerReading:
        if device.name in self.hanging:
            await asyncio.sleep(60)
        if self.unheard.get(device.name, 0) > 0:
            self.unheard[device.name] -= 1
            return UNKNOWN
        return self.reads[device.name]

    async def off(self, device: FenceDevice, claim: Claim | None = None) -> None:
        if claim is not None:
            await claim()
        self.told.append(device.name)
        if self.failing.get(device.name, 0) > 0:
            self.failing[device.name] -= 1
            raise NoAnswer("BMC_NO_ANSWER", f"{device.name} does not answer")
        if device.name in self.dead:
            raise NoAnswer("BMC_NO_ANSWER", f"{device.name} does not answer")
        if device.name not in self.stuck:
            self.reads[device.name] = OFF

    async def on(self, device: FenceDevice, claim: Claim | None = None) -> None:
        raise AssertionError("a fence switches nothing on")

    async def machine(self, device: FenceDevice) -> tuple[UUID, ...]:
        raise AssertionError("a fence asks for no machine")


class Rows:
    """Fits `FenceRecords`."""

    def __init__(self, *devices: FenceDevice) -> None:
        self.held = devices
        self.claims = 0
        self.claims_max = 99
        self.kept: list[Evidence] = []

    async def devices(self, host_id: object) -> tuple[FenceDevice, ...]:
        return self.held

    async def given_up(self, incident_id: UUID) -> frozenset[str]:
        return frozenset()

    async def words(self, incident_id: UUID) -> int:
        return 0

    async def words_known(self, operation_id: UUID) -> int:
        return 0

    async def claim_fence(self, step: FenceStep) -> None:
        if self.claims == self.claims_max:
            raise Refused("FENCE_NOT_ALLOWED", "not now")
        self.claims += 1

    async def add_evidence(self, step: FenceStep, evidence: tuple[Evidence, ...]) -> None:
        self.kept += evidence

    async def certify(self, order: object) -> Certificate:
        raise AssertionError("nothing is certified here")


class Scene:
    """A silent host with these devices."""

    def __init__(self, board: Board, *devices: FenceDevice, proofs: int = 1) -> None:
        centre = DataCentre()
        host = centre.add("h1")
        host.lose_power()
        self.board, self.rows = board, Rows(*devices)
        self.fencing = Fencing(board, FakeHypervisor(centre), self.rows)
        policy = policy_for(Profile.BALANCED, off_read_back_s=0.05, off_read_every_s=0.01)
        timing = policy.timing.model_copy(update={"proofs_required": proofs})
        self.step = FenceStep(
            operation_id=uuid4(),
            host=HostRef(host_id=uuid4(), name="h1", uri=host.uri, epoch=1),
            incident_id=uuid4(),
            policy=policy.model_copy(update={"timing": timing}),
        )

    def at(self, level: int) -> FenceStep:
        return self.step.model_copy(update={"level": level})


@contextmanager
def waiting_at_most(seconds: float) -> Iterator[None]:
    """The patience with devices of other levels, shortened."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asking, "CONTRADICT_S", seconds)
        yield


async def test_a_host_with_one_level_is_cut_everywhere_at_once_and_nothing_more_is_said() -> None:
    scene = Scene(Board(a=ON, b=ON), device("a"), device("b"))
    assert await scene.fencing.power_off(scene.step) is None
    assert (sorted(scene.board.told), scene.rows.claims) == (["a", "b"], 2)


async def test_a_fence_that_stood_still_after_its_claim_claims_again_and_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = Scene(Board(a=ON), device("a"))
    scene.rows.claims_max = 1
    suspended_s = iter([0.0, 60.0, 60.0, 60.0])
    monkeypatch.setattr("time.clock_gettime", lambda _: next(suspended_s))
    with pytest.raises(Refused, match="not now"):
        await scene.fencing.power_off(scene.step)
    assert (scene.board.told, scene.board.reads["a"]) == ([], ON)


async def test_a_fence_whose_claims_are_all_too_slow_cuts_nothing_and_may_be_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(asking, "FRESH_S", -1.0)
    scene = Scene(Board(a=ON), device("a"))
    with pytest.raises(NoAnswer, match="CLAIM_TOO_SLOW"):
        await scene.fencing.power_off(scene.step)
    assert (scene.board.told, scene.rows.claims) == ([], asking.CLAIMS_MOST)


async def test_a_device_that_takes_no_command_does_not_save_the_others_of_its_level() -> None:
    scene = Scene(Board(a=ON, b=ON), device("a"), device("b"))
    scene.board.dead.add("a")
    with pytest.raises(NoAnswer, match="a does not answer"):
        await scene.fencing.power_off(scene.step)
    assert scene.board.reads == {"a": ON, "b": OFF}


async def test_only_the_first_level_is_cut_and_its_trouble_is_told_where_another_follows() -> None:
    scene = Scene(Board(bmc=ON, pdu=ON), device("bmc"), device("pdu", 2))
    scene.board.dead.add("bmc")
    cut = await scene.fencing.power_off(scene.step)
    assert cut is not None
    why = "BMC_NO_ANSWER: bmc does not answer"
    assert (cut.level, cut.why, scene.board.told) == (1, why, ["bmc"])


async def test_levels_are_those_that_have_devices() -> None:
    scene = Scene(Board(bmc=ON, pdu=ON), device("bmc", 3), device("pdu", 7))
    first = await scene.fencing.power_off(scene.step)
    second = await scene.fencing.power_off(scene.at(4))
    assert [cut and cut.level for cut in (first, second)] == [3, 7]
    with pytest.raises(NoAnswer, match="no fence device is left from level 8 on"):
        await scene.fencing.power_off(scene.at(8))


async def test_a_claim_that_is_refused_ends_the_cut_whatever_follows() -> None:
    scene = Scene(Board(bmc=ON, pdu=ON), device("bmc"), device("pdu", 2))
    scene.rows.claims_max = 0
    with pytest.raises(Refused, match="not now"):
        await scene.fencing.power_off(scene.step)
    assert scene.board.told == []


async def test_off_and_readings_are_tried_again_as_often_as_the_device_says() -> None:
    scene = Scene(Board(bmc=ON), device("bmc", retries=2))
    scene.board.failing["bmc"], scene.board.unheard["bmc"] = 2, 2
    await scene.fencing.power_off(scene.step)
    assert (scene.board.told, scene.rows.claims) == (["bmc"] * 3, 3)


def test_a_device_waits_its_delay_and_claims_only_then() -> None:
    async def played() -> None:
        scene = Scene(Board(a=ON, b=ON), device("a", delay_s=0.2), device("b"))
        cutting = asyncio.ensure_future(scene.fencing.power_off(scene.step))
        await asyncio.sleep(0.1)
        assert (scene.board.told, scene.rows.claims) == (["b"], 1)
        await cutting
        assert (scene.board.told, scene.rows.claims) == (["b", "a"], 2)

    loop = VirtualLoop()
    try:
        loop.run_until_complete(played())
    finally:
        loop.clear()


async def test_a_level_that_stays_on_leads_to_the_next_without_a_knock() -> None:
    scene = Scene(Board(bmc=UNKNOWN, pdu=ON), device("bmc"), device("pdu", 2))
    read = await scene.fencing.read_level(ReadLevelOrder(step=scene.at(1)))
    assert (read.proven, read.why) == (
        False,
        "level 1 does not prove it, the next one is to be cut: bmc: unknown, pdu: on",
    )
    assert {fact.kind for fact in scene.rows.kept} == {"power_reading"}


async def test_a_level_that_reads_off_against_a_later_one_that_reads_on_is_not_waited_for() -> None:
    scene = Scene(Board(bmc=OFF, pdu=ON), device("bmc"), device("pdu", 2))
    patient = scene.step.policy.model_copy(update={"off_read_back_s": 60.0})
    step = scene.at(1).model_copy(update={"policy": patient})
    read = await asyncio.wait_for(scene.fencing.read_level(ReadLevelOrder(step=step)), 5)
    assert not read.proven
    assert len(scene.rows.kept) == 2


async def test_the_last_level_raises_what_it_lacks() -> None:
    scene = Scene(Board(bmc=UNKNOWN, a=OFF, b=ON), device("bmc"), device("a", 2), device("b", 2))
    with pytest.raises(NoAnswer, match="bmc: unknown, a: off, b: on") as unproven:
        await scene.fencing.read_level(ReadLevelOrder(step=scene.at(2)))
    assert (unproven.value.code, unproven.value.retryable) == ("POWER_NOT_PROVEN_OFF", True)


async def test_both_outlets_off_prove_it_and_a_dead_bmc_is_not_waited_out() -> None:
    scene = Scene(Board(bmc=ON, a=OFF, b=OFF), device("bmc"), device("a", 2), device("b", 2))
    scene.board.hanging.add("bmc")
    with waiting_at_most(0.05):
        read = await scene.fencing.read_level(ReadLevelOrder(step=scene.at(2)))
    assert read.proven
    assert [(fact.device, fact.verdict, fact.level) for fact in read.evidence] == [
        ("bmc", "unknown", 1),
        ("a", "off", 2),
        ("b", "off", 2),
        ("h1", "silent", 1),
    ]


async def test_a_bmc_that_reads_on_contradicts_its_outlets() -> None:
    scene = Scene(Board(bmc=ON, pdu=OFF), device("bmc"), device("pdu", 2))
    with pytest.raises(NoAnswer, match="bmc: on, pdu: off"):
        await scene.fencing.read_level(ReadLevelOrder(step=scene.at(2)))
    with pytest.raises(NoAnswer, match="bmc: on, pdu: off"):
        await scene.fencing.read_back(scene.step)


async def test_a_bmc_that_read_off_before_its_outlet_was_cut_stays_a_second_witness() -> None:
    scene = Scene(Board(bmc=OFF, pdu=ON), device("bmc"), device("pdu", 2), proofs=2)
    first = await scene.fencing.read_level(ReadLevelOrder(step=scene.at(1)))
    scene.board.reads |= {"bmc": UNKNOWN, "pdu": OFF}
    order = ReadLevelOrder(step=scene.at(2), earlier=first.evidence)
    read = await scene.fencing.read_level(order)
    assert (first.proven, read.proven) == (False, True)
    assert [fact.verdict for fact in read.evidence[:2]] == [OFF, OFF]
    with pytest.raises(NoAnswer):
        await scene.fencing.read_level(ReadLevelOrder(step=scene.at(2)))


async def test_what_a_device_said_before_completes_no_level() -> None:
    scene = Scene(Board(bmc=OFF, pdu=ON), device("bmc"), device("pdu", 2))
    first = await scene.fencing.read_level(ReadLevelOrder(step=scene.at(1)))
    scene.board.reads |= {"bmc": UNKNOWN, "pdu": UNKNOWN}
    with pytest.raises(NoAnswer):
        await scene.fencing.read_level(ReadLevelOrder(step=scene.at(2), earlier=first.evidence))


async def test_a_hanging_device_is_waited_for_where_nothing_is_proven_yet() -> None:
    board = Board(a=UNKNOWN, b=OFF)
    board.hanging.add("b")
    asked = asyncio.ensure_future(ask(board, (device("a"), device("b"))))
    with waiting_at_most(0.01), pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(asked), 0.1)
    asked.cancel()


async def test_a_device_of_the_same_level_is_never_given_up_for_its_fellow() -> None:
    board = Board(a=OFF, b=OFF)
    board.hanging.add("b")
    with waiting_at_most(0.01), pytest.raises(TimeoutError):
        await asyncio.wait_for(ask(board, (device("a"), device("b"))), 0.1)


async def test_a_level_that_took_no_command_is_looked_at_once_and_may_still_be_off() -> None:
    scene = Scene(Board(bmc=UNKNOWN, pdu=ON), device("bmc"), device("pdu", 2))
    patient = scene.step.policy.model_copy(update={"off_read_back_s": 60.0})
    step = scene.at(1).model_copy(update={"policy": patient})
    order = ReadLevelOrder(step=step, once=True)
    read = await asyncio.wait_for(scene.fencing.read_level(order), 5)
    assert (read.proven, len(scene.rows.kept)) == (False, 2)
    scene.board.reads |= {"bmc": OFF, "pdu": UNKNOWN}  # only its answer was lost
    assert (await scene.fencing.read_level(order)).proven
