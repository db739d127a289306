"""Looks at VMs that others wait for: each asks anew, and their end is told once it is known."""

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from activities import readiness
from activities.readiness import (
    Readiness,
    ReadyFound,
    ReadyLook,
    ReadyLooked,
    ReadyOrder,
    ReadySettled,
    ReadyWait,
    RunningVm,
)
from domain.errors import NoAnswer
from domain.inventory import GuestSpec, VirtType
from domain.orders import RunRef
from domain.readiness import ReadyRule, ReadyWhen
from tests.fakes import DataCentre, FakeDoors, FakeHypervisor

pytestmark = pytest.mark.unit

SPEC = GuestSpec(vm_id=uuid4(), name="db", memory_mib=64, vcpus=1, virt_type=VirtType.QEMU)


class Records:
    """A run that is `since_s` old and ages by a second a look, until it `ends`."""

    def __init__(self, since_s: float = 0.0, ends: int = 1000) -> None:
        self.since_s, self.left = since_s, ends
        self.told: list[ReadyFound] = []

    async def running(self, vm_id: object) -> RunningVm | None:
        self.left -= 1
        if self.left < 0:
            return None
        self.since_s += 1
        ids = {"run_id": uuid4(), "operation_id": uuid4(), "host_id": uuid4()}
        place = {"host_name": "h1", "uri": "fake://h1", "epoch": 1, "generation": 1}
        return RunningVm(run=RunRef(**ids, **place, spec=SPEC), since_s=self.since_s)

    async def settled(self, order: ReadyOrder, found: ReadyFound) -> None:
        self.told.append(found)


class Closed:
    """A port that is closed for so many looks."""

    def __init__(self, looks: int) -> None:
        self.looks = looks

    async def open(self, host: str, port: int, within_s: float) -> bool:
        self.looks -= 1
        return self.looks < 0


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "READY_LOOK_S", 0.01)


def order(name: str = "db", **rule: Any) -> ReadyOrder:
    ids = {"operation_id": uuid4(), "incident_id": uuid4(), "vm_id": uuid4()}
    rules = ReadyRule.model_validate(rule)
    return ReadyOrder(**ids, vm_name=name, rule=rules, deadline_s=1)


def waiting(records: Records, doors: object = None) -> Readiness:
    centre = DataCentre()
    return Readiness(FakeHypervisor(centre), doors or FakeDoors(centre), records)  # type: ignore[arg-type]


TCP: dict[str, Any] = {"when": ReadyWhen.TCP, "host": "db", "port": 5432}


async def test_it_is_asked_until_it_is_ready_and_twice_gives_the_same() -> None:
    records = Records()
    steps = waiting(records, Closed(3))
    first, second = [await steps.until_ready(order(**TCP)) for _ in range(2)]
    assert first == second
    assert first == ReadyFound(ready=True, why="db is ready: db takes connections at port 5432")
    assert records.told == [first, second]


async def test_a_step_that_begins_late_waits_only_for_what_is_left() -> None:
    found = await waiting(Records(since_s=500), Closed(9)).until_ready(order(**TCP, limit_s=60))
    assert not found.ready
    assert (
        found.why == "db is not ready: waited 60 s in vain until db takes connections at port 5432"
    )


async def test_a_vm_that_ends_meanwhile_is_waited_for_no_longer() -> None:
    records = Records(ends=3)
    found = await waiting(records, Closed(99)).until_ready(order(**TCP))
    assert found == ReadyFound(ready=False, why="db does not run any more")
    assert records.told == [found]


async def test_a_host_that_does_not_answer_is_no_answer_of_the_agent() -> None:
    rule: dict[str, Any] = {"when": ReadyWhen.AGENT, "limit_s": 0.05}
    found = await waiting(Records(since_s=-2)).until_ready(order(**rule))
    assert not found.ready


async def test_a_delay_that_is_over_needs_no_look() -> None:
    found = await waiting(Records(since_s=90)).until_ready(order(when="delay", delay_s=30))
    assert found == ReadyFound(ready=True, why="db is ready: 30 s after it runs")


async def test_an_end_that_cannot_be_kept_is_raised_so_that_the_step_is_tried_again() -> None:
    class Away(Records):
        async def settled(self, order: ReadyOrder, found: ReadyFound) -> None:
            raise NoAnswer("DATABASE_UNAVAILABLE", "gone")

    with pytest.raises(NoAnswer):
        await waiting(Away(), Closed(0)).until_ready(order(**TCP))


def look(waited_s: float, *orders: ReadyOrder) -> ReadyLook:
    return ReadyLook(waits=tuple(ReadyWait(order=one, waited_s=waited_s) for one in orders))


async def test_a_look_settles_what_is_ready_and_says_when_to_look_at_the_rest() -> None:
    records = Records()
    delayed, open_ = order("slow", when="delay", delay_s=30), order(**TCP)
    looked = await waiting(records, Closed(0)).look_ready(look(20.0, delayed, open_))
    ready = ReadyFound(ready=True, why="db is ready: db takes connections at port 5432")
    assert looked == ReadyLooked(
        settled=(ReadySettled(vm_id=open_.vm_id, found=ready),),
        next_s=10.0,
        why=f"{ready.why}; slow is not ready yet",
    )
    assert records.told == [ready]


