"""In-memory twins of the ports: a small data centre of hosts, guests and power controllers.

One `DataCentre` is the truth that the engine only sees through `FakeHypervisor` and `FakePower`. It
counts copies itself, also those on hosts that nobody can reach, so a second copy is seen even when
the engine could not have seen it.

Invariants  A session is bound to the boot it was opened in: after a power cycle it is dead for
            ever. Processes die with the power, definitions stay on the disk. A controller's answer
            to a command says nothing: only a later reading does.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from uuid import UUID, uuid4

from domain.errors import Conflict, NoAnswer, NotFound, OutcomeUnknown, Superseded
from domain.foreign import ForeignGuest, autostarts, refuse_claimed
from domain.inventory import FenceDevice, GuestSpec, PowerReading
from domain.readings import Domain, DomainState, GuestStats, HostReading, Knock

Hook = Callable[[], Awaitable[None]]


class Bmc(StrEnum):
    """How a power controller behaves."""

    OK = "ok"
    DEAD = "dead"  # answers nothing
    LYING = "lying"  # reads off and cuts nothing
    SLOW = "slow"  # cuts a few readings after it was told to


SLOW_READINGS = 3
"""How often a slow controller still reads on after it took the command."""


@dataclass
class FakeDomain:
    """One domain on one host; `running` None means only defined."""

    name: str
    memory_mib: int
    generation: int | None
    running: int | None = None  # generation of the process
    autostart: bool = False
    state: DomainState = DomainState.SHUTOFF
    claim: UUID | None = None  # the import that marked it
    unsupported: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()

    def seen(self, vm_id: UUID) -> Domain:
        """As libvirt tells it: an active domain shows its live metadata."""
        alive = self.state is DomainState.RUNNING
        return Domain(
            vm_id=vm_id,
            name=self.name,
            state=self.state,
            generation=self.running if alive else self.generation,
            autostart=self.autostart,
        )

    def described(self, guest_id: UUID) -> ForeignGuest:
        """As an import reads it."""
        return ForeignGuest(
            guest_id=guest_id,
            name=self.name,
            state=self.state,
            memory_mib=self.memory_mib,
            vcpus=1,
            virt_type="kvm",
            autostart=self.autostart,
            generation=self.generation,
            claim=self.claim,
            unsupported=self.unsupported,
            lost=self.lost,
        )


@dataclass
class FakeHost:
    """One host with its power controller."""

    name: str
    memory_mib: int = 1024
    cpus: int = 4
    powered: bool = True
    reachable: bool = True
    frozen: bool = False  # libvirtd hangs; the kernel still takes connections, the guests run
    boot: int = 1
    mark: int | None = None
    bmc: Bmc = Bmc.OK
    cut_in: int | None = None  # readings until a slow controller's cut takes effect
    domains: dict[UUID, FakeDomain] = field(default_factory=dict)

    @property
    def uri(self) -> str:
        """Where the engine finds it."""
        return f"qemu+tcp://{self.name}/system"

    @property
    def answers(self) -> bool:
        """Whether anyone outside hears its libvirtd."""
        return self.powered and self.reachable and not self.frozen

    def lose_power(self) -> None:
        """Every process and the mark of this boot are gone; what was defined is not."""
        self.powered, self.mark, self.cut_in, self.frozen = False, None, None, False
        for domain in self.domains.values():
            domain.state, domain.running = DomainState.SHUTOFF, None

    def get_power(self) -> None:
        """A new boot; nothing runs."""
        if not self.powered:
            self.powered, self.boot = True, self.boot + 1


class DataCentre:
    """The world as it is."""

    def __init__(self) -> None:
        self.hosts: dict[str, FakeHost] = {}
        self.copies_max: defaultdict[UUID, int] = defaultdict(int)
        self.powered_off: list[str] = []  # hosts, each time a controller took the command
        self.deaf: set[UUID] = set()  # guests that ignore the power button
        self.refusing: dict[UUID, int] = {}  # guests whose next starts libvirt refuses
        self.short_lived: set[UUID] = set()  # guests that end right after they were started
        self.before: dict[str, Hook] = {}  # runs just before a session's call of that name

    def add(self, name: str, memory_mib: int = 1024) -> FakeHost:
        """A new host, up and empty."""
        self.hosts[name] = FakeHost(name, memory_mib)
        return self.hosts[name]

    def at(self, uri: str) -> FakeHost:
        """The host behind a URI; NoAnswer when it is not heard."""
        host = next((host for host in self.hosts.values() if host.uri == uri), None)
        if host is None or not host.answers:
            raise NoAnswer("HOST_NO_ANSWER", f"{uri} does not answer")
        return host

    def run(self, host: FakeHost, vm_id: UUID, domain: FakeDomain) -> None:
        """A process begins; the copies of the VM are counted."""
        domain.state, domain.running = DomainState.RUNNING, domain.generation
        host.domains[vm_id] = domain
        self.copies_max[vm_id] = max(self.copies_max[vm_id], len(self.copies(vm_id)))

    def add_foreign(self, host: FakeHost, name: str, *, running: bool = True) -> UUID:
        """A guest that somebody else defined, and started unless told otherwise."""
        guest_id, domain = uuid4(), FakeDomain(name, 128, None)
        host.domains[guest_id] = domain
        if running:
            self.run(host, guest_id, domain)
        return guest_id

    def copies(self, vm_id: UUID) -> list[str]:
        """Names of the hosts on which a process of the VM exists."""
        return sorted(
            host.name
            for host in self.hosts.values()
            if (found := host.domains.get(vm_id)) is not None and found.state is DomainState.RUNNING
        )


class FakeSession:
    """One connection to one boot of one host; implements `HypervisorSession`."""

    def __init__(self, centre: DataCentre, host: FakeHost) -> None:
        self._centre = centre
        self._host = host
        self._boot = host.boot

    async def _reach(self, call: str) -> None:
        if hook := self._centre.before.get(call):
            await hook()
        if not self._host.answers or self._host.boot != self._boot:
            raise NoAnswer("HOST_NO_ANSWER", f"the connection to {self._host.name} is gone")

    async def domains(self) -> tuple[Domain, ...]:
        """Every domain of the host."""
        await self._reach("domains")
        return tuple(domain.seen(vm_id) for vm_id, domain in self._host.domains.items())

    async def lookup(self, vm_id: UUID) -> Domain | None:
        """One domain, or None."""
        await self._reach("lookup")
        found = self._host.domains.get(vm_id)
        return None if found is None else found.seen(vm_id)

    async def define(self, spec: GuestSpec, generation: int) -> None:
        """Define, or redefine while inactive."""
        await self._reach("define")
        found = self._touchable(spec.vm_id, generation)
        if found is not None and found.state is DomainState.RUNNING:
            _same_generation(found, generation)
            return
        self._host.domains[spec.vm_id] = FakeDomain(spec.name, spec.memory_mib, generation)

    async def create(self, vm_id: UUID, generation: int) -> None:
        """Start the defined domain."""
        await self._reach("create")
        found = self._touchable(vm_id, generation)
        if found is None or found.generation != generation:
            raise Conflict("DOMAIN_NOT_DEFINED", f"{vm_id} is not defined with {generation}")
        if found.state is DomainState.RUNNING:
            _same_generation(found, generation)
            return
        if self._centre.refusing.get(vm_id, 0) > 0:
            self._centre.refusing[vm_id] -= 1
            raise Conflict("LIBVIRT_REFUSED", f"{found.name} cannot be started here")
        self._centre.run(self._host, vm_id, found)
        if vm_id in self._centre.short_lived:
            _end(found)

    async def shutdown(self, vm_id: UUID, generation: int) -> None:
        """Press the guest's power button."""
        await self._reach("shutdown")
        found = self._touchable(vm_id, generation)
        if found is not None and vm_id not in self._centre.deaf:
            _end(found)

    async def destroy(self, vm_id: UUID, generation: int) -> None:
        """End the domain now."""
        await self._reach("destroy")
        if (found := self._touchable(vm_id, generation)) is not None:
            _end(found)

    async def undefine(self, vm_id: UUID, generation: int) -> None:
        """Forget an inactive domain."""
        await self._reach("undefine")
        found = self._touchable(vm_id, generation)
        if found is not None and found.state is DomainState.RUNNING:
            raise Conflict("DOMAIN_RUNNING", f"{found.name} runs")
        self._host.domains.pop(vm_id, None)

    async def boot_mark(self) -> int | None:
        """The epoch that this boot was marked with."""
        await self._reach("boot_mark")
        return self._host.mark

    async def set_boot_mark(self, epoch: int) -> None:
        """Mark this boot."""
        await self._reach("set_boot_mark")
        self._host.mark = epoch

    async def list_foreign(self) -> tuple[ForeignGuest, ...]:
        """Every domain without our mark."""
        await self._reach("list_foreign")
        found = (domain.described(vm_id) for vm_id, domain in self._host.domains.items())
        return tuple(guest for guest in found if guest.generation is None)

    async def describe_foreign(self, guest: UUID | str) -> ForeignGuest | None:
        """One domain by UUID or name."""
        await self._reach("describe_foreign")
        known = self._host.domains.items()
        return next((d.described(key) for key, d in known if guest in (key, d.name)), None)

    async def adopt(self, guest_id: UUID, generation: int, claim: UUID) -> None:
        """Mark a guest, in what runs and in what is defined."""
        await self._reach("adopt")
        found = self._host.domains.get(guest_id)
        if found is None:
            raise NotFound("GUEST_NOT_FOUND", f"{self._host.name} knows no guest {guest_id}")
        refuse_claimed(found.name, found.generation, found.claim, claim)
        if found.autostart:
            raise autostarts(found.name)
        found.generation, found.claim = generation, claim
        if found.state is DomainState.RUNNING:
            found.running = generation

    async def disown(self, guest_id: UUID, claim: UUID) -> None:
        """Take the mark of one import away."""
        await self._reach("disown")
        found = self._host.domains.get(guest_id)
        if found is not None and found.claim == claim:
            found.generation = found.running = found.claim = None

    def _touchable(self, vm_id: UUID, generation: int) -> FakeDomain | None:
        found = self._host.domains.get(vm_id)
        if found is None:
            return None
        if found.generation is None:
            raise Conflict("DOMAIN_FOREIGN", f"{found.name} is not ours")
        if max(found.generation, found.running or 0) > generation:
            raise Superseded("GENERATION_STALE", f"{found.name} is newer than {generation}")
        return found


