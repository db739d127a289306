"""Hosts as one machine of the engine reaches them over libvirt: the ports of the activities.

Invariants  A session is bound to the boot and the life of libvirtd that it was opened in: after
            either ended it is dead for ever. After a call without an answer it is dead, too.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar
from uuid import UUID

from activities.waiting import until
from domain.errors import Conflict, EngineError, NoAnswer, OutcomeUnknown, Unavailable
from domain.foreign import ForeignGuest
from domain.inventory import GuestSpec
from domain.readings import AgentState, Domain, HostReading, Knock, Migration
from simulator.world.centre import DataCentre
from simulator.world.daemon import ANSWER_S, Daemon
from simulator.world.host import Libvirtd, VirtualHost
from simulator.world.latency import Call
from simulator.world.network import Net
from simulator.world.wire import Line, Peer

T = TypeVar("T")
FIRST_MACHINE = "engine-1"
MOVED_EVERY_S = 0.05
"""How often a call that waits for a migration asks whether it has ended."""


class VirtualSession:
    """One connection to one life of one host's libvirtd; implements `HypervisorSession`."""

    def __init__(
        self, centre: DataCentre, host: VirtualHost, line: Line, deadline_s: float
    ) -> None:
        self._centre = centre
        self._host = host
        self._line = line
        self._deadline_s = deadline_s
        self._daemon = Daemon(centre, host)
        self._connection = host.connection
        self._dead = False

    async def domains(self) -> tuple[Domain, ...]:
        """Every domain of the host."""
        return await self._call(Call.DOMAINS, self._daemon.domains)

    async def lookup(self, vm_id: UUID) -> Domain | None:
        """One domain, or None."""
        return await self._call(Call.LOOKUP, lambda: self._daemon.lookup(vm_id))

    async def define(self, spec: GuestSpec, generation: int) -> None:
        """Define, or redefine while inactive."""
        await self._call(Call.DEFINE, lambda: self._daemon.define(spec, generation))

    async def ask_agent(self, vm_id: UUID) -> AgentState:
        """What its guest agent gives to a ping."""
        return await self._call(Call.AGENT_PING, lambda: self._daemon.ask_agent(vm_id))

    async def create(self, vm_id: UUID, generation: int) -> None:
        """Start the defined domain."""
        await self._call(Call.CREATE, lambda: self._daemon.create(vm_id, generation))

    async def shutdown(self, vm_id: UUID, generation: int) -> None:
        """Press the guest's power button."""
        await self._call(Call.SHUTDOWN, lambda: self._daemon.shutdown(vm_id, generation))

    async def resume(self, vm_id: UUID, generation: int) -> None:
        """Let a paused domain go on."""
        await self._call(Call.RESUME, lambda: self._daemon.resume(vm_id, generation))

    async def destroy(self, vm_id: UUID, generation: int) -> None:
        """End the domain now."""
        await self._call(Call.DESTROY, lambda: self._daemon.destroy(vm_id, generation))

    async def undefine(self, vm_id: UUID, generation: int) -> None:
        """Forget an inactive domain."""
        await self._call(Call.UNDEFINE, lambda: self._daemon.undefine(vm_id, generation))

    async def migrate(
        self,
        vm_id: UUID,
        generation: int,
        target_uri: str,
        target_generation: int,
        within_s: float,
    ) -> None:
        """Move a running domain; whoever waits for it may be gone, the two hosts go on."""
        wanted = (vm_id, generation, target_uri, target_generation)
        move = await self._call(Call.MIGRATE, lambda: self._daemon.migrate(*wanted))

        async def over() -> bool:
            return await self._call(Call.MIGRATION, lambda: move.over)

        try:
            if not await until(over, every_s=MOVED_EVERY_S, within_s=within_s):
                raise TimeoutError
        except (TimeoutError, NoAnswer):
            self._dead = True
            detail = f"{self._host.name}: a guest was being moved when the connection was lost"
            raise OutcomeUnknown("HYPERVISOR_ANSWER_LOST", detail) from None
        if move.error is not None:
            raise Conflict("HYPERVISOR_REFUSED", f"{self._host.name}: {move.error}")

    async def renew_mark(self, vm_id: UUID, generation: int, new_generation: int) -> None:
        """Mark what lives as one of a newer run."""
        renewed = (vm_id, generation, new_generation)
        await self._call(Call.RENEW_MARK, lambda: self._daemon.renew_mark(*renewed))

    async def migration(self, vm_id: UUID) -> Migration | None:
        """How far that is."""
        return await self._call(Call.MIGRATION, lambda: self._daemon.migration(vm_id))

    async def abort_migration(self, vm_id: UUID, generation: int) -> None:
        """Give it up."""
        given_up = (vm_id, generation)
        await self._call(Call.ABORT_MIGRATION, lambda: self._daemon.abort_migration(*given_up))

    async def refuse_arrival(self, vm_id: UUID, generation: int) -> None:
        """Take no copy of a VM from another host."""
        barred = (vm_id, generation)
        await self._call(Call.REFUSE_ARRIVAL, lambda: self._daemon.refuse_arrival(*barred))

    async def boot_mark(self) -> int | None:
        """The epoch that this boot was marked with."""
        return await self._call(Call.BOOT_MARK, self._daemon.boot_mark)

    async def set_boot_mark(self, epoch: int) -> None:
        """Mark this boot."""
        await self._call(Call.SET_BOOT_MARK, lambda: self._daemon.set_boot_mark(epoch))

    async def list_foreign(self) -> tuple[ForeignGuest, ...]:
        """Every domain without our mark."""
        return await self._call(Call.LIST_FOREIGN, self._daemon.list_foreign)

    async def describe_foreign(self, guest: UUID | str) -> ForeignGuest | None:
        """One domain by UUID or name."""
        return await self._call(Call.DESCRIBE_FOREIGN, lambda: self._daemon.describe_foreign(guest))

    async def adopt(self, guest_id: UUID, generation: int, claim: UUID) -> None:
        """Mark a guest, in what runs and in what is defined."""
        await self._call(Call.ADOPT, lambda: self._daemon.adopt(guest_id, generation, claim))

    async def disown(self, guest_id: UUID, claim: UUID) -> None:
        """Take the mark of one import away."""
        await self._call(Call.DISOWN, lambda: self._daemon.disown(guest_id, claim))

    async def _call(self, call: Call, act: Callable[[], T]) -> T:
        await self._centre.ahead_of(call)
        if self._dead:
            raise self._gone()

        def served() -> T:
            if self._host.connection != self._connection:
                raise self._gone()
            return act()

        try:
            return await self._line.call(call, self._deadline_s, served)
        except Unavailable:
            self._dead = True
            raise

    def _gone(self) -> NoAnswer:
        name = self._host.name
        return NoAnswer("HOST_NO_ANSWER", f"the connection to {name} is gone", host=name)


