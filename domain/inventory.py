"""What the engine manages: clusters, hosts, VMs and the power devices of hosts.

Words are libvirt's and oVirt's. A *run* is one life of a VM on one host: it carries the host's
epoch and a generation, and both travel in the domain's metadata so that a copy found on a host can
be told apart from a newer one.
"""

from enum import StrEnum
from uuid import UUID

from pydantic import Field

from domain.base import Frozen

MAX_PRIORITY = 100
"""VM restart priority runs from 0 (last) to 100 (first), as in oVirt."""


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
    STOPPING = "stopping"  # a person asked for the end
    ENDED = "ended"  # read back as gone
    LOST = "lost"  # its host is proven dead; a certificate says so


ACTIVE_RUN_STATES = (RunState.PLACED, RunState.STARTING, RunState.RUNNING, RunState.STOPPING)


class VmState(StrEnum):
    """What a person sees; derived from the VM's active run."""

    DOWN = "down"
    POWERING_UP = "powering_up"
    UP = "up"
    POWERING_DOWN = "powering_down"
    UNKNOWN = "unknown"  # its host is silent: it may or may not run


class VirtType(StrEnum):
    """The `type` of libvirt domains in a cluster."""

    KVM = "kvm"
    QEMU = "qemu"  # software emulation
    TEST = "test"  # libvirt's test driver


class Disk(Frozen):
    """One disk of a VM; the path is the same on every host of the cluster (shared storage)."""

    path: str = Field(pattern=r"^/[^\x00\n]+$", max_length=1024)
    format: str = Field(default="raw", pattern=r"^(raw|qcow2)$")
    shareable: bool = False  # QEMU takes no lock on it: only for cluster file systems


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


class FenceDevice(Frozen):
    """A power controller of one host, driven by a ClusterLabs fence agent.

    `options` are the agent's own (names as in its metadata) without secrets: those stay encrypted
    in the store and are read by the driver alone.
    """

    id: UUID
    host_id: UUID
    name: str
    agent: str = Field(pattern=r"^fence_[a-z0-9_]+$", max_length=64)
    options: dict[str, str]
    deadline_s: float = 10.0


class Silence(StrEnum):
    """What a knock at a host's libvirt gave that counts as evidence."""

    SILENT = "silent"


class PowerReading(StrEnum):
    """What a power controller says; no answer, a time-out or an error is `unknown`."""

    OFF = "off"
    ON = "on"
    UNKNOWN = "unknown"
