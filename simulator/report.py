"""What one run of a seed has shown, as a value: it is printed, kept as evidence, and compared."""

from collections.abc import Iterable, Iterator
from enum import Enum
from hashlib import sha256
from typing import Any

from domain.base import Frozen
from simulator.faults.plan import Plan
from simulator.invariants.facts import Violation
from simulator.setup import Setup
from simulator.tape import Event
from simulator.tried import LEFT, TRIED

UNTOLD = frozenset(
    {"step.started", TRIED, LEFT, "bmc.read", "workflow.started", "workflow.completed"}
)
"""Kinds of events that a readable timeline leaves out: they say how, not what."""


class Report(Frozen):
    """One run. Everything but `real_s` is the same for the same seed, plan and setup."""

    seed: int
    setup: Setup
    plan: Plan
    virtual_s: float
    real_s: float
    injected: dict[str, int]
    certificates: int
    fences: int
    recoveries: dict[str, int]  # by outcome of the incident
    started: int  # copies that were started
    violations: tuple[Violation, ...]
    defects: tuple[str, ...]
    refused: dict[str, int]  # what people and monitors asked for in vain
    digest: str  # of every event
    timeline: tuple[str, ...]

    @property
    def inside(self) -> tuple[Violation, ...]:
        """Violations within the promised fault model."""
        return tuple(found for found in self.violations if found.outside is None)

    @property
    def good(self) -> bool:
        """Whether nothing was found."""
        return not self.inside and not self.defects

    def found(self) -> frozenset[str]:
        """What was found, without times and names: to tell whether a smaller plan finds it too."""
        checks = {found.check for found in self.inside}
        return frozenset(checks | {defect.partition(":")[0] for defect in self.defects})


def digest(events: Iterable[Event]) -> str:
    """One word for every event with its time and facts."""
    whole = sha256()
    for at_s, kind, facts in events:
        whole.update(f"{at_s:.9f} {kind} {_plain(facts)}\n".encode())
    return whole.hexdigest()


def timeline(events: Iterable[Event], began_s: float) -> Iterator[str]:
    """One line an event that matters, with seconds since the plan began."""
    for at_s, kind, facts in events:
        if kind not in UNTOLD and at_s >= began_s:
            yield f"{at_s - began_s:9.3f}  {kind:22} {_told(facts)}".rstrip()


def _told(facts: dict[str, Any]) -> str:
    subject = facts.get("subject", facts.get("vm", facts.get("host", "")))
    rest = (
        f"{name}={_plain(value)}"
        for name, value in facts.items()
        if name not in ("subject", "vm_id") and value is not subject and value is not None
    )
    return " ".join((str(subject), *rest))


def _plain(value: Any) -> str:
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, dict):
        return " ".join(f"{name}={_plain(each)}" for name, each in value.items())
    if isinstance(value, tuple | list):
        return "+".join(_plain(each) for each in value)
    return str(value)
