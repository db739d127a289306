"""One look for all VMs of others: who is released, and what the others are said to wait for."""

from collections.abc import Mapping
from uuid import UUID, uuid4

import pytest

from activities.dependencies import (
    BackFound,
    BackOrder,
    Dependencies,
    Released,
    Standing,
    StandingVm,
    WaitingStart,
)
from activities.readiness import RunningVm
from domain.dependencies import BACK_LIMIT_S
from domain.inventory import GuestSpec, VirtType
from domain.orders import AwaitedVm, RunRef
from domain.readiness import ReadyRule, ReadyWhen
from tests.fakes import DataCentre, FakeHypervisor

pytestmark = pytest.mark.unit

DB, CACHE = (AwaitedVm(vm_id=uuid4(), vm_name=name) for name in ("db", "cache"))
TCP = ReadyRule(when=ReadyWhen.TCP, host="db", port=5432, limit_s=120)
SLOW_DB = AwaitedVm(vm_id=uuid4(), vm_name="db", ready=TCP)
COMING = StandingVm(expected=True, vm=None)


class Records:
    """What stands in the rows, and what is written there."""

    def __init__(self, vms: Mapping[UUID, StandingVm], begun: frozenset[UUID]) -> None:
        self.found = Standing(vms=vms, begun=begun)
        self.waits: dict[UUID, str] = {}
        self.released: list[Released] = []

    async def standing(self, order: BackOrder) -> Standing:
        return self.found

    async def show(self, waits: Mapping[UUID, str], released: tuple[Released, ...]) -> None:
        self.waits |= waits
        self.released += released


class Port:
    """One that is open, or closed."""

    def __init__(self, opened: bool) -> None:
        self.opened = opened

    async def open(self, host: str, port: int, within_s: float) -> bool:
        return self.opened


def running(since_s: float) -> StandingVm:
    spec = GuestSpec(vm_id=uuid4(), name="db", memory_mib=64, vcpus=1, virt_type=VirtType.QEMU)
    ids = {"run_id": uuid4(), "operation_id": uuid4(), "host_id": uuid4()}
    place = {"host_name": "h1", "uri": "fake://h1", "epoch": 1, "generation": 1}
    vm = RunningVm(run=RunRef.model_validate({**ids, **place, "spec": spec}), since_s=since_s)
    return StandingVm(expected=True, vm=vm)


async def looked(
    vms: Mapping[UUID, StandingVm],
    *awaits: AwaitedVm,
    waited_s: float = 0.0,
    begun: bool = False,
    opened: bool = False,
) -> tuple[BackFound, Records]:
    """What a look finds for one start that waits for these."""
    start = WaitingStart(start_id=uuid4(), vm_name="app", awaits=awaits)
    records = Records(vms, frozenset({start.start_id} if begun else ()))
    steps = Dependencies(FakeHypervisor(DataCentre()), Port(opened), records)
    order = BackOrder(operation_id=uuid4(), starts=(start,), waited_s=waited_s, deadline_s=1)
    return await steps.look_back(order), records


def why(found: BackFound) -> list[str]:
    return [one.why for one in found.released]


async def test_it_waits_while_one_of_those_is_to_come_and_its_start_says_so() -> None:
    vms = {DB.vm_id: COMING, CACHE.vm_id: running(1)}
    found, records = await looked(vms, DB, CACHE, waited_s=7)
    assert found.released == ()
    assert list(records.waits.values()) == [
        "db, which it depends on, is to be back first: waited for 7 s"
    ]


async def test_it_goes_on_once_all_run_and_what_was_said_is_taken_back() -> None:
    found, records = await looked({DB.vm_id: running(1), CACHE.vm_id: running(9)}, DB, CACHE)
    assert why(found) == ["db is back; cache is back"]
    assert (records.waits, records.released) == ({}, list(found.released))


async def test_it_goes_on_where_nothing_brings_that_one_back() -> None:
    found, _ = await looked({}, DB)
    assert why(found) == ["nothing brings db back"]


@pytest.mark.parametrize(("waited_s", "goes_on"), [(BACK_LIMIT_S - 1, False), (BACK_LIMIT_S, True)])
async def test_it_goes_on_without_that_one_after_the_limit(waited_s: float, goes_on: bool) -> None:
    found, _ = await looked({DB.vm_id: COMING}, DB, waited_s=waited_s)
    assert bool(found.released) is goes_on


@pytest.mark.parametrize(
    ("since_s", "opened", "goes_on"), [(5, False, False), (5, True, True), (120, False, True)]
)
async def test_that_one_is_back_once_it_is_ready_or_its_own_limit_is_over(
    since_s: float, opened: bool, goes_on: bool
) -> None:
    found, _ = await looked({SLOW_DB.vm_id: running(since_s)}, SLOW_DB, opened=opened)
    assert bool(found.released) is goes_on


async def test_a_start_that_has_begun_waits_for_nobody() -> None:
    found, _ = await looked({DB.vm_id: COMING}, DB, begun=True)
    assert why(found) == ["it has begun already"]


async def test_twice_gives_the_same() -> None:
    start = WaitingStart(start_id=uuid4(), vm_name="app", awaits=(DB, CACHE))
    records = Records({DB.vm_id: COMING, CACHE.vm_id: running(1)}, frozenset())
    steps = Dependencies(FakeHypervisor(DataCentre()), Port(False), records)
    order = BackOrder(operation_id=uuid4(), starts=(start,), waited_s=0, deadline_s=1)
    said = []
    for _ in range(2):
        assert (await steps.look_back(order)).released == ()
        said.append(dict(records.waits))
        records.waits.clear()
    assert said[0] == said[1] != {}
