"""Whose agents a monitor asks, that nobody waits for an answer, and what it keeps of them."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast
from uuid import UUID

import pytest

from activities.ports import Hypervisor
from domain.errors import NoAnswer
from domain.hung_guests import ASK_EVERY_S
from domain.inventory import HostState, OnHang
from domain.orders import HostRef
from domain.readings import AgentState, DomainState, GuestStats, HostReading
from engine.records.hanging import HangRecords
from engine.records.watching import WatchedHost
from store.ended_runs import Running
from tests.unit.worker.monitor_scene import reading
from worker.hang_watch import HOSTS_AT_ONCE, HangWatch

pytestmark = pytest.mark.unit


class Agents:
    """Guests whose agents answer as they are told, once `open` is set; counts what is asked."""

    def __init__(self) -> None:
        self.says: dict[UUID, AgentState | NoAnswer] = {}
        self.asked: Counter[UUID] = Counter()
        self.open = asyncio.Event()
        self.open.set()
        self.sessions = self.sessions_most = 0
        self.takes_s = 0.0  # for an answer that does not come
        self.passes: Callable[[float], None] = lambda _s: None

    @asynccontextmanager
    async def session(self, _uri: str, _deadline_s: float) -> AsyncIterator["Agents"]:
        self.sessions += 1
        self.sessions_most = max(self.sessions_most, self.sessions)
        try:
            yield self
        finally:
            self.sessions -= 1

    async def ask_agent(self, vm_id: UUID) -> AgentState:
        self.asked[vm_id] += 1
        await self.open.wait()
        said = self.says.get(vm_id, AgentState.ANSWERS)
        if isinstance(said, NoAnswer):
            raise said
        if said is AgentState.SILENT and self.takes_s:
            await asyncio.sleep(0)
            self.passes(self.takes_s)
        return said


class Kept:
    """What is kept of agents."""

    def __init__(self) -> None:
        self.told: list[tuple[str, UUID]] = []

    async def silent(self, _host: HostRef, run: Running, _silent_s: float, _by: str) -> bool:
        self.told.append(("silent", run.vm_id))
        return True

    async def heard(self, _host: HostRef, run: Running, _by: str) -> None:
        self.told.append(("heard", run.vm_id))


class Listener:
    """A watch over a clock that is turned on by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.agents, self.kept = Agents(), Kept()
        self.hung: list[UUID] = []
        self.now_s = 1000.0
        hypervisor, records = cast("Hypervisor", self.agents), cast("HangRecords", self.kept)
        self.watch = HangWatch("m1", records, hypervisor, self._hung)
        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: self.now_s)
        self.agents.passes = self.passes

    def passes(self, seconds: float) -> None:
        self.now_s += seconds

    async def _hung(self, _host: WatchedHost, run: Running, _silent_s: float) -> None:
        self.hung.append(run.vm_id)

    async def polls(self, *runs: Running, host: int = 1, **seen: Any) -> None:
        """A poll of a host that runs these, `ASK_EVERY_S` later, and the answers of its agents."""
        self.listen(*runs, host=host, **seen)
        await asyncio.gather(*self.watch.asking)

    def listen(
        self, *runs: Running, host: int = 1, state: DomainState = DomainState.RUNNING
    ) -> None:
        self.now_s += ASK_EVERY_S
        guests = tuple(GuestStats(vm_id=run.vm_id, name="?", state=state) for run in runs)
        shown: HostReading = reading().model_copy(update={"guests": guests})
        self.watch.listen(watched(host), runs, shown)


def watched(number: int) -> WatchedHost:
    return WatchedHost(
        id=UUID(int=number),
        name=f"h{number}",
        uri=f"qemu+tcp://h{number}/system",
        epoch=1,
        state=HostState.UP,
        devices=(),
    )


def vm(number: int, **values: Any) -> Running:
    asked: dict[str, Any] = {"on_hang": OnHang.RESTART, "hang_after_s": 15, "protected": True}
    return Running(UUID(int=number), UUID(int=number), 1, **asked | {"agent_heard": True} | values)


@pytest.fixture
async def listener(monkeypatch: pytest.MonkeyPatch) -> Listener:
    return Listener(monkeypatch)


async def test_only_vms_that_ask_for_it_are_asked_and_only_while_they_run(
    listener: Listener,
) -> None:
    await listener.polls(vm(1), vm(2, on_hang=OnHang.OFF), vm(3, settled=False))
    assert listener.agents.asked == {UUID(int=1): 1}
    await listener.polls(vm(1), state=DomainState.PAUSED)
    assert listener.agents.asked == {UUID(int=1): 1}