async def test_a_look_that_settles_all_wants_no_other() -> None:
    looked = await waiting(Records(), Closed(0)).look_ready(look(0.0, order(**TCP)))
    assert (looked.next_s, len(looked.settled)) == (None, 1)


@pytest.mark.parametrize(("since_s", "waited_s"), [(60.0, 0.0), (0.0, 60.0)])
async def test_a_look_gives_up_at_the_limit_also_of_one_that_is_started_again_and_again(
    since_s: float, waited_s: float
) -> None:
    late = order(**TCP, limit_s=60)
    looked = await waiting(Records(since_s=since_s), Closed(9)).look_ready(look(waited_s, late))
    (settled,) = looked.settled
    assert looked.why == settled.found.why
    assert settled.found.why.startswith("db is not ready: waited 60 s in vain")


async def test_a_look_waits_no_longer_for_a_vm_that_has_ended() -> None:
    records = Records(ends=0)
    looked = await waiting(records, Closed(9)).look_ready(look(0.0, order(**TCP)))
    assert looked.why == "db does not run any more"
    assert [found.ready for found in records.told] == [False]


async def test_a_look_names_three_and_counts_the_others() -> None:
    orders = [order(**TCP).model_copy(update={"vm_name": f"vm{n}"}) for n in range(5)]
    looked = await waiting(Records(), Closed(9)).look_ready(look(0.0, *orders))
    assert looked.why.endswith(" and 2 more are not ready yet")
    assert looked.why.count("vm") == 3


async def test_what_one_look_could_not_keep_is_raised_so_that_it_is_made_again() -> None:
    class Away(Records):
        async def settled(self, order: ReadyOrder, found: ReadyFound) -> None:
            raise NoAnswer("DATABASE_UNAVAILABLE", "gone")

    with pytest.raises(NoAnswer):
        await waiting(Away(), Closed(0)).look_ready(look(0.0, order(**TCP)))


class Bad:
    """A door that fails for one host in a way that nobody has foreseen, and stands open else."""

    async def open(self, host: str, port: int, within_s: float) -> bool:
        if host == "bad":
            raise RuntimeError("a defect")
        return True


async def test_a_defect_met_with_one_vm_holds_up_no_other_and_its_limit_ends_it() -> None:
    bad = order("odd", when=ReadyWhen.TCP, host="bad", port=1, limit_s=60)
    looked = await waiting(Records(), Bad()).look_ready(look(0.0, bad, order(**TCP)))
    assert [one.found.why.split()[0] for one in looked.settled] == ["db"]
    looked = await waiting(Records(), Bad()).look_ready(look(60.0, bad))
    assert looked.why.startswith("odd is not ready: waited 60 s in vain")


class Hanging:
    """A door that never answers for one host, and stands open else."""

    async def open(self, host: str, port: int, within_s: float) -> bool:
        if host == "hangs":
            await asyncio.Event().wait()
        return True


async def test_one_that_does_not_answer_holds_up_no_other_beyond_its_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(readiness, "ASK_WITHIN_S", 0.05)
    hangs = order("mute", when=ReadyWhen.TCP, host="hangs", port=1)
    looked = await waiting(Records(), Hanging()).look_ready(look(0.0, hangs, order(**TCP)))
    assert [one.found.why.split()[0] for one in looked.settled] == ["db"]
    assert looked.why.endswith("; mute is not ready yet")


async def test_a_guest_that_gets_no_turn_is_asked_in_a_later_look(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def hangs(*_: object) -> bool:
        return await asyncio.Event().wait()

    monkeypatch.setattr(readiness, "is_ready", hangs)
    monkeypatch.setattr(readiness, "TURN_WITHIN_S", 0.05)
    monkeypatch.setattr(readiness, "ASK_WITHIN_S", 0.2)
    orders = [order(f"vm{n}", when=ReadyWhen.AGENT) for n in range(30)]
    looked = await waiting(Records()).look_ready(look(0.0, *orders))
    assert (looked.settled, looked.next_s) == ((), 1.0)


async def test_a_failure_is_told_once_no_other_part_of_the_look_is_at_work() -> None:
    ended: list[str] = []

    class Away(Records):
        async def settled(self, order: ReadyOrder, found: ReadyFound) -> None:
            if order.vm_name == "first":
                raise NoAnswer("DATABASE_UNAVAILABLE", "gone")
            for _ in range(50):
                await asyncio.sleep(0)
            ended.append(order.vm_name)

    both = look(0.0, order("first", **TCP), order("second", **TCP))
    with pytest.raises(NoAnswer):
        await waiting(Away(), Closed(0)).look_ready(both)
    assert ended == ["second"]


async def test_so_many_guests_of_one_host_are_asked_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    at_once, most = 0, 0

    async def asked(*_: object) -> bool:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0)
        at_once -= 1
        return True

    monkeypatch.setattr(readiness, "is_ready", asked)
    orders = [order(f"vm{n}", when=ReadyWhen.AGENT) for n in range(30)]
    looked = await waiting(Records()).look_ready(look(0.0, *orders))
    assert (len(looked.settled), most) == (30, readiness.AT_ONCE_ON_A_HOST)
