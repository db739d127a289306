"""Definitions of other people: what a VM of ours can say of them, what it cannot, what is lost."""

from uuid import UUID, uuid4

import pytest

from domain.errors import Invalid
from domain.foreign import ForeignGuest
from domain.inventory import (
    Boot,
    Disk,
    DiskBus,
    DiskDevice,
    GuestSpec,
    Nic,
    NicModel,
    VirtType,
    mac_of,
)
from domain.readings import DomainState
from drivers.domain_xml import domain_xml
from drivers.foreign_xml import Definition, cpu_losses, read_definition
from tests.import_scene import spec_of

pytestmark = pytest.mark.unit

GUEST = UUID("4b4d1f1e-0000-4000-8000-00000000f0f0")
DISK = (
    "<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='/d.qcow2'/>"
    "<target dev='vda' bus='virtio'/></disk>"
)
BASE = f"""<domain type='kvm' id='3'><name>My Database</name><uuid>{GUEST}</uuid>
  <memory unit='KiB'>100000</memory><currentMemory unit='KiB'>100000</currentMemory>
  <vcpu placement='static'>2</vcpu>
  <os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type><boot dev='hd'/></os>
  <features><acpi/><apic/></features><clock offset='utc'/>
  <on_poweroff>destroy</on_poweroff><on_reboot>restart</on_reboot><on_crash>destroy</on_crash>
  <devices><emulator>/usr/bin/qemu-system-x86_64</emulator>{DISK}
    <controller type='pci' index='0' model='pcie-root'/><memballoon model='none'/></devices>
</domain>"""


def read(*, top: str = "", device: str = "", old: str = "", new: str = "") -> Definition:
    """The base definition with something added or replaced."""
    xml = BASE.replace("<devices>", f"{top}<devices>{device}")
    assert not old or old in xml
    return read_definition(xml.replace(old, new))


def disk(inner: str = "", kind: str = "file", device: str = "disk", target: str = "") -> str:
    """A second disk."""
    target = target or "<target dev='vdb' bus='virtio'/>"
    source = "" if "<source" in inner else "<source file='/e.raw'/>"
    return f"<disk type='{kind}' device='{device}'>{source}{inner}{target}</disk>"


def nic(inner: str, kind: str = "bridge") -> str:
    """A network card on br0."""
    source = "" if "<source" in inner else "<source bridge='br0'/>"
    mac = "<mac address='52:54:00:00:00:01'/>"
    return f"<interface type='{kind}'>{mac}{source}{inner}</interface>"


def test_a_plain_guest_is_read_whole_and_nothing_is_lost() -> None:
    found = read(device=nic("<model type='virtio'/>"))
    assert (found.guest_id, found.name, found.virt_type) == (GUEST, "My Database", "kvm")
    assert (found.memory_mib, found.vcpus, found.machine) == (98, 2, "pc-q35-7.2")
    assert found.disks == [Disk(path="/d.qcow2", format="qcow2")]
    assert [(n.mac, n.bridge, n.model) for n in found.nics] == [
        ("52:54:00:00:00:01", "br0", NicModel.VIRTIO)
    ]
    assert (found.unsupported, found.lost, found.boot) == (set(), set(), None)


FULL = GuestSpec(
    vm_id=uuid4(),
    name="db",
    memory_mib=128,
    vcpus=2,
    virt_type=VirtType.KVM,
    machine="q35",
    boot=Boot(kernel="/k", initrd="/i", cmdline="console=ttyS0 x=<&>"),
    disks=(
        Disk(path="/a & b", shareable=True),
        Disk(path="/dev/mapper/c", format="qcow2", bus=DiskBus.SCSI, read_only=True),
        Disk(path="/cd.iso", bus=DiskBus.SATA, device=DiskDevice.CDROM),
    ),
    nics=(
        Nic(network="br0", bridge="br0", mac=mac_of(GUEST, 0)),
        Nic(network="user", mac=mac_of(GUEST, 1), model=NicModel.E1000E),
    ),
)


@pytest.mark.parametrize("boot", [FULL.boot, None], ids=["kernel", "disk"])
def test_whatever_we_define_ourselves_is_read_back_as_the_same_vm(boot: Boot | None) -> None:
    spec = FULL.model_copy(update={"boot": boot})
    xml = domain_xml(spec, 1)
    found = read_definition(xml)
    guest = ForeignGuest(
        guest_id=found.guest_id,
        name=found.name,
        state=DomainState.RUNNING,
        memory_mib=found.memory_mib,
        vcpus=found.vcpus,
        virt_type=found.virt_type,
        machine=found.machine,
        boot=found.boot,
        disks=tuple(found.disks),
        nics=tuple(found.nics),
    )
    assert spec_of(guest, spec.name) == spec
    assert (found.unsupported, found.lost | cpu_losses(xml)) == (set(), set())


