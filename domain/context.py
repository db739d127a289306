"""Who asks, why, and as part of what: one value that travels with every action."""

from enum import IntEnum
from uuid import UUID

from domain.base import Frozen


class PriorityClass(IntEnum):
    """Temporal priority keys: lower goes first."""

    RECOVERY = 1  # fence and recovery
    PROTECTED = 2  # restart of protected VMs
    PERSON = 3  # what people ask for
    BALANCE = 4  # drain and balance
    INVENTORY = 5


class ActionContext(Frozen):
    """The same steps serve a person's request and a recovery; only this differs."""

    principal: str
    correlation_id: str
    reason: str = ""
    priority: PriorityClass = PriorityClass.PERSON
    incident_id: UUID | None = None
    parent_id: UUID | None = None
    traceparent: str | None = None
