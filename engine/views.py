"""What people and programs read: the shapes behind queries, API and console."""

from datetime import datetime
from typing import Any, Generic
from uuid import UUID

from pydantic import Field
from typing_extensions import TypeVar

from domain.base import Frozen
from domain.errors import EngineError
from domain.grades import Grade
from domain.inventory import HostState, VmState
from domain.operations import OperationState, StepState
from domain.planned import HostPower
from domain.readiness import ReadyRule
from engine.fence_views import HostFencingView
from engine.soft_views import OneSoftStepView

T = TypeVar("T", default=Any)


class NetworkView(Frozen):
    """One network; without a bridge it is QEMU's own NAT. `vms` counts those with a card on it."""

    id: UUID
    cluster_id: UUID
    name: str
    bridge: str | None
    vms: int
    version: int


class HostView(Frozen):
    """One host with what its monitors saw last.

    autostart   names of our domains that it starts by itself at boot, past the engine: a warning
    """

    id: UUID
    cluster_id: UUID
    name: str
    uri: str
    rack: str = ""
    site: str = ""
    state: HostState
    state_reason: str
    state_since: datetime
    power: HostPower | None = None  # of one in maintenance, where the engine switches it
    epoch: int
    memory_mib: int
    memory_reserved_mib: int
    memory_allowed_mib: int  # by its cluster's `memory_overcommit`
    cpus: int
    vcpus_reserved: int = 0
    vcpus_allowed: int | None = None  # by its cluster's `vcpu_overcommit`; null: no limit
    vms: int
    last_answer_at: datetime | None
    open_incident_id: UUID | None
    fencing: HostFencingView
    autostart: tuple[str, ...] = ()
    version: int


class VmView(Frozen):
    """One VM and where it runs."""

    id: UUID
    cluster_id: UUID
    name: str
    state: VmState
    host_id: UUID | None
    host_name: str | None
    memory_mib: int
    vcpus: int
    protected: bool
    priority: int
    depends_on: tuple[UUID, ...]
    generation: int
    run_state: str | None
    running_since: datetime | None
    operation_id: UUID | None
    version: int
    budget_s: int | None = None
    on_guest_shutdown: str = "stay"
    on_io_error: str = "resume"
    on_hang: str = "off"
    hang_after_s: int = 60
    ready: ReadyRule | None = None
    max_restart: int = 3
    max_relocate: int = 3
    may_be_stopped: bool = True
    failback: str = "off"
    home_id: UUID | None = None


class FailbackView(Frozen):
    """How a VM stands to its home: the reason for which it is not moved there now."""

    code: str
    detail: str
    tries_at: datetime | None = None  # where a time is waited for


class NicView(Frozen):
    """One network card; without a bridge its network is QEMU's own NAT."""

    network_id: UUID
    network: str
    bridge: str | None
    mac: str
    model: str


class GroupRef(Frozen):
    """An affinity group by name."""

    id: UUID
    name: str


class VmDetailView(VmView):
    """One VM with all that it is made of.

    gave_way    soft affinity rules that its present place breaks
    end_reason  why its last run ended, while it has no other
    agent_heard          whether its guest agent has answered in this run: until then no silence
                         counts; None of one that is not listened to (`on_hang`)
    agent_silent_since   since when its guest agent is silent, while the guest is held to be hung
    paused      why QEMU has stopped its guest by itself, while it has
    migrating_to       the host that it is moved to, while it is
    starts_again_with  the host that it was shut down with, and comes back with
    stops_again_at     when its stop for another VM, which failed half way, is tried again
    also_seen_on       hosts in service whose last poll shows it, and where it should not run
    home, goes_home    the host that is its home, and whether it is moved there now
    """

    disks: tuple[dict[str, Any], ...] = ()
    boot: dict[str, Any] | None = None
    machine: str | None = None
    nics: tuple[NicView, ...] = ()
    affinity_groups: tuple[GroupRef, ...] = ()
    gave_way: tuple[str, ...] = ()
    end_reason: str | None = None
    paused: str | None = None
    migrating_to: str | None = None
    starts_again_with: str | None = None
    stops_again_at: datetime | None = None
    also_seen_on: tuple[str, ...] = ()
    agent_heard: bool | None = None
    agent_silent_since: datetime | None = None
    home: str | None = None
    goes_home: FailbackView | None = None
    ended_at: datetime | None = None


class AffinityGroupView(Frozen):
    """VMs that belong together or apart; with hosts, each of them on those hosts or on none."""

    id: UUID
    cluster_id: UUID
    name: str
    together: bool
    hard: bool
    vm_ids: tuple[UUID, ...]
    host_ids: tuple[UUID, ...]
    version: int


class StepView(Frozen):
    """One step of an operation."""

    id: str
    name: str
    state: StepState
    attempt: int
    tries: int
    detail: str | None
    problem: dict[str, Any] | None
    started_at: datetime
    finished_at: datetime | None


