"""What a host says about itself and its domains, as the drivers report it."""

from enum import StrEnum
from uuid import UUID

from pydantic import Field

from domain.base import Frozen


class DomainState(StrEnum):
    """State of a libvirt domain (virDomainState)."""

    NOSTATE = "nostate"
    RUNNING = "running"
    BLOCKED = "blocked"
    PAUSED = "paused"
    SHUTDOWN = "shutdown"  # being shut down
    SHUTOFF = "shutoff"
    CRASHED = "crashed"
    PMSUSPENDED = "pmsuspended"


ALIVE_STATES = frozenset(DomainState) - {DomainState.SHUTOFF, DomainState.CRASHED}
"""States in which a QEMU process exists and may write to the disks."""


class StateReason(StrEnum):
    """Why a domain is in its state, as far as it matters here.

    From virDomainShutoffReason and virDomainPausedReason. A libvirtd that was restarted has
    forgotten why a domain ended.
    """

    UNKNOWN = "unknown"
    SHUTDOWN = "shutdown"  # the guest switched itself off
    DESTROYED = "destroyed"  # by a command to libvirt
    CRASHED = "crashed"  # QEMU was gone without a word
    MIGRATED = "migrated"  # it was sent to another host
    SAVED = "saved"  # its memory was written to a file
    FAILED = "failed"  # libvirt could not keep it
    IO_ERROR = "io_error"  # paused by QEMU: a disk did not do what was asked of it


class AgentState(StrEnum):
    """What a guest's agent gives to a ping."""

    ANSWERS = "answers"
    UNSYNCED = "unsynced"  # what came back answers an earlier question: it lives, and is late
    SILENT = "silent"  # its channel is open, and nothing comes back
    ABSENT = "absent"  # there is none: no channel, or nobody in the guest has it open


class Knock(StrEnum):
    """What came back from a host's door; all but `silent` come only from the living."""

    SILENT = "silent"  # the door was tried, and nothing came back
    REFUSED = "refused"  # a kernel says that nobody listens
    OPEN = "open"  # a kernel takes the connection; whether libvirt lives is not known
    ANSWERS = "answers"  # libvirt itself answers


class Domain(Frozen):
    """One domain as its host reports it. `generation` None: not ours, never touch it."""

    vm_id: UUID
    name: str
    state: DomainState
    generation: int | None
    autostart: bool = False
    reason: StateReason = StateReason.UNKNOWN
    held: bool = False  # paused by a migration: kept for the other host, and running nowhere yet

    @property
    def alive(self) -> bool:
        """Whether a process of it may exist."""
        return self.state in ALIVE_STATES


class Migration(Frozen):
    """How far libvirt's job to move a guest is. Of a busy guest `total` grows with what it writes.

    No total means that libvirt has not counted yet.
    """

    done_mib: int
    total_mib: int
    took_s: float


class GuestStats(Frozen):
    """One guest's figures in one poll."""

    vm_id: UUID
    name: str
    state: DomainState
    cpu_time_ns: int = 0
    memory_kib: int = 0
    reason: StateReason = Field(
        default=StateReason.UNKNOWN, exclude_if=lambda reason: reason is StateReason.UNKNOWN
    )


class HostReading(Frozen):
    """One answered poll: who runs here, the epoch mark, and the node's figures.

    autostart  names of our domains that the host starts by itself at boot; None: it is not known
    """

    guests: tuple[GuestStats, ...]
    boot_mark: int | None  # epoch named by the transient mark; None: rebooted or never marked
    memory_total_mib: int
    memory_free_mib: int
    cpus: int
    took_s: float
    autostart: tuple[str, ...] | None = None