class FakeHypervisor:
    """Implements `Hypervisor`."""

    def __init__(self, centre: DataCentre) -> None:
        self._centre = centre

    @asynccontextmanager
    async def session(self, uri: str, deadline_s: float) -> AsyncIterator[FakeSession]:
        """A connection to the host's present boot."""
        if hook := self._centre.before.get("open"):
            await hook()
        host = self._centre.at(uri)
        yield FakeSession(self._centre, host)

    async def poll(self, uri: str, deadline_s: float) -> HostReading:
        """Read the host."""
        host = self._centre.at(uri)
        seen = [domain.seen(vm_id) for vm_id, domain in host.domains.items()]
        return HostReading(
            guests=tuple(GuestStats(vm_id=d.vm_id, name=d.name, state=d.state) for d in seen),
            boot_mark=host.mark,
            memory_total_mib=host.memory_mib,
            memory_free_mib=host.memory_mib,
            cpus=host.cpus,
            took_s=0.001,
        )

    async def knock(self, uri: str, deadline_s: float) -> Knock:
        """What comes back from the host's door."""
        if hook := self._centre.before.get("knock"):
            await hook()
        host = next((host for host in self._centre.hosts.values() if host.uri == uri), None)
        if host is None or not (host.powered and host.reachable):
            return Knock.SILENT
        return Knock.OPEN if host.frozen else Knock.ANSWERS