class VirtualHypervisor:
    """Implements `Hypervisor`, as seen from one machine of the engine."""

    def __init__(self, centre: DataCentre, machine: str = FIRST_MACHINE) -> None:
        self._centre = centre
        self._machine = machine

    @asynccontextmanager
    async def session(self, uri: str, deadline_s: float) -> AsyncIterator[VirtualSession]:
        """A connection to the host's present boot."""
        await self._centre.ahead_of(Call.OPEN)
        host = await self._host(uri, deadline_s)
        line = self._line(host, host)

        def opened() -> VirtualSession:
            _refuse_port(host)
            return VirtualSession(self._centre, host, line, deadline_s)

        yield await line.call(Call.OPEN, deadline_s, opened)

    async def poll(self, uri: str, deadline_s: float) -> HostReading:
        """Read the host."""
        await self._centre.ahead_of(Call.POLL)
        host = await self._host(uri, deadline_s)
        clock = asyncio.get_running_loop().time
        began_s = clock()

        def read() -> HostReading:
            _refuse_port(host)
            return Daemon(self._centre, host).reading()

        reading = await self._line(host, host).call(Call.POLL, deadline_s, read)
        if self._centre.latency is None:
            return reading
        return reading.model_copy(update={"took_s": max(ANSWER_S, clock() - began_s)})

    async def knock(self, uri: str, deadline_s: float) -> Knock:
        """What comes back from the host's door."""
        await self._centre.ahead_of(Call.KNOCK)
        try:
            host = await self._host(uri, deadline_s)
            line = self._line(host, Door(host))
            return await line.call(Call.KNOCK, deadline_s, lambda: host.door)
        except NoAnswer:
            return Knock.SILENT

    async def machine(self, uri: str, deadline_s: float) -> UUID | None:
        """The UUID in the host's firmware."""
        await self._centre.ahead_of(Call.OPEN)
        host = await self._host(uri, deadline_s)

        def told() -> UUID:
            _refuse_port(host)
            return host.machine

        return await self._line(host, host).call(Call.OPEN, deadline_s, told)

    async def _host(self, uri: str, deadline_s: float) -> VirtualHost:
        host = self._centre.host_at(uri)
        if host is None:
            if self._centre.latency is not None:
                await asyncio.sleep(deadline_s)
            raise NoAnswer("HOST_NO_ANSWER", f"{uri} does not answer")
        return host

    def _line(self, host: VirtualHost, peer: Peer) -> Line:
        network = self._centre.networks[Net.MANAGEMENT]
        return Line(self._centre, network, self._machine, host.name, peer, _lost_by(host))


@dataclass(frozen=True)
class Door:
    """The kernel behind a host's port, which answers whatever libvirtd does."""

    host: VirtualHost

    @property
    def awake(self) -> bool:
        return self.host.up and self.host.reachable

    @property
    def slowness(self) -> float:
        return 1.0

    def take(self, work: Callable[[], None]) -> None:
        if self.awake:
            work()


def _refuse_port(host: VirtualHost) -> None:
    if host.libvirtd is Libvirtd.DOWN:
        detail = f"{host.name}: the connection was refused"
        raise NoAnswer("HOST_PORT_REFUSED", detail, host=host.name)


def _lost_by(host: VirtualHost) -> Callable[[bool], EngineError]:
    def lost(unknown: bool) -> EngineError:
        if unknown:
            detail = f"{host.name}: a change was sent and its answer was lost"
            return OutcomeUnknown("HYPERVISOR_ANSWER_LOST", detail, host=host.name)
        return NoAnswer("HOST_NO_ANSWER", f"{host.uri} does not answer", host=host.name)

    return lost
