"""What crosses the borders of workflows and activities: orders in, findings out."""

from typing import Any
from uuid import UUID

from pydantic import Field

from domain.base import Frozen
from domain.grades import POWER_READING, Grade, grade_of
from domain.inventory import Confirmation, GuestSpec, HostState, PowerReading, Silence
from domain.operations import Order
from domain.planned import PlannedVms
from domain.readiness import ReadyRule
from domain.soft_step import Hung
from domain.storage_lease import LeaseCount, LeaseVerdict


def _added(default: Any) -> Any:
    """A field that came later: absent from what is written while it has its default."""
    return Field(default=default, exclude_if=lambda value: value == default)


class RunRef(Frozen):
    """One run of a VM, with all that a step needs to touch it and nothing else."""

    run_id: UUID
    operation_id: UUID
    host_id: UUID
    host_name: str
    uri: str
    epoch: int
    generation: int
    spec: GuestSpec
    # Soft affinity rules that its place breaks, by name; what came later is absent while empty.
    gave_way: tuple[str, ...] = Field(default=(), exclude_if=lambda names: not names)


class StartLimits(Frozen):
    """How often a start that failed is tried again: see `domain.start_tries`.

    `insist`: nobody waits for the answer, so a host that falls silent in the middle is waited for.
    """

    max_restart: int = 0
    max_relocate: int = 0
    insist: bool = False


class FailedTry(Frozen):
    """One host that did not start a VM, and why."""

    host_id: UUID
    host_name: str
    code: str
    round: int


class StartVmOrder(Order):
    """Start one VM. `run` is there when a recovery has reserved its place already.

    `failed`, `round`: what was tried before its workflow went on in a new run.
    """

    vm_id: UUID
    vm_name: str
    host_id: UUID | None = None  # a person's wish; None: the engine chooses
    run: RunRef | None = None
    licence_id: UUID | None = None  # the certificate under which a lost run is followed
    prefer_id: UUID | None = _added(None)  # the host that is tried first
    avoid: tuple[UUID, ...] = _added(())  # hosts on which it has failed too often
    limits: StartLimits | None = _added(None)  # None: one host has one try
    failed: tuple[FailedTry, ...] = _added(())
    round: int = _added(0)


class RecoverVmOrder(Order):
    """See to one VM whose guest is not running any more, though nobody asked for its end."""

    vm_id: UUID
    vm_name: str
    run: RunRef
    closed: bool = False  # its run was closed already, and the next try to start it is awaited
    hung: bool = Field(default=False, exclude_if=lambda hung: not hung)  # its agent is silent


class StopVmOrder(Order):
    """Stop one VM: gracefully within the policy's grace, then hard."""

    vm_id: UUID
    vm_name: str
    run: RunRef
    force: bool = False


class MigrateVmOrder(Order):
    """Move one running VM to another host, without stopping it."""

    vm_id: UUID
    vm_name: str
    host_id: UUID | None = None  # a person's wish; None: the engine chooses


class EndCopyOrder(Order):
    """End a copy of one VM on a host where it should not run; `run` is where it should."""

    vm_id: UUID
    vm_name: str
    host: "HostRef"
    run: RunRef | None = None
    last_copy: bool = False  # it may be the only one


class AdoptCopyOrder(Order):
    """Make the copy of one VM on a host its run, in place of the one that the books know."""

    vm_id: UUID
    vm_name: str
    host: "HostRef"
    run: RunRef


class MaintainHostOrder(Order):
    """Move every VM away from one host, then take it out of service."""

    host: "HostRef"


class ShutDownHostOrder(Order):
    """Empty one host, switch its power off, and for a reboot bring it back into service.

    `vms` is what `conditional` stands for, never that.
    """

    host: "HostRef"
    vms: PlannedVms
    reboot: bool = False


class MigrationRef(Frozen):
    """One migration: the run as it was, and the host with the generation that it is to have."""

    run: RunRef
    operation_id: UUID  # that moves it; the run's own is the one that started it
    target: "HostRef"
    generation: int  # of the copy on the target


class HostRef(Frozen):
    """One host at one epoch."""

    host_id: UUID
    name: str
    uri: str
    epoch: int