def test_a_network_has_the_name_that_the_caller_knows_it_by() -> None:
    guest = ForeignGuest(
        guest_id=GUEST,
        name="db",
        state=DomainState.SHUTOFF,
        memory_mib=98,
        vcpus=1,
        virt_type="kvm",
        nics=tuple(read(device=nic("") + nic("", "user")).nics),
    )
    names = [card.network for card in spec_of(guest, "x", {"br0": "lan", None: "out"}).nics]
    assert names == ["lan", "lan"]


HUGE = "9" * 5000
UNSUPPORTED = {
    "memory of more than 2147483647 MiB": {
        "old": "<memory unit='KiB'>100000",
        "new": f"<memory unit='KiB'>{HUGE}",
    },
    "more than 2147483647 CPUs": {"old": "static'>2</vcpu>", "new": "static'>2147483648</vcpu>"},
    "hostdev": {"device": "<hostdev mode='subsystem' type='pci'/>"},
    "tpm": {"device": "<tpm model='tpm-crb'/>"},
    "filesystem": {"device": "<filesystem type='mount'/>"},
    "something of next year": {"device": "<quantum/>"},
    "a setting of next year": {"top": "<entanglement/>"},
    "launchSecurity": {"top": "<launchSecurity type='sev'/>"},
    "commandline": {"top": "<q:commandline xmlns:q='http://libvirt.org/schemas/domain/qemu/1.0'/>"},
    "managed by OpenStack": {
        "top": "<metadata><n:instance xmlns:n='http://openstack.org/xmlns/libvirt/nova/1.1'/>"
        "</metadata>"
    },
    "domain type xen": {"old": "type='kvm'", "new": "type='xen'"},
    "architecture aarch64": {"old": "x86_64'", "new": "aarch64'"},
    "machine virt-7.2": {"old": "pc-q35-7.2", "new": "virt-7.2"},
    "no full virtualisation": {"old": ">hvm<", "new": ">exe<"},
    "firmware": {"old": "<os>", "new": "<os firmware='efi'>"},
    "firmware other": {"old": "<boot dev='hd'/>", "new": "<loader type='pflash'>/f</loader>"},
    "boots from network": {"old": "<boot dev='hd'/>", "new": "<boot dev='network'/>"},
    "boots from interface": {"device": nic("<boot order='1'/>")},
    "boots from disk other": {"old": "</devices>", "new": disk("<boot order='1'/>") + "</devices>"},
    "disk vdb on network": {"device": disk("<source protocol='rbd' name='p/v'/>", "network")},
    "disk vdb on volume": {"device": disk("<source pool='p' volume='v'/>", "volume")},
    "disk vdb: mirror": {"device": disk("<mirror type='file'/>")},
    "disk vdb: transient": {"device": disk("<transient/>")},
    "disk vdb: encryption": {"device": disk("<encryption format='luks'/>")},
    "disk vdb: reservations": {
        "device": disk("<source dev='/dev/sdc'><reservations managed='yes'/></source>", "block")
    },
    "disk vdb: format vmdk": {"device": disk("<driver type='vmdk'/>")},
    "disk sda: bus usb": {"device": disk(target="<target dev='sda' bus='usb'/>")},
    "disk fda: bus fdc, device floppy": {
        "device": disk(device="floppy", target="<target dev='fda' bus='fdc'/>")
    },
    "SCSI controller lsilogic": {"device": "<controller type='scsi' model='lsilogic'/>"},
    "NIC 52:54:00:00:00:01: a virtual port": {"device": nic("<virtualport type='openvswitch'/>")},
    "NIC 52:54:00:00:00:01: a VLAN tag": {"device": nic("<vlan><tag id='5'/></vlan>")},
    "NIC 52:54:00:00:00:01 on direct": {"device": nic("<source dev='eth0'/>", "direct")},
    "NIC 52:54:00:00:00:01 on network default": {
        "device": nic("<source network='default'/>", "network")
    },
    "NIC 52:54:00:00:00:01: model": {"device": nic("<model type='ne2k_pci'/>")},
}


@pytest.mark.parametrize("what", UNSUPPORTED)
def test_what_a_vm_of_ours_cannot_say_is_named_and_nothing_else_is(what: str) -> None:
    found = read(**UNSUPPORTED[what])
    (named,) = found.unsupported
    assert named.startswith(what) or what in named or what.endswith("next year")


