"""A worker that stood still wakes up late, and its step is shown as running by nobody any more."""

from typing import Any

import pytest

from domain.profiles import Profile
from simulator.faults.plan import Fault, Plan
from simulator.seeds import simulate
from simulator.setup import Setup

pytestmark = pytest.mark.unit

CUT = Fault(kind="host.power_cut", subject="h3", at_s=1)


@pytest.mark.parametrize("step", ["guest.define", "guest.start", "recovery.claim_victims"])
def test_no_step_runs_in_an_operation_that_the_other_machine_has_ended(step: str) -> None:
    behind = f"step.started:{step}"
    frozen: dict[str, Any] = {"subject": "worker@engine-1", "after_event": behind, "lasts_s": 30}
    faults = (CUT, Fault(kind="process.freeze", at_s=0, **frozen))
    plan = Plan(pattern="late step", faults=faults, lasts_s=60, machines=2)
    report = simulate(1, plan, Setup.small(hosts=4, vms=4, profile=Profile.FAST))
    assert report.good, (report.inside, report.defects)
