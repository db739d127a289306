"""Budgets of clusters, racks and sites: what is allowed, when it is free, how wide a silence is."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from domain.fence_budgets import FenceBudget, Scope, Tally, free_at, silent_domain
from domain.storm import HoldReason, why_held
from tests.unit.domain.builders import budget, fence_facts
from tests.unit.domain.test_storm_guard import POLICY

pytestmark = pytest.mark.unit

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("most", "percent", "hosts", "limit"),
    [
        (None, None, 10, None),
        (3, None, 10, 3),
        (None, 25, 10, 2),  # 2.5 is rounded down
        (None, 5, 10, 1),  # and 0.5 up to one: a percentage forbids no fence altogether
        (3, 20, 10, 2),
        (1, 50, 10, 1),
        (0, 50, 10, 0),  # a number does
        (None, 100, 7, 7),
    ],
)
def test_the_stricter_limit_holds_and_a_percentage_allows_one_host_at_least(
    most: int | None, percent: int | None, hosts: int, limit: int | None
) -> None:
    found = budget(most=most, percent=percent, hosts=hosts)
    assert found.limit == limit
    for spent in range(9):
        one = budget(most=most, percent=percent, hosts=hosts, spent=spent)
        assert one.exhausted is (limit is not None and spent >= limit)


def test_a_spent_budget_says_which_how_much_and_when_it_is_free() -> None:
    at = datetime(2026, 1, 2, 13, 46, tzinfo=UTC)
    found = budget(Scope.RACK, "r1", spent=2, hosts=8, percent=25, frees_at=at)
    assert found.told() == (
        "2 of 2 fences (25 % of 8 hosts) in the last 300 s are spent in rack r1; "
        "the next one is free at 13:46 UTC"
    )


@pytest.mark.parametrize(
    ("ages_s", "limit", "after_s"),
    [
        ([], 1, None),
        ([10], 2, None),
        ([10], 0, None),  # never
        ([10], 1, 290),
        ([10, 100], 1, 290),  # both have to leave the window
        ([10, 100], 2, 200),  # one of them
        ([400], 1, 0),
    ],
)
def test_the_next_fence_is_free_when_enough_of_the_others_have_left_the_window(
    ages_s: list[float], limit: int, after_s: float | None
) -> None:
    at = free_at(ages_s, limit, 300, NOW)
    if after_s is None:
        assert at is None
        return
    assert at is not None
    assert timedelta(0) <= at - (NOW + timedelta(seconds=after_s)) < timedelta(minutes=1)
    assert (at.second, at.microsecond) == (0, 0)


def test_every_budget_that_is_spent_holds_by_its_name() -> None:
    budgets = (
        budget(spent=1, most=3),
        budget(Scope.RACK, "r1", spent=1, most=1),
        budget(Scope.SITE, "north", spent=2, most=2),
    )
    facts = fence_facts().model_copy(update={"budgets": budgets})
    held = why_held(facts, POLICY)
    assert {one.reason for one in held} == {HoldReason.BUDGET_SPENT}
    assert [one.detail for one in held] == [
        "1 of 1 fences in the last 300 s are spent in rack r1",
        "2 of 2 fences in the last 300 s are spent in site north",
    ]


def tally(site: str, rack: str, serving: int, silent: int, **more: Any) -> Tally:
    given = {"cluster_id": uuid4(), "counted": serving} | more
    return Tally(site=site, rack=rack, serving=serving, silent=silent, **given)


def test_a_rack_that_is_silent_as_a_whole_is_told_with_what_is_silent_elsewhere() -> None:
    tallies = (tally("", "r1", 5, 5), tally("", "r2", 7, 0), tally("", "", 2, 1))
    found = silent_domain(tallies, "", "r1")
    assert found is not None
    assert found.told() == "5 of 5 hosts of rack r1 are silent, 1 of 9 elsewhere"
    assert silent_domain(tallies, "", "r2") is None
    assert silent_domain(tallies, "", "") is None


def test_hosts_of_several_clusters_make_one_rack_and_a_namesake_in_another_site_none() -> None:
    tallies = (tally("a", "r1", 1, 1), tally("a", "r1", 1, 1), tally("b", "r1", 3, 0))
    found = silent_domain(tallies, "a", "r1")
    assert found is not None
    assert (found.scope, found.hosts, found.elsewhere) == (Scope.RACK, 2, 3)


def test_the_silence_of_a_whole_site_is_told_as_the_sites() -> None:
    tallies = (tally("a", "r1", 2, 2), tally("a", "r2", 2, 2), tally("b", "r1", 4, 0))
    found = silent_domain(tallies, "a", "r1")
    assert found is not None
    assert found.told() == "4 of 4 hosts of site a are silent, 0 of 4 elsewhere"


@pytest.mark.parametrize(("serving", "silent"), [(1, 1), (5, 4), (0, 0)])
def test_one_host_alone_or_a_rack_of_which_one_answers_tells_of_no_domain(
    serving: int, silent: int
) -> None:
    assert silent_domain((tally("", "r1", serving, silent),), "", "r1") is None


def test_a_hold_says_how_wide_the_silence_is_once() -> None:
    rack = silent_domain((tally("", "r1", 5, 5), tally("", "r2", 7, 0)), "", "r1")
    budgets = (budget(spent=1, most=1), budget(Scope.RACK, "r1", spent=1, most=1))
    facts = fence_facts(domain=rack).model_copy(update={"budgets": budgets})
    told = [one.detail for one in why_held(facts, POLICY)]
    assert [detail.count("5 of 5 hosts of rack r1 are silent") for detail in told] == [1, 0]
    wide = fence_facts(hosts=6, hosts_silent=5, domain=rack)
    (held,) = why_held(wide, POLICY)
    assert held.detail == (
        "5 of 6 hosts are silent: our own network first; "
        "5 of 5 hosts of rack r1 are silent, 0 of 7 elsewhere"
    )


def test_a_budget_without_any_limit_is_never_spent() -> None:
    assert not FenceBudget(scope=Scope.SITE, name="a", spent=99, hosts=100).exhausted
