"""What `make bench-recovery` makes of what it measured."""

from datetime import UTC, datetime, timedelta

import pytest

from benchmarks.recovery_runs import Run, Step, steps_of, timed

pytestmark = pytest.mark.unit

FAULT = datetime(2026, 1, 1, tzinfo=UTC)


def at(seconds: float) -> str:
    return (FAULT + timedelta(seconds=seconds)).isoformat()


@pytest.mark.parametrize(("times", "met"), [([3.0, 3.9, 9.0], True), ([3.0, 4.1, 4.2], False)])
def test_a_limit_is_met_by_the_median_and_the_worst_is_told_beside_it(
    times: list[float], met: bool
) -> None:
    figure = timed("first", times, 4.0, [0.5, 2.5])
    assert figure.met is met
    assert figure.data == {"median_s": times[1], "worst_s": times[2], "runs": 3.0}
    assert f"worst {times[2]:.2f} s (3 runs)" in figure.value
    assert figure.load == 2.5


def test_steps_of_parts_are_told_in_seconds_from_the_fault_and_open_ones_are_left_out() -> None:
    start = {"name": "guest.start", "started_at": at(3), "finished_at": at(4.25)}
    still = {"name": "recovery.report", "started_at": at(5), "finished_at": None}
    child = {"target_name": "vm-1", "steps": [start], "children": []}
    tree = {"target_name": "h1", "steps": [still], "children": [child]}
    expected = Step(name="guest.start", target="vm-1", began_s=3.0, took_s=1.25)
    assert list(steps_of(tree, FAULT)) == [expected]


def test_a_phase_that_was_not_reached_is_shown_as_such_and_not_as_zero() -> None:
    run = Run(phases={"detect": 1.5, "ready": None}, first_s=3, last_s=4, load=0.1)
    assert "detect 1.50, ready –" in run.told()
