"""Where the demo takes place: a real lab where one can be, a fleet without hardware elsewhere.

On either the copies of each VM are counted by something that knows nothing of the engine: in the
lab by a sampler that reads /proc, in the fleet by the virtual data centre itself at each start.
"""

import asyncio
import importlib.util
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from cli.demo_report import Count
from lab import requirements
from lab.guest_image import cache_folder
from lab.inventory import HostInventory, Inventory
from lab.lab import Lab
from simulator.fleet.control import Copies
from simulator.fleet.drivers import AGENT, FarControl
from simulator.fleet.place import socket_of
from simulator.fleet.server import made
from simulator.fleet.spec import FleetSpec

NETWORK = 91
"""Third byte of the demo lab's addresses, so that it lies beside a lab that is up already."""

FLEET = FleetSpec(hosts=3, vms=0)
DISK_BYTES = 4 * 1024 * 1024

Json = dict[str, Any]


@dataclass(frozen=True)
class Machine:
    """One host as the API wants it, and its power controller."""

    name: str
    uri: str
    device: Json


class Ground(Protocol):
    """What the demo needs of the place where it happens."""

    @property
    def virt_type(self) -> str:
        """Of the cluster."""
        ...

    def machines(self) -> tuple[Machine, ...]:
        """The hosts."""
        ...

    def hardware(self, vm: str) -> Json:
        """What a VM boots from; made when it is asked for."""
        ...

    async def cut(self, host: str) -> None:
        """Cut a host's power."""
        ...

    def counting(self) -> AbstractAsyncContextManager[Callable[[], Awaitable[Count]]]:
        """Count copies; what is given tells what was counted up to then."""
        ...


class LabGround:
    """Implements `Ground` on real hosts."""

    virt_type = "qemu"

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._inventory: Inventory = lab.inventory()

    def machines(self) -> tuple[Machine, ...]:
        """As the lab knows them."""
        return tuple(Machine(h.name, h.uri, _device(h)) for h in self._inventory.hosts)

    def hardware(self, vm: str) -> Json:
        """A disk on the shared storage, and the lab's kernel."""
        disk = Path(self._inventory.shared) / f"{vm}.img"
        with disk.open("wb") as file:
            file.truncate(DISK_BYTES)
        return {
            # QEMU takes no lock on a shareable disk: nothing but the engine stands between
            # this VM and a second copy.
            "disks": [{"path": str(disk), "shareable": True}],
            "boot": self._inventory.guest.model_dump(mode="json"),
        }

    async def cut(self, host: str) -> None:
        """Silently."""
        await asyncio.to_thread(self._lab.crash, host)

    @asynccontextmanager
    async def counting(self) -> AsyncIterator[Callable[[], Awaitable[Count]]]:
        """By the sampler."""
        with self._lab.sampler() as sampler:

            async def counted() -> Count:
                return sampler.result()

            yield counted


class FleetGround:
    """Implements `Ground` on the fleet of a folder."""

    virt_type = "kvm"

    def __init__(self, var: Path) -> None:
        self._control = FarControl(socket_of(var))

    def machines(self) -> tuple[Machine, ...]:
        """As the fleet makes them."""
        return tuple(
            Machine(name, host.uri, {"name": f"bmc-{name}", "agent": AGENT})
            for name, host in made(FLEET, None).hosts.items()
        )

    def hardware(self, vm: str) -> Json:
        """Nothing: a virtual guest boots from nothing."""
        return {}

    async def cut(self, host: str) -> None:
        """As silent."""
        await self._control.crash(host)

    @asynccontextmanager
    async def counting(self) -> AsyncIterator[Callable[[], Awaitable[Count]]]:
        """By the fleet, from its first start on."""

        async def counted() -> Count:
            return FleetCount(await self._control.copies())

        yield counted


class FleetCount:
    """Copies as the fleet itself counts them: at each start, so that it is never blind."""

    rate_hz = None
    longest_gap_s = 0.0

    def __init__(self, copies: tuple[Copies, ...]) -> None:
        self._copies = {each.vm: each for each in copies}

    def copies_max(self, vm: str) -> int:
        """The most at a time."""
        found = self._copies.get(vm)
        return 0 if found is None else found.most

    def hosts_of(self, vm: str) -> tuple[str, ...]:
        """Where it runs now."""
        found = self._copies.get(vm)
        return () if found is None else found.hosts


def why_no_lab() -> str:
    """What keeps real hosts from being made here; empty when nothing does."""
    found = list(requirements.obstacles())
    if importlib.util.find_spec("libvirt") is None:
        found.append("the Python package libvirt-python is missing")
    return "; ".join(found)


@asynccontextmanager
async def running_lab(var: Path, say: Callable[[str], None]) -> AsyncIterator[LabGround]:
    """A lab of three real hosts, gone after the block; needs root."""
    # The guest that `make setup` has built lies beside the demo's folder.
    cache = cache_folder(var.parent)
    lab = Lab(name="demo", k=NETWORK, hosts=3, var=var, cache=cache, say=say)
    await asyncio.to_thread(lab.down)
    try:
        await asyncio.to_thread(lab.up)
        yield LabGround(lab)
    finally:
        await asyncio.to_thread(lab.down)


def _device(host: HostInventory) -> Json:
    return {
        "name": f"bmc-{host.name}",
        "agent": host.bmc.agent,
        "options": host.bmc.options,
        "secrets": {"password": host.bmc.password},
        "shares_power": False,
    }
