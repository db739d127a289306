"""Looks at VMs that others wait for: each asks anew, and their end is told once it is known."""

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


def order(**rule: object) -> ReadyOrder:
    ids = {"operation_id": uuid4(), "incident_id": uuid4(), "vm_id": SPEC.vm_id}
    rules = ReadyRule.model_validate(rule)
    return ReadyOrder(**ids, vm_name="db", rule=rules, deadline_s=1)


def waiting(records: Records, doors: object = None) -> Readiness:
    centre = DataCentre()
    return Readiness(FakeHypervisor(centre), doors or FakeDoors(centre), records)  # type: ignore[arg-type]


TCP = {"when": ReadyWhen.TCP, "host": "db", "port": 5432}


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
    rule = {"when": ReadyWhen.AGENT, "limit_s": 0.05}
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
    delayed, open_ = order(when="delay", delay_s=30), order(**TCP)
    looked = await waiting(records, Closed(0)).look_ready(look(0.0, delayed, open_))
    ready = ReadyFound(ready=True, why="db is ready: db takes connections at port 5432")
    assert looked == ReadyLooked(
        settled=(ReadySettled(vm_id=SPEC.vm_id, found=ready),),
        next_s=29.0,
        why=f"{ready.why}; db is not ready yet",
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
    assert looked.why == "vm0, vm1, vm2 and 2 more are not ready yet"


async def test_what_one_look_could_not_keep_is_raised_so_that_it_is_made_again() -> None:
    class Away(Records):
        async def settled(self, order: ReadyOrder, found: ReadyFound) -> None:
            raise NoAnswer("DATABASE_UNAVAILABLE", "gone")

    with pytest.raises(NoAnswer):
        await waiting(Away(), Closed(0)).look_ready(look(0.0, order(**TCP)))
