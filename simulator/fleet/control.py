"""A person's hands on a fleet: the same faults that `holdfast lab` makes on real hosts."""

from enum import StrEnum
from typing import Any, Protocol

from domain.base import Frozen
from domain.errors import NotFound
from simulator.world.centre import DataCentre
from simulator.world.host import Bmc, Libvirtd, VirtualHost
from simulator.world.network import Net


class Mode(StrEnum):
    """How a power controller behaves, as the lab's do."""

    OK = "ok"
    DEAD = "dead"
    LYING = "lying"
    HANGING = "hanging"


class HostStatus(Frozen):
    """How one host fares, in the words of the lab."""

    name: str
    uri: str
    power: bool
    link: bool
    libvirt: str  # answers, silent, frozen or off
    bmc: str
    guests: tuple[str, ...]


class FleetStatus(Frozen):
    """How a fleet fares."""

    name: str
    network: str
    folder: str
    hosts: tuple[HostStatus, ...]


class Copies(Frozen):
    """Where a VM runs now, and the most copies that there ever were at a time."""

    vm: str
    hosts: tuple[str, ...]
    most: int


class Control(Protocol):
    """What can be asked of a fleet by its socket, beside the ports of the engine."""

    async def status(self) -> FleetStatus:
        """Every host; changes nothing."""
        ...

    async def copies(self) -> tuple[Copies, ...]:
        """Every VM that ever ran, counted by the fleet itself at each start."""
        ...

    async def is_built(self) -> bool:
        """Whether the engine's inventory of this fleet was completed once."""
        ...

    async def set_built(self) -> None:
        """Remember that it was; for ever."""
        ...

    async def crash(self, host: str) -> None:
        """Cut a host's power; its power controller lives on and says off."""
        ...

    async def power_on(self, host: str) -> None:
        """Switch a host on and plug its cable in; it boots."""
        ...

    async def isolate(self, host: str) -> None:
        """Pull a host's cable; its guests run on, its power controller stays reachable."""
        ...

    async def heal(self, host: str) -> None:
        """Undo `isolate` and `hang`."""
        ...

    async def hang(self, host: str) -> None:
        """Freeze libvirtd; the guests run on."""
        ...

    async def unhang(self, host: str) -> None:
        """Let a frozen libvirtd go on."""
        ...

    async def bmc(self, host: str, mode: Mode) -> None:
        """Change how a host's power controller behaves."""
        ...


class Hands:
    """Implements the faults and the looks of `Control` on a data centre."""

    def __init__(self, centre: DataCentre, folder: str) -> None:
        self._centre = centre
        self._network = centre.networks[Net.MANAGEMENT]
        self._folder = folder
        # Those that run already are of a world that was saved.
        self._names = {
            vm_id: domain.name
            for host in centre.hosts.values()
            for vm_id, domain in host.domains.items()
            if domain.alive
        }
        centre.happenings.observers.append(self._note)

    async def status(self) -> FleetStatus:
        """Every host."""
        hosts = tuple(self._status_of(host) for host in self._centre.hosts.values())
        return FleetStatus(name="fleet", network="virtual", folder=self._folder, hosts=hosts)

    async def copies(self) -> tuple[Copies, ...]:
        """Every VM, in the order of their first starts."""
        return tuple(
            Copies(
                vm=name,
                hosts=tuple(self._centre.copies(vm_id)),
                most=self._centre.copies_max.get(vm_id, 0),
            )
            for vm_id, name in self._names.items()
        )

    def _note(self, kind: str, facts: dict[str, Any]) -> None:
        if kind == "guest.started":
            self._names[facts["vm_id"]] = facts["vm"]

    async def crash(self, host: str) -> None:
        """Cut the supply."""
        self._host(host).lose_power()

    async def power_on(self, host: str) -> None:
        """A new boot, unless it is on."""
        found = self._host(host)
        self._network.rejoin(found.name)
        found.get_power()

    async def isolate(self, host: str) -> None:
        """Both directions, towards everybody."""
        self._network.isolate(self._host(host).name)

    async def heal(self, host: str) -> None:
        """A host that is off stays off."""
        found = self._host(host)
        self._network.rejoin(found.name)
        found.set_libvirtd(Libvirtd.ALIVE)

    async def hang(self, host: str) -> None:
        """Nothing on a host that is off."""
        found = self._host(host)
        if found.up:
            found.set_libvirtd(Libvirtd.HUNG)

    async def unhang(self, host: str) -> None:
        """What came in meanwhile is carried out now."""
        self._host(host).set_libvirtd(Libvirtd.ALIVE)

    async def bmc(self, host: str, mode: Mode) -> None:
        """From now on."""
        self._host(host).bmc = Bmc(mode.value)

    def _host(self, name: str) -> VirtualHost:
        found = self._centre.hosts.get(name)
        if found is None:
            names = list(self._centre.hosts)
            shown = ", ".join(names[:8]) + (" …" if len(names) > 8 else "")
            raise NotFound(
                "LAB_HOST_UNKNOWN",
                f"the fleet in {self._folder} has no host {name}",
                next_step=f"one of {shown}",
            )
        return found

    def _status_of(self, host: VirtualHost) -> HostStatus:
        linked = self._network.answers("engine", host.name)
        return HostStatus(
            name=host.name,
            uri=host.uri,
            power=host.powered,
            link=linked and host.powered,
            libvirt=_libvirt(host, linked=linked),
            bmc=host.bmc.value,
            guests=tuple(sorted(d.name for d in host.domains.values() if d.alive)),
        )


def _libvirt(host: VirtualHost, *, linked: bool) -> str:
    if not host.powered:
        return "off"
    if host.frozen:
        return "frozen"
    return "answers" if linked and host.answers else "silent"
