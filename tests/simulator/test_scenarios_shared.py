"""Every scenario of the shared file, when it is there: it is no part of this repository."""

from pathlib import Path

import pytest

from simulator.scenarios.format import Scenario, read_file
from simulator.scenarios.run import run_scenario
from simulator.scenarios.timeline import OPERATIONS

pytestmark = pytest.mark.unit

FILE = Path(__file__).parents[2] / ".." / "shared" / "scenarios" / "ha-scenarios.json"
FOUND = read_file(FILE) if FILE.exists() else ()


@pytest.mark.skipif(not FOUND, reason="../shared/scenarios/ha-scenarios.json is not there")
@pytest.mark.parametrize("scenario", FOUND, ids=lambda scenario: scenario.name)
def test_a_shared_scenario_violates_nothing_and_names_what_is_lacking(scenario: Scenario) -> None:
    outcome = run_scenario(scenario)
    assert outcome.violations == ()
    named = {what.partition(":")[0] for what in outcome.unsupported}
    unknown = {f"op {op.op}" for op in scenario.timeline if op.op not in OPERATIONS}
    assert unknown <= named
    assert set(outcome.levels) == {"L0", "L1", "L2", "L3"}
