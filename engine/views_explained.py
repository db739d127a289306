"""What people read about decisions."""

from datetime import datetime
from typing import Any
from uuid import UUID

from domain.base import Frozen
from domain.explain import Rejected


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
