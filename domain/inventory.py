"""What the engine manages: clusters, hosts, VMs and the power devices of hosts.

Words are libvirt's and oVirt's. A *run* is one life of a VM on one host: it carries the host's
epoch and a generation, and both travel in the domain's metadata so that a copy found on a host can
be told apart from a newer one.

A field that was added to what travels in orders is left out while it has its default. So recorded
histories keep their bytes, and an older worker, for which an unknown field is an error, reads every
order that uses nothing new.
"""

from enum import StrEnum
from hashlib import sha256
from typing import Any
from uuid import UUID

from pydantic import Field, model_validator

from domain.base import Frozen

MAX_PRIORITY = 100
"""VM restart priority runs from 0 (last) to 100 (first), as in oVirt."""


NAME = r"^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$"
"""Names are DNS labels and dots, so that they can stand in domain names, files and URLs."""


PLACE = r"^([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?$"
"""Names of racks and sites, in the spelling of their owner; empty where nobody has told."""


class HostState(StrEnum):
    """Where a host stands; `domain.hosts.NEXT` says how it may move."""

    UP = "up"  # answers in time; may run and receive guests
    CONNECTING = "connecting"  # missed a poll; nothing is decided
    NON_RESPONSIVE = "non_responsive"  # silent past the profile's limit
    FENCING = "fencing"  # its power is being cut and read back
    DOWN = "down"  # proven off, or never started
    RECONCILING = "reconciling"  # answers again; its old copies are being settled
    MAINTENANCE = "maintenance"  # a person took it out of service
    PREPARING_MAINTENANCE = "preparing_maintenance"
    NON_OPERATIONAL = "non_operational"  # answers, but may not be used
    ERROR = "error"  # needs a person


class RunState(StrEnum):
    """Where one run of a VM stands. All but the last two are active: at most one a VM."""

    PLACED = "placed"  # a host and its memory are reserved
    STARTING = "starting"  # claimed; create() may have been sent
    RUNNING = "running"  # read back as running
    MIGRATING = "migrating"  # may run on its host or on its target: only reading both tells
    STOPPING = "stopping"  # a person asked for the end
    ENDED = "ended"  # read back as gone
    LOST = "lost"  # its host is proven dead; a certificate says so


ACTIVE_RUN_STATES = (
    RunState.PLACED,
    RunState.STARTING,
    RunState.RUNNING,
    RunState.MIGRATING,
    RunState.STOPPING,
)


class VmState(StrEnum):
    """What a person sees; derived from the VM's active run."""

    DOWN = "down"
    POWERING_UP = "powering_up"
    UP = "up"
    MIGRATING = "migrating"
    POWERING_DOWN = "powering_down"
    UNKNOWN = "unknown"  # its host is silent: it may or may not run


class OnGuestShutdown(StrEnum):
    """What becomes of a protected VM whose guest switched itself off."""

    STAY = "stay"  # somebody inside wanted it down
    RESTART = "restart"


class OnIoError(StrEnum):
    """What becomes of a VM whose guest QEMU has paused because a disk failed it (as in oVirt)."""

    RESUME = "resume"  # once the disk answers again
    LEAVE_PAUSED = "leave_paused"  # a person sees to it
    KILL = "kill"  # resumed if the disk answers soon; else ended, and started again elsewhere


class OnHang(StrEnum):
    """What becomes of a VM whose guest agent has fallen silent while it runs."""

    OFF = "off"  # its agent is not asked
    REPORT = "report"  # an event, and a person sees to it
    RESTART = "restart"  # a protected one is ended, and started again


class VirtType(StrEnum):
    """The `type` of libvirt domains in a cluster."""

    KVM = "kvm"
    QEMU = "qemu"  # software emulation
    TEST = "test"  # libvirt's test driver


def _added(default: Any, **limits: Any) -> Any:
    """A field that came later: absent from what is written while it has its default."""
    return Field(default=default, exclude_if=lambda value: value == default, **limits)


class DiskBus(StrEnum):
    """How a guest sees a disk."""

    VIRTIO = "virtio"
    SCSI = "scsi"
    SATA = "sata"
    IDE = "ide"


class DiskDevice(StrEnum):
    """What a guest sees as a disk. It boots from its first `disk`, then from its first `cdrom`."""

    DISK = "disk"
    CDROM = "cdrom"


