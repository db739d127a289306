"""The data centre as it is, which the engine only sees through the ports.

It counts copies of each VM itself, also on hosts that nobody can reach, so a second copy is seen
even when the engine could not have seen it. Whatever happens is told to observers.

Promised    Faults of hosts, networks, storage, and controllers that tell the truth or nothing.
Outside     A person who starts a domain, and a controller whose lie no knock could have told. Both
            are noted in `outside`, and a second copy that follows from them says so.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from copy import copy
from dataclasses import dataclass
from random import Random
from uuid import UUID

from domain.errors import NoAnswer
from domain.inventory import FenceDevice
from domain.readings import StateReason
from simulator.world.happenings import Happenings
from simulator.world.host import Libvirtd, VirtualDomain, VirtualHost
from simulator.world.latency import Latency
from simulator.world.network import Net, Network
from simulator.world.storage import SharedStorage, StorageState

Hook = Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class Double:
    """A moment at which a VM had more than one copy; `outside` says why nobody promised better."""

    vm_id: UUID
    name: str
    hosts: tuple[str, ...]
    outside: str | None


class DataCentre:
    """The world as it is."""

    def __init__(self, *, latency: Latency | None = None, random: Random | None = None) -> None:
        self.latency = latency  # None: every call is carried out at once
        self.happenings = Happenings()
        self.networks = {net: Network(net, self.happenings) for net in Net}
        self.storage = SharedStorage()
        self.hosts: dict[str, VirtualHost] = {}
        self.copies_max: defaultdict[UUID, int] = defaultdict(int)
        self.doubles: list[Double] = []
        self.outside: list[str] = []  # what lies outside of the promised faults
        self.powered_off: list[str] = []  # hosts, each time a controller took the command
        self.deaf: set[UUID] = set()  # guests that ignore the power button
        self.unending: set[UUID] = set()  # guests whose process outlives every kill
        self.refusing: dict[UUID, int] = {}  # guests whose next starts libvirt refuses
        self.short_lived: set[UUID] = set()  # guests that end right after they were started
        self.not_ready: set[UUID] = set()  # guests that run, and whose services do not answer
        self.stalled: set[UUID] = set()  # guests whose migrations do not get on
        self.wired: dict[str, str] = {}  # devices that switch another host than their own: whose
        self.before: dict[str, Hook] = {}  # runs just before a call of that name is sent
        self._random = random or Random()

    def add(
        self,
        name: str,
        memory_mib: int = 1024,
        *,
        cpus: int = 4,
        rack: str = "rack-1",
        boot_s: float = 0.0,
    ) -> VirtualHost:
        """A new host, up and empty."""
        self.hosts[name] = VirtualHost(
            name, memory_mib, cpus, rack, boot_s, happenings=self.happenings
        )
        return self.hosts[name]

    def host_at(self, uri: str) -> VirtualHost | None:
        """The host behind a URI, whether it answers or not."""
        return next((host for host in self.hosts.values() if host.uri == uri), None)

    def at(self, uri: str) -> VirtualHost:
        """The host behind a URI; NoAnswer when it is not heard."""
        host = self.host_at(uri)
        if host is None or not host.answers:
            raise NoAnswer("HOST_NO_ANSWER", f"{uri} does not answer")
        return host

    def host_of(self, device: FenceDevice) -> VirtualHost:
        """The host whose power a device cuts: `bmc-<host>`, more than one `bmc-<host>-<n>`.

        Its outlets are `pdu-<host>-<n>`.
        """
        if (other := self.wired.get(device.name)) is not None:
            return self.hosts[other]
        name = device.name.removeprefix("bmc-").removeprefix("pdu-")
        return self.hosts[name if name in self.hosts else name.rpartition("-")[0]]

    async def ahead_of(self, call: str) -> None:
        """What a test or a fault plan wants to happen just before a call is sent."""
        if hook := self.before.get(call):
            await hook()

    def hears(self, machine: str, host: VirtualHost) -> bool:
        """Whether a knock from this machine would find life."""
        linked = self.networks[Net.MANAGEMENT].answers(machine, host.name)
        return linked and host.up and host.reachable

    # Guests

    def run(
        self, host: VirtualHost, vm_id: UUID, domain: VirtualDomain, *, by_hand: bool = False
    ) -> None:
        """A process begins; the copies of the VM are counted."""
        domain.begin(by_hand=by_hand)
        host.domains[vm_id] = domain
        self._runs("guest.started", host, vm_id, by_hand=by_hand)

    def arrive(self, host: VirtualHost, vm_id: UUID) -> None:
        """A copy that a migration held goes on here."""
        host.domains[vm_id].begin()
        self._runs("guest.arrived", host, vm_id, by_hand=False)

    def _runs(self, kind: str, host: VirtualHost, vm_id: UUID, *, by_hand: bool) -> None:
        domain = host.domains[vm_id]
        copies = self.copies(vm_id)
        self.copies_max[vm_id] = max(self.copies_max[vm_id], len(copies))
        self.happenings.tell(
            kind,
            vm=domain.name,
            vm_id=vm_id,
            host=host.name,
            generation=domain.running,
            copies=tuple(copies),
            by_hand=by_hand,
        )
        if len(copies) > 1:
            self._doubled(host, vm_id, domain.name, tuple(copies))

    def add_foreign(self, host: VirtualHost, name: str, *, running: bool = True) -> UUID:
        """A guest that somebody else defined, and started unless told otherwise."""
        guest_id = UUID(int=self._random.getrandbits(128), version=4)
        domain = VirtualDomain(name, 128, None)
        host.domains[guest_id] = domain
        if running:
            self.run(host, guest_id, domain)
        return guest_id

    def copies(self, vm_id: UUID) -> list[str]:
        """Names of the hosts on which the VM runs; what a migration holds paused does not."""
        return sorted(
            host.name
            for host in self.hosts.values()
            if (found := host.domains.get(vm_id)) is not None and found.alive and not found.held
        )

    def _doubled(self, host: VirtualHost, vm_id: UUID, name: str, copies: tuple[str, ...]) -> None:
        reasons = [
            reason
            for copied in copies
            if (reason := self._outside_reason(self.hosts[copied], vm_id, name, host))
        ]
        why = reasons[0] if reasons else None
        self.doubles.append(Double(vm_id, name, copies, why))
        self.happenings.tell("guest.doubled", vm=name, vm_id=vm_id, hosts=copies, outside=why)

    def _outside_reason(
        self, host: VirtualHost, vm_id: UUID, name: str, newest: VirtualHost
    ) -> str | None:
        if host.domains[vm_id].by_hand:
            return f"{name} was started on {host.name} by hand"
        if host is newest or not host.lied_in_silence:
            return None
        why = f"{name} was started on {newest.name} because the controller of {host.name} lied"
        self.note_outside(why)
        return why

    def note_outside(self, what: str) -> None:
        """Keep a note of something that nobody promised to survive."""
        self.outside.append(what)
        self.happenings.tell("outside", what=what)

    # Power of more than one host

    def rack(self, name: str) -> list[VirtualHost]:
        """The hosts of a rack, in the order in which they were added."""
        return [host for host in self.hosts.values() if host.rack == name]

    def lose_rack(self, name: str) -> None:
        """A whole rack loses its supply."""
        for host in self.rack(name):
            host.lose_power()

    def power_rack(self, name: str) -> None:
        """A rack has its supply again, and its hosts come up by themselves."""
        for host in self.rack(name):
            host.get_power()

    # Storage

    def set_storage(self, state: StorageState) -> None:
        """Change how the storage domain serves."""
        if state is not self.storage.state:
            self.storage.state = state
            self.happenings.tell("storage.changed", storage=self.storage.name, state=state)

    def storage_of(self, host: VirtualHost) -> StorageState:
        """The storage domain as a host sees it."""
        linked = self.networks[Net.STORAGE].answers(host.name, self.storage.name)
        return self.storage.state if linked else StorageState.GONE

    def write_lease(self, host: VirtualHost) -> bool:
        """Have a host write its lease now; whether the write came through.

        As with calls, the write is done when only its answer is lost.
        """
        link = self.networks[Net.STORAGE]
        arrives = host.up and link.carries(host.name, self.storage.name)
        if not arrives or self.storage.state is not StorageState.OK:
            return False
        self.storage.leases.write(host.name, asyncio.get_running_loop().time())
        return link.carries(self.storage.name, host.name)

    # A person with a shell on a host, behind the engine's back

    def start_by_hand(self, host: VirtualHost, vm_id: UUID) -> bool:
        """Start a defined domain; False where that cannot be done. Outside of the promise."""
        found = host.domains.get(vm_id)
        if not _at_hand(host) or found is None or found.alive:
            return False
        self.note_outside(f"{found.name} was started on {host.name} by hand")
        self.run(host, vm_id, found, by_hand=True)
        return True

    def copy_by_hand(self, source: VirtualHost, target: VirtualHost, vm_id: UUID) -> bool:
        """Define a VM on another host as its first host has it, and start it there."""
        found = source.domains.get(vm_id)
        if not _at_hand(target) or found is None or vm_id in target.domains:
            return False
        made = copy(found)
        made.end()
        target.domains[vm_id] = made
        return self.start_by_hand(target, vm_id)

    def destroy_by_hand(self, host: VirtualHost, vm_id: UUID) -> bool:
        """End a running domain; False where that cannot be done. The engine has to cope."""
        found = host.domains.get(vm_id)
        if not _at_hand(host) or found is None or not found.alive:
            return False
        host.end(vm_id, "destroyed by hand", StateReason.DESTROYED)
        return True

    def undefine_by_hand(self, host: VirtualHost, vm_id: UUID) -> bool:
        """Forget an inactive domain; False where that cannot be done. The engine has to cope."""
        found = host.domains.get(vm_id)
        if not _at_hand(host) or found is None or found.alive:
            return False
        del host.domains[vm_id]
        self.happenings.tell(
            "guest.undefined", vm=found.name, vm_id=vm_id, host=host.name, by_hand=True
        )
        return True


def _at_hand(host: VirtualHost) -> bool:
    return host.up and host.libvirtd is Libvirtd.ALIVE