class ImportVmOrder(Order):
    """Take over one guest that runs (or is defined) on a host and is not ours yet."""

    host: HostRef
    guest_id: UUID  # of the domain, and of the VM that it becomes
    guest_name: str  # as its host calls it, for what people read
    name: str | None = None  # of the VM; None: as its host calls it
    protected: bool = False
    priority: int = 50


class FenceHostOrder(Order):
    """Prove one host off; `cut` False when its power is known to be off already.

    With a person's `confirmation` no controller is asked to prove it: nothing may speak against it.
    """

    host: HostRef
    incident_id: UUID
    cut: bool = True
    confirmation: "Evidence | None" = Field(default=None, exclude_if=lambda fact: fact is None)


class CheckFencingOrder(Order):
    """Test the fence devices of one host."""

    host: HostRef


class RehearseFencingOrder(Order):
    """Switch one host in maintenance off and on again, through each level of its devices."""

    host: HostRef


class RestartLibvirtdOrder(Order):
    """Restart libvirtd on one host over SSH; without a monitor's report, as a person asks."""

    host: HostRef
    hung: Hung | None = None


class RecoverHostOrder(Order):
    """Recover from the failure of one host."""

    host: HostRef
    incident_id: UUID
    doubted: bool = False  # the host has answered while its power read off


class ActivateHostOrder(Order):
    """Bring one host (back) into service."""

    host: HostRef
    power_on: bool = True
    # The state it gets back should this never begin; None: it is left out of service.
    was: HostState | None = Field(default=None, exclude_if=lambda state: state is None)


class Evidence(Frozen):
    """One graded fact about a host being dead, as it stands on a certificate."""

    kind: str = POWER_READING
    device: str
    verdict: PowerReading | Silence | Confirmation | LeaseVerdict
    took_s: float
    at: str  # UTC, RFC 3339
    # A person's reason, or what a lease has shown.
    detail: str = Field(default="", exclude_if=lambda text: not text)
    level: int = Field(default=1, exclude_if=lambda level: level == 1)  # of the fence device
    lease: LeaseCount | None = _added(None)

    @property
    def grade(self) -> Grade | None:
        """How strong a proof it is; None: it proves nothing by itself. Never written."""
        return grade_of(self.kind, self.verdict)


class Certificate(Frozen):
    """The proof that a host of an epoch is dead."""

    certificate_id: UUID
    host_id: UUID
    epoch: int
    evidence: tuple[Evidence, ...]


class Placement(Frozen):
    """Where a VM goes, or why it has to wait."""

    run: RunRef | None = None
    already_running: bool = False
    no_room: str | None = None


class AwaitedVm(Frozen):
    """A VM that others depend on and that another recovery, or a person, brings back."""

    vm_id: UUID
    vm_name: str
    ready: ReadyRule | None = None  # None: once it runs


class Restart(Frozen):
    """One VM that a recovery starts elsewhere, as a child operation of its own.

    depends_on  VMs of the same recovery that are started before
    awaits      other VMs that it depends on and that did not run when its host was claimed
    """

    operation_id: UUID
    vm_id: UUID
    vm_name: str
    protected: bool
    depends_on: tuple[UUID, ...]
    run: RunRef | None  # None: no room yet, the child waits for it
    licence_id: UUID
    limits: StartLimits | None = _added(None)
    ready: ReadyRule | None = _added(None)  # None: once it runs
    awaits: tuple[AwaitedVm, ...] = _added(())


class RestartPlan(Frozen):
    """Everything a recovery starts elsewhere, in order."""

    restarts: tuple[Restart, ...]
    left_down: tuple[str, ...]  # unprotected VMs, by name


class Reconciliation(Frozen):
    """What was settled on a host before it was admitted. VM names."""

    kept: tuple[str, ...] = ()
    destroyed: tuple[str, ...] = ()
    ended: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()
    memory_mib: int = 0
    cpus: int = 0


class RunBatchOrder(Order):
    """Release and watch the children of a batch; how many at once stands in the batch's row."""

    look_every_s: float = 5.0  # without a signal; higher: a lost one costs more, lower: more reads
