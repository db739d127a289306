"""What people read about decisions."""

from datetime import datetime
from typing import Any
from uuid import UUID

from domain.base import Frozen
from domain.explain import Rejected
from domain.forecast import Back, Waits


class DecisionView(Frozen):
    """One decision: what was chosen by which rule, from what, and why nothing else.

    times           how often it came out the same in a row, from `first_at` to `last_at`
    rejected_more   alternatives beyond those that are kept
    """

    question: str
    subject_type: str
    subject_id: UUID
    subject_name: str
    chosen: str
    rule: str
    why: str
    inputs: dict[str, Any]
    rejected: tuple[Rejected, ...]
    rejected_more: int
    times: int
    first_at: datetime
    last_at: datetime


class ExplanationView(Frozen):
    """Every decision of one incident, in the order in which they were taken."""

    incident_id: UUID
    host_name: str
    epoch: int
    why: str
    outcome: str | None
    opened_at: datetime
    closed_at: datetime | None
    decisions: tuple[DecisionView, ...]


class OperationExplanationView(Frozen):
    """Every decision of one operation and of its parts, in the order in which they were taken.

    What an incident called for is kept with it: `incident_id` has the rest of that story.
    """

    operation_id: UUID
    kind: str
    target_name: str
    state: str
    principal: str
    reason: str
    waiting_for: str | None
    summary: str | None
    created_at: datetime
    finished_at: datetime | None
    incident_id: UUID | None
    decisions: tuple[DecisionView, ...]


class ApprovalView(Frozen):
    """A person's leave to cut a host's power. `valid`: neither withdrawn nor expired."""

    principal: str
    reason: str
    lasts_s: int
    given_at: datetime
    withdrawn_at: datetime | None
    valid: bool


class WaitingFenceView(Frozen):
    """One host failure that is being judged: what its fence waits for, and what was approved."""

    incident_id: UUID
    host_id: UUID
    host_name: str
    opened_at: datetime
    reasons: tuple[str, ...]
    why: str
    approvable: bool  # a person may overrule one of the reasons at least
    approvals: tuple[ApprovalView, ...]


class ReturnView(Back):
    """One VM that would come back. `within_budget`: after the slower fault too; None: no budget."""

    budget_s: int | None
    within_budget: bool | None


class ForecastView(Frozen):
    """What the loss of a host would mean now.

    armed                  disarmed, nothing of it would happen by itself
    blocks_on_power_loss   its controllers lose their supply with it: its death could not be proven
    isolation_needs_approval   half of the hosts or more would be silent: the storm guard waits
    """

    host_id: UUID
    host_name: str
    profile: str
    armed: bool
    blocks_on_power_loss: bool
    hosts_left: int
    isolation_needs_approval: bool = False
    back: tuple[ReturnView, ...]
    waits: tuple[Waits, ...]
    stay_down: tuple[str, ...]


class ChainView(Frozen):
    """Whether every death certificate is what it was when it was issued.

    last_digest   of the newest link: kept elsewhere, it shows later that nothing was cut off
    """

    certificates: int
    whole: bool
    broken: str | None
    last_digest: str | None