class BlockView(Frozen):
    """One thing that keeps an operation from going on.

    what   lock (another operation holds it, or waits longer), queue (others are started first),
           batch (its batch has not let it go yet), reason (it says why)
    """

    what: str
    detail: str
    operation_id: UUID | None = None
    kind: str | None = None
    position: int | None = None  # how many go before it


class OperationView(Frozen):
    """One operation with its steps and children.

    next_step                       what a person can do about what it waits for
    next_look_at                    by when the engine looks again at what it waits for: at the
                                    latest, and at once when it hears of a change; a time that has
                                    passed: it is looking. None where it does not look by the clock
    gives_up_at                     until when it waits for its locks
    progress_done, progress_total   where it can be counted
    predicted_end_at                from the pace so far where it can be counted, else from how long
                                    the latest of its kind took; none while it waits, or once it
                                    takes longer than they did
    children, children_states       of a batch: the first that need looking at, and how many are in
                                    which state; all of them are listed by their `parent_id`
    """

    id: UUID
    kind: str
    state: OperationState
    done: bool
    reason_code: str | None
    waiting_for: str | None
    next_step: str | None = None
    next_look_at: datetime | None = None
    gives_up_at: datetime | None = None
    target_type: str
    target_id: UUID
    target_name: str
    parent_id: UUID | None
    incident_id: UUID | None
    priority: int
    principal: str
    reason: str
    correlation_id: str
    workflow_id: str | None
    problem: dict[str, Any] | None
    summary: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    attempt: int = 1
    progress_done: int | None = None
    progress_total: int | None = None
    predicted_end_at: datetime | None = None
    blocked_by: tuple[BlockView, ...] = ()
    steps: tuple[StepView, ...] = ()
    children: tuple["OperationView", ...] = ()
    children_states: dict[str, int] = Field(default_factory=dict)


class ProblemView(Frozen):
    """One reason against an action."""

    code: str
    detail: str
    next_step: str
    context: dict[str, Any]

    @classmethod
    def of(cls, error: EngineError) -> "ProblemView":
        """The reason that an error stands for."""
        same = {"code": error.code, "detail": error.detail, "next_step": error.next_step}
        return cls(**same, context=dict(error.context))


class LockView(Frozen):
    """A lock that an action would take, and who holds it now."""

    entity_type: str
    entity_id: UUID
    mode: str
    held_by: UUID | None
    held_kind: str | None


class DryRunView(Frozen):
    """What an action would do if it were asked for now."""

    kind: str
    allowed: bool
    problems: tuple[ProblemView, ...]
    target_type: str
    target_id: UUID
    target_name: str
    permission: str
    priority: int
    workflow: str | None
    locks: tuple[LockView, ...]
    steps: tuple[str, ...]


class BatchDryRunView(Frozen):
    """What a batch would do now: each action in its order, seeing what those before it take."""

    allowed: bool  # all of it
    actions: tuple[DryRunView, ...]


class EvidenceView(Frozen):
    """One graded fact; `grade` None: it proves nothing by itself."""

    kind: str
    device: str
    verdict: str
    grade: Grade | None
    detail: str
    took_s: float
    at: datetime


class CertificateView(Frozen):
    """One death certificate.

    `grade` is the rung of the ladder of evidence that it rests on, `grade_told` the same in words.
    """

    id: UUID
    host_id: UUID
    epoch: int
    state: str
    uses: int
    evidence: list[dict[str, Any]]
    grade: Grade | None
    grade_told: str | None
    digest: str
    number: int | None
    previous: str | None
    issued_at: datetime
    voided_at: datetime | None
    void_reason: str | None


class IncidentVmView(Frozen):
    """One VM of an incident and what became of it."""

    vm_id: UUID
    name: str
    protected: bool
    host_before: str
    host_after: str | None
    running_again_at: datetime | None
    recovery_s: float | None


class IncidentView(Frozen):
    """One host failure, from the last answered poll to the last VM back."""

    id: UUID
    host_id: UUID
    host_name: str
    epoch: int
    open: bool
    phase: str
    outcome: str | None
    why: str
    reported_by: str
    reports: int
    operation_id: UUID | None
    decision: dict[str, Any] | None
    phase_began: dict[str, datetime]
    phases_s: dict[str, float]
    last_answer_at: datetime | None
    opened_at: datetime
    closed_at: datetime | None
    evidence: tuple[EvidenceView, ...] = ()
    certificate: CertificateView | None = None
    vms: tuple[IncidentVmView, ...] = ()
    soft_steps: tuple[OneSoftStepView, ...] = ()  # in the hour before it


class EventView(Frozen):
    """One thing that happened. It has no number until it is committed and the relay saw it."""

    seq: int | None
    type: str
    subject_type: str
    subject_id: UUID
    principal: str
    correlation_id: str
    operation_id: UUID | None
    reason: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    data: dict[str, Any]
    at: datetime


class Page(Frozen, Generic[T]):
    """One page of a list; no cursor means that it was the last. `total` is of the whole list."""

    items: tuple[T, ...]
    next_cursor: str | None = None
    total: int | None = None
