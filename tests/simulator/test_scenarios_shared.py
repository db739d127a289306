"""Every scenario of the shared file, when it is there: it is no part of this repository."""

from functools import cache
from pathlib import Path

import pytest

from simulator.scenarios.format import Scenario, read_file
from simulator.scenarios.outcome import Outcome
from simulator.scenarios.run import run_scenario
from simulator.scenarios.timeline import OPERATIONS

pytestmark = pytest.mark.unit

FILE = Path(__file__).parents[2] / ".." / "shared" / "scenarios" / "ha-scenarios.json"
FOUND = read_file(FILE) if FILE.exists() else ()


LEAST = {"L0": 1.0, "L1": 1.0, "L2": 41 / 45, "L3": 41 / 45}
"""The part of the scenarios, those apart that ask for a balancer, that has to reach each level."""


@cache
def played(scenario_name: str) -> Outcome:
    return run_scenario(next(each for each in FOUND if each.name == scenario_name))


@pytest.mark.skipif(not FOUND, reason="../shared/scenarios/ha-scenarios.json is not there")
@pytest.mark.parametrize("level", LEAST)
def test_enough_of_the_shared_scenarios_reach_each_level(level: str) -> None:
    outcomes = [outcome for each in FOUND if not (outcome := played(each.name)).balanced]
    missed = {one.name: one.why_not[level] for one in outcomes if not one.levels[level]}
    assert len(missed) <= (1 - LEAST[level]) * len(outcomes), missed


@pytest.mark.skipif(not FOUND, reason="../shared/scenarios/ha-scenarios.json is not there")
@pytest.mark.parametrize("scenario", FOUND, ids=lambda scenario: scenario.name)
def test_a_shared_scenario_violates_nothing_and_names_what_is_lacking(scenario: Scenario) -> None:
    outcome = played(scenario.name)
    assert outcome.violations == ()
    named = {what.partition(":")[0] for what in outcome.unsupported}
    unknown = {f"op {op.op}" for op in scenario.timeline if op.op not in OPERATIONS}
    assert unknown <= named
    assert set(outcome.levels) == {"L0", "L1", "L2", "L3"}