class FakePower:
    """Implements `PowerSwitch`; a device is named `bmc-<host>`, more than one `bmc-<host>-<n>`."""

    def __init__(self, centre: DataCentre) -> None:
        self._centre = centre

    def _host(self, device: FenceDevice) -> FakeHost:
        return self._centre.hosts[device.name.split("-")[1]]

    async def read(self, device: FenceDevice) -> PowerReading:
        """What the controller says."""
        host = self._host(device)
        if host.bmc is Bmc.DEAD:
            return PowerReading.UNKNOWN
        if host.bmc is Bmc.LYING:
            return PowerReading.OFF
        if host.cut_in is not None:
            host.cut_in -= 1
            if host.cut_in <= 0:
                host.lose_power()
        return PowerReading.ON if host.powered else PowerReading.OFF

    async def off(self, device: FenceDevice) -> None:
        """Take the command."""
        host = self._heard(device)
        self._centre.powered_off.append(host.name)
        if host.bmc is Bmc.SLOW:
            host.cut_in = SLOW_READINGS
        elif host.bmc is Bmc.OK:
            host.lose_power()

    async def on(self, device: FenceDevice) -> None:
        """Take the command."""
        self._heard(device).get_power()

    def _heard(self, device: FenceDevice) -> FakeHost:
        host = self._host(device)
        if host.bmc is Bmc.DEAD:
            raise NoAnswer("BMC_NO_ANSWER", f"{device.name} does not answer")
        return host


class Gate:
    """Holds whoever comes to it until it is opened, and tells that someone came."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self._opened = asyncio.Event()

    async def __call__(self) -> None:
        """Wait at the gate."""
        self.reached.set()
        await self._opened.wait()

    def open(self) -> None:
        """Let everybody through from now on."""
        self._opened.set()


def lost_answer(host: str) -> OutcomeUnknown:
    """What a driver raises for a call that was sent and never answered."""
    return OutcomeUnknown("ANSWER_LOST", f"{host} did not say how the call ended")


def _end(domain: FakeDomain) -> None:
    domain.state, domain.running = DomainState.SHUTOFF, None


def _same_generation(found: FakeDomain, generation: int) -> None:
    if found.running != generation:
        raise Conflict("DOMAIN_RUNNING_OLDER", f"{found.name} runs with {found.running}")
