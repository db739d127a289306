"""Which of Temporal's five priority classes an operation gets: one table.

Lower goes first. A child inherits its parent's class, but the start of a protected VM has its own
class wherever it comes from. A caller may ask for less urgency than the table gives, never for
more. Within a class the fairness key (`fairness_of`) lets clusters take turns, so that a storm in
one does not hold up another.
"""

from uuid import UUID

from domain.base import Frozen
from domain.context import PriorityClass
from domain.permissions import OWN_PARTS, Role

PROTECTED_KINDS = frozenset({"vm.start", "vm.migrate"})
"""Kinds that bring a VM back or keep it running: a protected VM's go before other requests."""

BY_ROLE = {
    Role.MONITOR: PriorityClass.RECOVERY,
    Role.ENGINE: PriorityClass.RECOVERY,
    Role.ADMIN: PriorityClass.PERSON,
    Role.OPERATOR: PriorityClass.PERSON,
    Role.AUTOMATION: PriorityClass.BALANCE,
    Role.VIEWER: PriorityClass.INVENTORY,
}
"""The most urgent class that a principal's own requests get."""


RAISES_TO = BY_ROLE | {
    Role.ADMIN: PriorityClass.PROTECTED,
    Role.OPERATOR: PriorityClass.PROTECTED,
}
"""The most urgent class that a principal may give to an operation that is there: people may put one
before the requests of others, a program that acts for them stays behind all of those."""


class Urgency(Frozen):
    """What the table looks at."""

    kind: str
    default: PriorityClass  # of the action
    protected: bool  # the VM it is about
    role: Role
    parent: PriorityClass | None = None
    asked: PriorityClass | None = None


def priority_of(facts: Urgency) -> PriorityClass:
    """The class of an operation; see the module."""
    if facts.protected and facts.kind in PROTECTED_KINDS:
        given = PriorityClass.PROTECTED
    elif facts.parent is not None:
        given = facts.parent
    elif facts.role in OWN_PARTS:  # about a failure, whatever the action
        given = BY_ROLE[facts.role]
    else:
        given = max(facts.default, BY_ROLE[facts.role])
    return given if facts.asked is None else max(given, facts.asked)


def fairness_of(cluster_id: UUID | None) -> str:
    """The fairness key: operations of one cluster share it."""
    return str(cluster_id or "none")
