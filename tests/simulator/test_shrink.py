"""A plan is made smaller for as long as it shows the same thing."""

import pytest

from simulator.faults.plan import Fault, Plan
from simulator.invariants.facts import Violation
from simulator.report import Report
from simulator.shrink import shrunk
from simulator.stage import Setup

pytestmark = pytest.mark.unit

BAD = Violation(at_s=1.0, check="one_copy", sentence="vm1 runs on h1 and h2")
OTHER = Violation(at_s=1.0, check="fence_budget", sentence="h1, h2 were switched off")


def fault(number: int, lasts_s: float | None = None) -> Fault:
    return Fault(kind="host.power_cut", at_s=float(number), subject=f"h{number}", lasts_s=lasts_s)


def report(plan: Plan, *violations: Violation) -> Report:
    return Report(
        seed=1,
        setup=Setup.small(),
        plan=plan,
        virtual_s=1.0,
        real_s=0.0,
        injected={},
        certificates=0,
        fences=0,
        recoveries={},
        started=0,
        violations=violations,
        defects=(),
        refused={},
        digest="",
        timeline=(),
    )


class Runs:
    """Runs a plan as if it broke something whenever certain faults are in it."""

    def __init__(self, *needed: str, shows: Violation = BAD) -> None:
        self.needed, self.shows, self.number = set(needed), shows, 0

    def __call__(self, plan: Plan) -> Report:
        self.number += 1
        there = {each.subject for each in plan.faults}
        return report(plan, *((self.shows,) if self.needed <= there else ()))


def test_faults_that_have_nothing_to_do_with_it_are_dropped() -> None:
    plan = Plan(pattern="mixed", faults=tuple(fault(number) for number in range(8)))
    small = shrunk(report(plan, BAD), Runs("h2", "h5")).plan
    assert [each.subject for each in small.faults] == ["h2", "h5"]


def test_what_is_left_comes_sooner_and_heals_sooner() -> None:
    plan = Plan(pattern="single", faults=(fault(8, lasts_s=16.0),), lasts_s=60.0)
    (left,) = shrunk(report(plan, BAD), Runs("h8")).plan.faults
    assert left.at_s <= 0.5
    assert left.lasts_s is not None
    assert left.lasts_s <= 0.5


def test_a_plan_that_shows_something_else_is_not_taken() -> None:
    plan = Plan(pattern="mixed", faults=(fault(1), fault(2)), lasts_s=3.0)
    found = shrunk(report(plan, BAD), Runs("h1", shows=OTHER))
    assert found.plan == plan


def test_it_ends_after_so_many_runs() -> None:
    plan = Plan(pattern="mixed", faults=tuple(fault(number) for number in range(20)))
    runs = Runs("h3", "h11", "h17")
    shrunk(report(plan, BAD), runs, runs_max=7)
    assert runs.number == 7
