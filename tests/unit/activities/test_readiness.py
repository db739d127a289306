"""The wait for one VM: each look asks anew, and its end is told once it is known."""

from uuid import uuid4

import pytest

from activities import readiness
from activities.readiness import Readiness, ReadyFound, ReadyOrder, RunningVm
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