async def test_a_poll_does_not_wait_for_an_agent_that_does_not_answer(listener: Listener) -> None:
    listener.agents.open.clear()
    listener.listen(vm(1))
    await asyncio.sleep(0)
    listener.listen(vm(1))  # returns at once, and asks no second time beside the first
    await asyncio.sleep(0)
    assert listener.agents.asked == {UUID(int=1): 1}
    listener.agents.open.set()
    await asyncio.gather(*listener.watch.asking)


async def test_few_hosts_are_asked_side_by_side(listener: Listener) -> None:
    listener.agents.open.clear()
    for number in range(1, HOSTS_AT_ONCE + 4):
        listener.listen(vm(number), host=number)
    for _ in range(5):
        await asyncio.sleep(0)
    assert listener.agents.sessions_most == HOSTS_AT_ONCE
    listener.agents.open.set()
    await asyncio.gather(*listener.watch.asking)
    assert len(listener.agents.asked) == HOSTS_AT_ONCE + 3


async def test_the_first_answer_of_a_run_is_kept_once(listener: Listener) -> None:
    await listener.polls(vm(1, agent_heard=False))
    await listener.polls(vm(1))
    assert listener.kept.told == [("heard", UUID(int=1))]


async def test_a_silence_of_its_time_is_kept_and_reported_until_it_ends(
    listener: Listener,
) -> None:
    listener.agents.says[UUID(int=1)] = AgentState.SILENT
    for _ in range(3):
        await listener.polls(vm(1))
    assert (listener.kept.told, listener.hung) == ([], [])
    await listener.polls(vm(1))
    assert (listener.kept.told, listener.hung) == ([("silent", UUID(int=1))], [UUID(int=1)])
    await listener.polls(vm(1, agent_silent=True))
    assert (len(listener.kept.told), len(listener.hung)) == (1, 2)
    listener.agents.says.clear()
    await listener.polls(vm(1, agent_silent=True))
    assert listener.kept.told[-1] == ("heard", UUID(int=1))


@pytest.mark.parametrize("values", [{"on_hang": OnHang.REPORT}, {"protected": False}])
async def test_what_is_only_reported_or_not_protected_is_not_to_be_started_again(
    listener: Listener, values: dict[str, Any]
) -> None:
    listener.agents.says[UUID(int=1)] = AgentState.SILENT
    for _ in range(5):
        await listener.polls(vm(1, **values))
    assert (listener.kept.told[:1], listener.hung) == ([("silent", UUID(int=1))], [])


async def test_a_host_that_was_not_well_meanwhile_begins_anew(listener: Listener) -> None:
    listener.agents.says[UUID(int=1)] = AgentState.SILENT
    for _ in range(3):
        await listener.polls(vm(1))
    listener.watch.forget(UUID(int=1))
    for _ in range(3):
        await listener.polls(vm(1))
    assert listener.hung == []


async def test_a_host_that_does_not_answer_for_its_agents_says_nothing_of_them(
    listener: Listener,
) -> None:
    listener.agents.says[UUID(int=1)] = NoAnswer("HYPERVISOR_NO_ANSWER", "h1: no answer")
    for _ in range(10):
        await listener.polls(vm(1))
    assert (listener.kept.told, listener.hung) == ([], [])


async def test_a_hang_is_told_however_many_hosts_with_silent_agents_share_the_turns(
    listener: Listener,
) -> None:
    hosts, each = 3 * HOSTS_AT_ONCE, 5
    runs = {h: tuple(vm(10 * h + n) for n in range(each)) for h in range(1, hosts + 1)}
    for vms in runs.values():
        listener.agents.says |= {run.vm_id: AgentState.SILENT for run in vms}
    listener.agents.takes_s = 5.0 / HOSTS_AT_ONCE  # side by side
    everyone = {run.vm_id for vms in runs.values() for run in vms}
    for _ in range(20 * len(everyone)):
        now_s = listener.now_s
        for host, vms in runs.items():
            listener.listen(*vms, host=host)
            listener.now_s = now_s  # it passes while agents are silent
        await asyncio.sleep(0)
        if set(listener.hung) == everyone:
            break
    assert set(listener.hung) == everyone


async def test_a_pause_in_which_the_listener_stood_still_counts_for_nobody(
    listener: Listener,
) -> None:
    listener.agents.says[UUID(int=1)] = AgentState.SILENT
    for _ in range(3):
        listener.now_s += 60.0
        await listener.polls(vm(1))
    assert listener.hung == []


async def test_many_agents_that_answer_do_not_make_a_pause_of_the_listener_count(
    listener: Listener,
) -> None:
    for _ in range(3):
        began_s = listener.now_s
        for host in range(2, 60):
            listener.now_s = began_s
            listener.listen(*(vm(100 * host + n) for n in range(5)), host=host)
        listener.agents.says[UUID(int=1)] = AgentState.SILENT
        listener.listen(vm(1))
        await asyncio.gather(*listener.watch.asking)
        listener.now_s += 300.0  # its monitor was stopped
    assert UUID(int=1) not in listener.hung
