"""Many hosts on one machine: real libvirtd processes that serve libvirt's test driver over TCP.

Each daemon has a loopback address and a mount namespace with private files of its own. Needs root.
The test driver forgets its domains when the last connection closes, so the fleet keeps one open.
"""

import asyncio
import os
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import NAMESPACE_URL, UUID, uuid5

import libvirt

from drivers.libvirt_hypervisor import LibvirtHypervisor
from worker.child import bound_to_parent

PORT = 16509
START_S = 60.0
SESSION_S = 20.0
EPOCH = 1
DOMAIN = (
    "<domain type='test'><name>{name}</name><uuid>{uuid}</uuid><memory>65536</memory><vcpu>1</vcpu>"
    "<os><type>hvm</type></os></domain>"
)
INIT = """
set -e
mount -t tmpfs none /run
mount -t tmpfs none /var/lib/libvirt
exec libvirtd --listen -f "$1"
"""
CONFIG = """
listen_tls = 0
listen_tcp = 1
auth_tcp = "none"
listen_addr = "{address}"
tcp_port = "{port}"
min_workers = 1
max_workers = 4
host_uuid = "6f6a52d8-8a3c-4d26-9f0a-5a0f6d1d{number:04x}"
"""


def why_not() -> str | None:
    """Why no fleet can be made here, or None."""
    if os.geteuid() != 0:
        return "needs root (mount namespaces)"
    for program, where in (("libvirtd", "libvirt-daemon"), ("unshare", "util-linux")):
        if shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin") is None:
            return f"needs {program} ({where})"
    return None


@dataclass
class Fleet:
    """Running hosts."""

    uris: list[str] = field(default_factory=list)
    processes: list[asyncio.subprocess.Process] = field(default_factory=list)
    kept: list[libvirt.virConnect] = field(default_factory=list)

    def cpu_s(self) -> float:
        """Processor seconds of all daemons so far."""
        return sum(_cpu_s(process.pid) for process in self.processes)


@asynccontextmanager
async def running_fleet(folder: Path, hosts: int, guests: int) -> AsyncIterator[Fleet]:
    """Hosts with running guests and the boot mark of epoch 1; gone after the block."""
    await asyncio.to_thread((folder / "drivers").mkdir, parents=True, exist_ok=True)
    async with AsyncExitStack() as stack:
        fleet = Fleet()
        stack.push_async_callback(_end, fleet)
        for number in range(1, hosts + 1):
            await _start(fleet, folder, number)
        await asyncio.wait_for(_until_listening(fleet), START_S)
        for uri in fleet.uris:
            fleet.kept.append(await asyncio.to_thread(_fill, uri, guests))
        hypervisor = LibvirtHypervisor()
        for uri in fleet.uris:
            async with hypervisor.session(uri, SESSION_S) as session:
                await session.set_boot_mark(EPOCH)
        yield fleet


async def _start(fleet: Fleet, folder: Path, number: int) -> None:
    address = _address(number)
    config = folder / f"{number}.conf"
    config.write_text(CONFIG.format(address=address, port=PORT, number=number))
    init = ["unshare", "--mount", "--propagation", "private", "sh", "-c", INIT, "sh", str(config)]
    process = await asyncio.create_subprocess_exec(
        *bound_to_parent(init),
        env={**os.environ, "LIBVIRT_DRIVER_DIR": str(folder / "drivers")},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    fleet.processes.append(process)
    fleet.uris.append(f"test+tcp://{address}:{PORT}/default")


def _address(number: int) -> str:
    return f"127.77.{number // 250}.{number % 250 + 1}"


async def _until_listening(fleet: Fleet) -> None:
    for number, process in enumerate(fleet.processes, start=1):
        while not _listens(_address(number)):
            if process.returncode is not None:
                raise RuntimeError(f"libvirtd {number} ended with code {process.returncode}")
            await asyncio.sleep(0.05)


def _listens(address: str) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((address, PORT)) == 0


def guest_id(uri: str, number: int) -> UUID:
    """The id of a guest of a host."""
    return uuid5(NAMESPACE_URL, f"{uri}#{number}")


def _fill(uri: str, guests: int) -> libvirt.virConnect:
    connection = libvirt.open(uri)
    for number in range(guests):
        name = f"guest-{number}"
        connection.createXML(DOMAIN.format(name=name, uuid=guest_id(uri, number)))
    return connection


async def _end(fleet: Fleet) -> None:
    for connection in fleet.kept:
        connection.close()
    for process in fleet.processes:
        if process.returncode is None:
            process.kill()
    await asyncio.gather(*(process.wait() for process in fleet.processes))


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
