"""A plan is made smaller for as long as it shows the same thing."""

from collections.abc import Callable

import pytest

from simulator.faults.plan import Fault, Plan
from simulator.invariants.facts import Violation
from simulator.report import Report
from simulator.setup import Setup
from simulator.shrink import Budget, Progress, shrunk

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
    shrunk(report(plan, BAD), runs, Budget(runs=7))
    assert runs.number == 7


def long(*needed: str) -> tuple[Plan, Runs, Callable[[], float]]:
    """A plan of many faults whose runs take ten seconds each."""
    plan = Plan(pattern="mixed", faults=tuple(fault(number) for number in range(20)))
    runs = Runs(*needed)
    return plan, runs, lambda: 10.0 * runs.number


def test_no_run_is_begun_that_would_end_after_its_time_and_the_best_so_far_is_kept() -> None:
    plan, runs, clock = long("h3")
    found = shrunk(report(plan, BAD), runs, Budget(seconds=35.0, clock=clock))
    assert runs.number == 3
    assert len(found.plan.faults) <= 10
    assert found.found() == {"one_copy"}


def test_a_run_that_takes_longer_than_there_is_time_is_not_repeated_at_all() -> None:
    plan, runs, clock = long("h3")
    whole = report(plan, BAD).model_copy(update={"real_s": 100.0})
    assert shrunk(whole, runs, Budget(seconds=60.0, clock=clock)) == whole
    assert runs.number == 0


def test_it_tells_after_each_run_how_far_it_is() -> None:
    plan, runs, clock = long("h3")
    told: list[Progress] = []
    shrunk(report(plan, BAD), runs, Budget(seconds=30.0, clock=clock), told.append)
    assert [(each.runs, each.took_s) for each in told] == [(1, 10.0), (2, 20.0), (3, 30.0)]
    assert [each.faults for each in told] == sorted((each.faults for each in told), reverse=True)
    assert str(told[-1]).startswith("3 runs in 30 s, ")


def test_a_person_who_interrupts_it_gets_the_best_so_far() -> None:
    plan = Plan(pattern="mixed", faults=tuple(fault(number) for number in range(8)))
    runs = Runs("h2")

    def interrupted(smaller: Plan) -> Report:
        if runs.number == 2:
            raise KeyboardInterrupt
        return runs(smaller)

    found = shrunk(report(plan, BAD), interrupted)
    assert "h2" in {each.subject for each in found.plan.faults}
    assert len(found.plan.faults) < 8


def test_no_plan_is_run_twice() -> None:
    plan = Plan(pattern="mixed", faults=tuple(fault(number, 3.0) for number in range(6)))
    seen: list[Plan] = []
    runs = Runs("h2", "h4")

    def kept(smaller: Plan) -> Report:
        seen.append(smaller)
        return runs(smaller)

    shrunk(report(plan, BAD), kept)
    assert len({each.model_dump_json() for each in seen}) == len(seen)


def test_machines_of_the_engine_that_no_fault_names_are_left_out() -> None:
    named = Fault(kind="machine.freeze", at_s=0.1, subject="engine-2")
    plan = Plan(pattern="machines", faults=(named,), lasts_s=1.0, machines=3)
    assert shrunk(report(plan, BAD), Runs("engine-2")).plan.machines == 2
