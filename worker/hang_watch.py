"""Listens to the guest agents of VMs that ask for it, and says which have fallen silent.

Each host's guests are asked one after the other in a task of its own, over a connection of its own
with a time-out of its own, and few hosts at once: neither a poll nor the reading of another host
waits for an agent. A VM that does not ask for it is never asked.
"""

import asyncio
import math
from collections.abc import Callable, Coroutine
from typing import Any
from uuid import UUID

import structlog

from activities.ports import Hypervisor
from domain.errors import EngineError
from domain.hung_guests import ASK_EVERY_S, Listening, after_question
from domain.inventory import OnHang
from domain.orders import HostRef
from domain.readings import AgentState, DomainState, HostReading
from engine.records.hanging import HangRecords
from engine.records.watching import WatchedHost
from store.ended_runs import Running

log = structlog.get_logger()

HOSTS_AT_ONCE = 4
"""Hosts whose agents one monitor asks side by side. Higher: more connections, and threads in
libvirt. Lower: a large cluster's agents are asked more seldom than `ASK_EVERY_S`."""

ASK_S = 5.0
"""For each answer of libvirtd, beside the time that the agent itself has. Higher: a hung libvirtd
holds one of `HOSTS_AT_ONCE` longer. Lower: a busy one is not heard."""

Hung = Callable[[WatchedHost, Running, float], Coroutine[Any, Any, None]]


class HangWatch:
    """One monitor's listening. `hung` is told, again and again, what is to be started again."""

    def __init__(self, name: str, records: HangRecords, hypervisor: Hypervisor, hung: Hung) -> None:
        self._name = name
        self._records = records
        self._hypervisor = hypervisor
        self._hung = hung
        self._heard: dict[UUID, dict[UUID, Listening]] = {}  # by host and run
        self._due_s: dict[UUID, float] = {}
        self._asking: dict[UUID, asyncio.Task[None]] = {}
        self._turns = asyncio.Semaphore(HOSTS_AT_ONCE)
        self._silent: dict[UUID, int] = {}  # by host: agents that said nothing in its last round

    def listen(self, host: WatchedHost, runs: tuple[Running, ...], reading: HostReading) -> None:
        """Ask those that are due, apart; called after each poll that a host in service answers."""
        asked = tuple(run for run in runs if run.settled and run.on_hang is not OnHang.OFF)
        if not asked:
            self.forget(host.id)
            return
        now_s = asyncio.get_running_loop().time()
        if host.id in self._asking or now_s < self._due_s.get(host.id, 0.0):
            return
        self._due_s[host.id] = now_s + ASK_EVERY_S
        running = frozenset(g.vm_id for g in reading.guests if g.state is DomainState.RUNNING)
        ahead = sum(self._silent.get(other, 0) + 1 for other in self._asking)
        task = asyncio.create_task(self._ask(host, asked, running, ahead))
        self._asking[host.id] = task
        task.add_done_callback(lambda _done: self._asking.pop(host.id, None))

    def forget(self, host_id: UUID) -> None:
        """Nothing is counted over a time in which nobody listened."""
        self._heard.pop(host_id, None)
        self._silent.pop(host_id, None)

    @property
    def asking(self) -> tuple[asyncio.Task[None], ...]:
        """Questions that are being asked."""
        return tuple(self._asking.values())

    async def _ask(
        self, host: WatchedHost, runs: tuple[Running, ...], running: frozenset[UUID], ahead: int
    ) -> None:
        """Ask them in turn, behind hosts of which so many agents may take their time."""
        async with self._turns:
            before = self._heard.setdefault(host.id, {})
            said = await self._answers(host, [run for run in runs if run.vm_id in running])
        if self._heard.get(host.id) is not before:
            return  # its host was forgotten meanwhile
        now_s = asyncio.get_running_loop().time()
        silent = sum(word is AgentState.SILENT for word in said.values())
        between = max(silent, self._silent.get(host.id, 0)) + 1 + math.ceil(ahead / HOSTS_AT_ONCE)
        self._silent[host.id] = silent
        heard: dict[UUID, Listening] = {}
        for run in runs:
            was = before.get(run.run_id) or Listening(heard=run.agent_heard)
            heard[run.run_id] = after_question(was, said.get(run.run_id), now_s, between)
        self._heard[host.id] = heard
        for run in runs:
            try:
                await self._tell(host, run, said.get(run.run_id), heard[run.run_id])
            except EngineError as error:
                log.info("state of a guest agent not kept", host=host.name, code=error.code)
            except Exception:  # one run's defect must not hide the others
                log.exception("state of a guest agent not kept", vm_id=str(run.vm_id))

    async def _answers(self, host: WatchedHost, runs: list[Running]) -> dict[UUID, AgentState]:
        """What each agent said; those that could not be asked are left out."""
        said: dict[UUID, AgentState] = {}
        if not runs:
            return said
        try:
            async with self._hypervisor.session(host.uri, ASK_S) as session:
                for run in runs:
                    said[run.run_id] = await session.ask_agent(run.vm_id)
        except EngineError as error:
            log.info("guest agents not asked", host=host.name, code=error.code)
        return said

    async def _tell(
        self, host: WatchedHost, run: Running, said: AgentState | None, heard: Listening
    ) -> None:
        if said is AgentState.ANSWERS:
            if not run.agent_heard or run.agent_silent:
                await self._records.heard(_ref(host), run, self._name)
            return
        if heard.silent_s < run.hang_after_s:
            return
        if not run.agent_silent and await self._records.silent(
            _ref(host), run, heard.silent_s, self._name
        ):
            log.warning("guest hangs", host=host.name, vm_id=str(run.vm_id))
        if run.restarts_hung:
            await self._hung(host, run, heard.silent_s)


def _ref(host: WatchedHost) -> HostRef:
    return HostRef(host_id=host.id, name=host.name, uri=host.uri, epoch=host.epoch)