LOST = {
    "graphics": {"device": "<graphics type='vnc'/>"},
    "channel": {"device": "<channel type='unix'/>"},
    "memballoon": {"old": "memballoon model='none'", "new": "memballoon model='virtio'"},
    "description": {"top": "<description>of ann</description>"},
    "cputune": {"top": "<cputune/>"},
    "feature hyperv": {"old": "<apic/>", "new": "<hyperv/>"},
    "clock localtime (would be utc)": {"old": "offset='utc'", "new": "offset='localtime'"},
    "on_crash restart (would be destroy)": {
        "old": "<on_crash>destroy",
        "new": "<on_crash>restart",
    },
    "balloon at 49 of 98 MiB": {
        "old": "<currentMemory unit='KiB'>100000",
        "new": "<currentMemory unit='KiB'>50000",
    },
    "1 of 2 CPUs in use": {"old": "placement='static'", "new": "current='1'"},
    "serial line on tcp (would be a pty)": {"device": "<serial type='tcp'/>"},
    "empty CD-ROM drive sda": {
        "device": "<disk type='file' device='cdrom'><target dev='sda' bus='sata'/></disk>"
    },
    "boots from its CD-ROM first (would from its first disk)": {
        "old": "<boot dev='hd'/>",
        "new": "<boot dev='cdrom'/><boot dev='hd'/>",
    },
    "disk vdb: cache writeback (would be none)": {"device": disk("<driver cache='writeback'/>")},
    "disk vdb: discard unmap": {"device": disk("<driver name='qemu' discard='unmap'/>")},
    "disk vdb: error_policy stop": {"device": disk("<driver error_policy='stop'/>")},
    "disk vdb: io native": {"device": disk("<driver cache='none' io='native'/>")},
    "emulator /opt/qemu/bin/qemu (would be the host's own)": {
        "old": "/usr/bin/qemu-system-x86_64",
        "new": "/opt/qemu/bin/qemu",
    },
    "disk vdb: serial": {"device": disk("<serial>WD-1</serial>")},
    "disk vdb: iotune": {"device": disk("<iotune/>")},
    "NIC 52:54:00:00:00:01: filterref": {"device": nic("<filterref filter='clean-traffic'/>")},
    "NIC 52:54:00:00:00:01: libvirt's network lan (would be its bridge br7)": {
        "device": nic("<source network='lan' bridge='br7'/>", "network")
    },
}


@pytest.mark.parametrize("what", LOST)
def test_what_would_be_lost_is_named_and_does_not_stand_in_the_way(what: str) -> None:
    found = read(**LOST[what])
    assert (found.lost, found.unsupported) == ({what}, set())


@pytest.mark.parametrize(
    "changes",
    [
        {"device": "<video><model type='none'/></video>"},
        {"device": "<controller type='scsi' model='virtio-scsi'/>"},
        {"device": "<input type='tablet' bus='usb'/><serial type='pty'/>"},
        {"top": "<metadata><o:libosinfo xmlns:o='http://libosinfo.org/xmlns/1'/></metadata>"},
        {"old": "<target dev='vda'", "new": "<boot order='1'/><target dev='vda'"},
        {"old": "name='qemu' type", "new": "name='qemu' cache='none' type"},
        {"old": "<currentMemory unit='KiB'>100000", "new": f"<currentMemory unit='KiB'>{HUGE}"},
    ],
    ids=[
        *("no video", "SCSI as ours", "input and serial", "notes of others", "first disk first"),
        *("cache as ours", "balloon beyond all bounds"),
    ],
)
def test_what_makes_no_difference_is_not_mentioned(changes: dict[str, str]) -> None:
    found = read(**changes)
    assert (found.lost, found.unsupported) == (set(), set())


@pytest.mark.parametrize(
    ("kind", "cpu", "lost"),
    [
        ("kvm", "<cpu mode='host-model'/>", set()),
        (
            "kvm",
            "<cpu mode='host-passthrough'/>",
            {"CPU mode host-passthrough (would be host-model)"},
        ),
        ("kvm", "", {"CPU mode default (would be host-model)"}),
        ("qemu", "", set()),
        ("qemu", "<cpu mode='custom'><model>qemu64</model></cpu>", set()),
        ("qemu", "<cpu><model>EPYC</model></cpu>", {"CPU mode custom (would be default)"}),
        (
            "kvm",
            "<cpu mode='host-model'><topology sockets='1' cores='2' threads='1'/></cpu>",
            {"topology of the CPU"},
        ),
    ],
)
def test_another_cpu_than_we_would_give_is_a_loss(kind: str, cpu: str, lost: set[str]) -> None:
    assert cpu_losses(f"<domain type='{kind}'>{cpu}</domain>") == lost


@pytest.mark.parametrize(
    "xml",
    [
        BASE.replace("unit='KiB'", "unit='furlongs'"),
        "<domain/>",
        "<network><uuid>x</uuid></network>",
        "<!DOCTYPE domain><domain/>",
        "",
    ],
    ids=["unit", "no uuid", "no domain", "document type", "nothing"],
)
def test_what_is_no_domain_is_refused_as_a_whole(xml: str) -> None:
    with pytest.raises(Invalid, match="XML_UNREADABLE"):
        read_definition(xml)
