"""What many incidents have in common: how often, how long each phase took, how many VMs were late.

Pure. A percentile here is the nearest rank: a time that was really measured, never one in between,
and the same for everybody who asks. Of few incidents the higher percentiles are the worst one
itself; `FEW` says below how many that has to be told.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime
from uuid import UUID

from domain.base import Frozen

PHASES = ("detect", "decide", "prove", "place", "start", "ready")
"""The phases of an incident that take time, in their order."""

CARRIED_THROUGH = ("recovered", "incomplete")
"""Outcomes of incidents whose recovery went to its end: only those have a total."""

FEW = 20
"""Below so many measured times a p99 is no more than the worst, and a p90 nearly so. Higher: more
reports carry the warning. Lower: somebody plans by a percentile of three."""


class Spread(Frozen):
    """Of so many measured times: seconds at the nearest rank, and the worst. None of none."""

    count: int
    p50_s: float | None = None
    p90_s: float | None = None
    p99_s: float | None = None
    worst_s: float | None = None


class ClosedIncident(Frozen):
    """One closed incident: seconds of each phase that ended, and power cuts that were claimed."""

    incident_id: UUID
    outcome: str
    phases_s: Mapping[str, float]
    fences: int


class VmBack(Frozen):
    """One VM that was to come back: after how many seconds it ran again, None if it did not."""

    back_s: float | None
    budget_s: int | None


class Wait(Frozen):
    """A decision to wait, as kept: `code` says for what, between its first and its last time."""

    incident_id: UUID
    code: str
    first_at: datetime
    last_at: datetime


class Waited(Frozen):
    """How often one reason held something up.

    incidents   that it held up
    worst_s     the longest time between its first and its last time in one incident
    """

    code: str
    incidents: int
    worst_s: float


class Budgets(Frozen):
    """What became of the VMs that were to come back.

    within, over   of those that have a budget; over: late, or not back through their incident
    not_back       through their incident, with or without a budget
    """

    vms: int
    back: int
    not_back: int
    within: int
    over: int
    without_budget: int


class Stats(Frozen):
    """Closed incidents together. `total`: from the last answer until the last VM was ready."""

    incidents: int
    outcomes: dict[str, int]
    fences: int
    phases: dict[str, Spread]
    total: Spread
    vms: Spread
    budgets: Budgets
    waited: tuple[Waited, ...]
    few: bool


def stats_of(
    incidents: tuple[ClosedIncident, ...], vms: tuple[VmBack, ...], waits: tuple[Wait, ...]
) -> Stats:
    """Count and measure; every phase is named, also one that no incident went through."""
    whole = [each for each in incidents if each.outcome in CARRIED_THROUGH]
    total = spread(sum(each.phases_s.values()) for each in whole)
    return Stats(
        incidents=len(incidents),
        outcomes=dict(Counter(each.outcome for each in incidents).most_common()),
        fences=sum(each.fences for each in incidents),
        phases={
            phase: spread(each.phases_s[phase] for each in incidents if phase in each.phases_s)
            for phase in PHASES
        },
        total=total,
        vms=spread(vm.back_s for vm in vms if vm.back_s is not None),
        budgets=_budgets(vms),
        waited=_waited(waits),
        few=total.count < FEW,
    )


def spread(times_s: Iterable[float]) -> Spread:
    """The percentiles of measured times."""
    ordered = sorted(times_s)
    if not ordered:
        return Spread(count=0)
    return Spread(
        count=len(ordered),
        p50_s=_nearest(ordered, 50),
        p90_s=_nearest(ordered, 90),
        p99_s=_nearest(ordered, 99),
        worst_s=round(ordered[-1], 3),
    )


def _nearest(ordered: list[float], percent: int) -> float:
    """The smallest time that `percent` of all are not above."""
    # Whole numbers: 0.9 x 10 is not quite 9 in binary fractions, and would take the rank above.
    rank = math.ceil(percent * len(ordered) / 100)
    return round(ordered[rank - 1], 3)


def _budgets(vms: tuple[VmBack, ...]) -> Budgets:
    bound = [(vm.back_s, vm.budget_s) for vm in vms if vm.budget_s is not None]
    within = sum(back is not None and back <= budget for back, budget in bound)
    back = sum(vm.back_s is not None for vm in vms)
    return Budgets(
        vms=len(vms),
        back=back,
        not_back=len(vms) - back,
        within=within,
        over=len(bound) - within,
        without_budget=len(vms) - len(bound),
    )


def _waited(waits: tuple[Wait, ...]) -> tuple[Waited, ...]:
    """Each reason, those that held up most incidents first, then the longest."""
    spans: dict[tuple[str, UUID], tuple[datetime, datetime]] = {}
    for wait in waits:
        key = (wait.code, wait.incident_id)
        first, last = spans.get(key, (wait.first_at, wait.last_at))
        spans[key] = (min(first, wait.first_at), max(last, wait.last_at))
    lengths: dict[str, list[float]] = {}
    for (code, _incident), (first, last) in spans.items():
        lengths.setdefault(code, []).append((last - first).total_seconds())
    found = (
        Waited(code=code, incidents=len(each), worst_s=round(max(each), 3))
        for code, each in lengths.items()
    )
    return tuple(sorted(found, key=lambda one: (-one.incidents, -one.worst_s, one.code)))