class Disk(Frozen):
    """One disk of a VM; the path is the same on every host of the cluster (shared storage).

    A path below /dev/ is a block device. A CD-ROM is always read-only and never on virtio.
    """

    path: str = Field(pattern=r"^/[^\x00\n]+$", max_length=1024)
    format: str = Field(default="raw", pattern=r"^(raw|qcow2)$")
    shareable: bool = False  # QEMU takes no lock on it: only for cluster file systems
    bus: DiskBus = _added(DiskBus.VIRTIO)
    device: DiskDevice = _added(DiskDevice.DISK)
    read_only: bool = _added(False)

    @model_validator(mode="after")
    def _as_hardware_is(self) -> "Disk":
        if self.device is DiskDevice.CDROM:
            if self.bus is DiskBus.VIRTIO:
                raise ValueError("a cdrom is on ide, sata or scsi: there is none on virtio")
        elif self.read_only and self.bus in (DiskBus.IDE, DiskBus.SATA):
            raise ValueError("a read-only disk is on virtio or scsi: ide and sata have none")
        return self


class NicModel(StrEnum):
    """The network card that a guest sees."""

    VIRTIO = "virtio"
    E1000E = "e1000e"
    E1000 = "e1000"
    RTL8139 = "rtl8139"


class Nic(Frozen):
    """One network card of a VM, resolved to what a host has.

    The bridge has the same name on every host of the cluster; without one, QEMU itself gives the
    guest a way out and none in. A VLAN is a bridge of its own on the hosts: libvirt below 11.0
    cannot tag the ports of a Linux bridge.
    """

    network: str = Field(min_length=1, max_length=64)
    bridge: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.:-]{0,14}$")
    mac: str = Field(pattern=r"^[0-9a-f][02468ace](:[0-9a-f]{2}){5}$")  # of one card, no group
    model: NicModel = NicModel.VIRTIO


def mac_of(vm_id: UUID, index: int) -> str:
    """The address of a VM's card with this number, in the range that libvirt and QEMU use.

    The same for the same VM and number. Of 16.7 million: two VMs may get the same one, so whoever
    stores it checks that it is free and asks for another number if it is not.
    """
    digest = sha256(vm_id.bytes + index.to_bytes(8, "big")).digest()
    return f"52:54:00:{digest[0]:02x}:{digest[1]:02x}:{digest[2]:02x}"


DEFAULT_MACHINE = "pc"
"""The i440fx board has the fewest devices to bring up, which counts under emulation."""

MACHINE = r"^(pc|q35|pc-i440fx-[a-z0-9._-]{1,40}|pc-q35-[a-z0-9._-]{1,40})$"


class Boot(Frozen):
    """Direct kernel boot; without it the VM boots from its first disk."""

    kernel: str = Field(pattern=r"^/[^\x00\n]+$", max_length=1024)
    initrd: str | None = Field(default=None, pattern=r"^/[^\x00\n]+$", max_length=1024)
    cmdline: str = Field(default="", max_length=2048)


class GuestSpec(Frozen):
    """All that a host needs to define one VM."""

    vm_id: UUID
    name: str
    memory_mib: int
    vcpus: int
    virt_type: VirtType
    disks: tuple[Disk, ...] = ()
    boot: Boot | None = None
    nics: tuple[Nic, ...] = _added(())
    machine: str = _added(DEFAULT_MACHINE, pattern=MACHINE)
    agent: bool = _added(False)  # a channel for QEMU's guest agent


class FenceDevice(Frozen):
    """A power controller of one host, driven by a ClusterLabs fence agent.

    `options` are the agent's own (names as in its metadata) without secrets: those stay encrypted
    in the store and are read by the driver alone. What `level` means is said in `domain.topology`.

    delay_s  how long is waited before off, each time. Higher: the guests wait longer. Lower: of
             two engines that fence each other's machine both succeed.
    retries  how often an off or a reading without an answer is tried again, each within the
             deadline. Higher: a dead controller holds its level longer. Lower: a lost packet does.
    shares_power  whether it falls silent when its host loses its supply. A BMC does unless it has
             a supply of its own, so it is held to be so until somebody says otherwise.
    """

    id: UUID
    host_id: UUID
    name: str
    agent: str = Field(pattern=r"^fence_[a-z0-9_]+$", max_length=64)
    options: dict[str, str]
    deadline_s: float = 10.0
    level: int = _added(1, ge=1, le=9)
    delay_s: float = _added(0.0, ge=0, le=300)
    retries: int = _added(0, ge=0, le=9)
    shares_power: bool = _added(True)


class Silence(StrEnum):
    """What a knock at a host's libvirt gave that counts as evidence."""

    SILENT = "silent"


CONFIRMATION = "confirmation"
"""The kind of evidence that a person gives; its device is the person."""


class Confirmation(StrEnum):
    """What a person says of a host after having gone and looked."""

    DEAD = "dead"


class PowerReading(StrEnum):
    """What a power controller says; no answer, a time-out or an error is `unknown`."""

    OFF = "off"
    ON = "on"
    UNKNOWN = "unknown"
