"""Percentiles over incidents are measured times; VMs, power cuts and waits are counted."""

import random
from datetime import UTC, datetime, timedelta

import pytest

from domain.incident_stats import (
    FEW,
    PHASES,
    ClosedIncident,
    Spread,
    VmBack,
    Wait,
    Waited,
    spread,
    stats_of,
)
from tests.unit.domain.builders import id_of

pytestmark = pytest.mark.unit

START = datetime(2026, 11, 22, 7, tzinfo=UTC)


def closed(
    name: str, outcome: str = "recovered", fences: int = 0, **phases_s: float
) -> ClosedIncident:
    return ClosedIncident(
        incident_id=id_of(name), outcome=outcome, phases_s=phases_s, fences=fences
    )


def wait(name: str, code: str, first_s: float, last_s: float) -> Wait:
    first, last = (START + timedelta(seconds=at_s) for at_s in (first_s, last_s))
    return Wait(incident_id=id_of(name), code=code, first_at=first, last_at=last)


def test_of_ten_times_the_ninth_is_p90_and_the_last_is_p99() -> None:
    times = [float(number) for number in range(10, 0, -1)]
    assert spread(times) == Spread(count=10, p50_s=5.0, p90_s=9.0, p99_s=10.0, worst_s=10.0)


def test_of_a_hundred_times_the_worst_is_beyond_p99() -> None:
    found = spread(float(number) for number in range(1, 101))
    assert (found.p50_s, found.p90_s, found.p99_s, found.worst_s) == (50.0, 90.0, 99.0, 100.0)


def test_one_time_is_every_percentile_and_none_has_none() -> None:
    assert spread([4.2]) == Spread(count=1, p50_s=4.2, p90_s=4.2, p99_s=4.2, worst_s=4.2)
    assert spread([]) == Spread(count=0)


@pytest.mark.parametrize("count", [1, 2, 3, 9, 10, 19, 20, 99, 100, 101, 250])
def test_a_percentile_is_a_measured_time_that_so_many_are_not_above(count: int) -> None:
    dice = random.Random(count)
    times = [round(dice.uniform(0, 60), 3) for _ in range(count)]
    found = spread(times)
    for percent, at_s in ((50, found.p50_s), (90, found.p90_s), (99, found.p99_s)):
        assert at_s in times
        assert sum(time <= at_s for time in times) * 100 >= percent * count
        assert sum(time < at_s for time in times) * 100 < percent * count


def test_only_recoveries_that_went_to_their_end_have_a_total() -> None:
    found = stats_of(
        (
            closed("a", detect=2.0, decide=0.5, start=3.0),
            closed("b", "incomplete", detect=4.0, decide=100.0),
            closed("c", "returned", detect=1.0),
        ),
        (),
        (),
    )
    assert (found.incidents, found.outcomes) == (
        3,
        {"recovered": 1, "incomplete": 1, "returned": 1},
    )
    assert (found.total.count, found.total.p50_s, found.total.worst_s) == (2, 5.5, 104.0)
    assert found.phases["detect"].count == 3


def test_every_phase_is_told_also_one_that_no_incident_went_through() -> None:
    phases = stats_of((closed("a", detect=2.0),), (), ()).phases
    assert tuple(phases) == PHASES
    assert phases["prove"] == Spread(count=0)


def test_a_vm_that_is_not_back_is_over_its_budget() -> None:
    vms = (
        VmBack(back_s=10.0, budget_s=10),
        VmBack(back_s=10.001, budget_s=10),
        VmBack(back_s=None, budget_s=600),
        VmBack(back_s=3.0, budget_s=None),
        VmBack(back_s=None, budget_s=None),
    )
    found = stats_of((), vms, ())
    assert found.budgets.model_dump() == {
        "vms": 5,
        "back": 3,
        "not_back": 2,
        "within": 1,
        "over": 2,
        "without_budget": 2,
    }
    assert (found.vms.count, found.vms.worst_s) == (3, 10.001)


def test_a_reason_lasts_from_its_first_to_its_last_time_in_one_incident() -> None:
    waits = (
        wait("a", "MANY_SILENT", 0, 10),
        wait("a", "MANY_SILENT", 40, 70),  # its numbers had changed
        wait("b", "MANY_SILENT", 0, 5),
        wait("b", "DISARMED", 0, 3600),
    )
    assert stats_of((), (), waits).waited == (
        Waited(code="MANY_SILENT", incidents=2, worst_s=70.0),
        Waited(code="DISARMED", incidents=1, worst_s=3600.0),
    )


def test_power_cuts_are_added_up_and_few_incidents_are_called_few() -> None:
    some = tuple(closed(f"i{n}", fences=n % 2, detect=1.0) for n in range(FEW))
    assert (stats_of(some, (), ()).fences, stats_of(some, (), ()).few) == (FEW // 2, False)
    assert stats_of(some[1:], (), ()).few
