"""A foreign guest under a real libvirtd and QEMU of its own: marked, and later defined by us."""

import asyncio
import os
import shutil
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

import libvirt
import pytest

from domain.inventory import Disk, GuestSpec, Nic, NicModel, VirtType, mac_of
from drivers.libvirt_hypervisor import LibvirtHypervisor
from tests.import_scene import spec_of

pytestmark = pytest.mark.lab

LONG_S = 60.0
FOLDERS = ("/run", "/var/lib/libvirt", "/var/log", "/etc/libvirt")
INIT = """
set -e
for folder in {folders}; do mount -t tmpfs none $folder; done
mkdir -p /etc/libvirt/qemu
cp {folder}/qemu.conf /etc/libvirt/qemu.conf
exec libvirtd --listen -f {folder}/libvirtd.conf
"""
DAEMON = """
listen_tls = 0
listen_tcp = 1
auth_tcp = "none"
listen_addr = "127.0.0.1"
tcp_port = "{port}"
host_uuid = "6f6a52d8-8a3c-4d26-9f0a-5a0f6d1d0002"
"""
QEMU = """
user = "root"
group = "root"
security_driver = "none"
cgroup_controllers = []
namespaces = []
remember_owner = 0
stdio_handler = "file"
"""
GUEST = """
<domain type='qemu'><name>by-hand</name><memory unit='MiB'>64</memory><vcpu>1</vcpu>
  <os><type arch='x86_64' machine='q35'>hvm</type><boot dev='hd'/></os>
  <features><acpi/><apic/></features>
  <devices>
    <disk type='file' device='disk'><driver name='qemu' type='raw'/>
      <source file='{disk}'/><target dev='vda' bus='virtio'/></disk>
    <disk type='file' device='cdrom'><target dev='sda' bus='sata'/></disk>
    <interface type='user'><model type='virtio'/></interface>
    <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
    <rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>
  </devices></domain>
"""


@dataclass
class Machine:
    """A host of its own, and a folder for disks."""

    folder: Path
    uri: str

    def disk(self, name: str) -> Path:
        """An empty disk of 1 MiB."""
        path = self.folder / name
        path.write_bytes(bytes(1 << 20))
        return path


@pytest.fixture
async def machine(tmp_path: Path, needs: Callable[[bool, str], None]) -> AsyncIterator[Machine]:
    needs(os.geteuid() == 0, "root")
    needs(shutil.which("libvirtd", path="/usr/sbin") is not None, "libvirt-daemon")
    needs(shutil.which("qemu-system-x86_64") is not None, "qemu-system-x86")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    (tmp_path / "libvirtd.conf").write_text(DAEMON.format(port=port))
    (tmp_path / "qemu.conf").write_text(QEMU)
    process = await asyncio.create_subprocess_exec(
        *("setpriv", "--pdeathsig", "KILL", "unshare", "-m", "--propagation", "private"),
        *("sh", "-c", INIT.format(folder=tmp_path, folders=" ".join(FOLDERS))),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    async with asyncio.timeout(LONG_S):
        while not _answers(port):
            assert process.returncode is None, "libvirtd ended at its start"
            await asyncio.sleep(0.02)
    made = Machine(tmp_path, f"qemu+tcp://127.0.0.1:{port}/system")
    yield made
    _end_all(made.uri)
    process.kill()
    await process.wait()


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _end_all(uri: str) -> None:
    connection = libvirt.open(uri)
    for domain in connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE):
        domain.destroy()
    connection.close()


async def test_a_guest_of_somebody_else_is_marked_while_it_runs_and_becomes_ours_later(
    machine: Machine, hypervisor: LibvirtHypervisor
) -> None:
    by_hand = libvirt.open(machine.uri)
    domain = by_hand.defineXML(GUEST.format(disk=machine.disk("a.raw")))
    domain.create()
    guest_id, claim, number = UUID(domain.UUIDString()), uuid4(), domain.ID()
    async with hypervisor.session(machine.uri, LONG_S) as session:
        (guest,) = await session.list_foreign()
        await session.adopt(guest_id, 1, claim)
        assert (domain.ID(), domain.isActive()) == (number, 1), "it is the same process"
        assert await session.list_foreign() == ()
        await session.disown(guest_id, claim)
        assert await session.list_foreign() == (guest,)
        await session.adopt(guest_id, 1, claim)
        await session.destroy(guest_id, 1)
        await session.define(spec_of(guest, "ours"), 2)
        await session.create(guest_id, 2)
        found = await session.describe_foreign(guest_id)
    by_hand.close()
    assert guest.unsupported == ()
    assert guest.lost == ("channel", "empty CD-ROM drive sda", "memballoon", "rng")
    assert found
    assert (found.name, found.generation, found.alive) == ("ours", 2, True)
    assert (found.disks, found.machine, found.nics) == (guest.disks, guest.machine, guest.nics)
    assert found.lost == ()


@pytest.mark.parametrize(("kind", "cdrom_bus"), [("pc", "ide"), ("q35", "sata")])
async def test_qemu_takes_every_device_that_we_define_and_it_reads_back_the_same(
    machine: Machine, hypervisor: LibvirtHypervisor, kind: str, cdrom_bus: str
) -> None:
    spec = GuestSpec(
        vm_id=uuid4(),
        name=f"all-{kind}",
        memory_mib=64,
        vcpus=1,
        virt_type=VirtType.QEMU,
        machine=kind,
        disks=tuple(
            Disk.model_validate({"path": str(machine.disk(name)), **values})
            for name, values in (
                ("a.raw", {}),
                ("b.raw", {"bus": "scsi", "read_only": True}),
                ("c.raw", {"bus": cdrom_bus}),
                ("d.iso", {"bus": cdrom_bus, "device": "cdrom"}),
            )
        ),
        nics=tuple(
            Nic(network="user", mac=mac_of(UUID(int=1), number), model=model)
            for number, model in enumerate(NicModel)
        ),
    )
    async with hypervisor.session(machine.uri, LONG_S) as session:
        await session.define(spec, 1)
        await session.create(spec.vm_id, 1)
        found = await session.describe_foreign(spec.vm_id)
    assert found
    assert (found.alive, found.unsupported, found.lost) == (True, (), ())
    assert spec_of(found, spec.name).model_copy(update={"machine": kind}) == spec
