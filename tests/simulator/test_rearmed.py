"""A VM whose host rebooted while the cluster was disarmed is started once it is armed again."""

import pytest

from simulator.faults.plan import Fault, Plan
from simulator.seeds import simulate
from simulator.setup import Setup

pytestmark = pytest.mark.unit

DISARMED = Fault(kind="person.disarm", at_s=2, lasts_s=20)
REBOOT = Fault(kind="host.power_cut", subject="h2", at_s=4, lasts_s=0.7)


@pytest.mark.parametrize("seed", [1, 2])
def test_it_is_started_by_the_engine_and_not_before(seed: int) -> None:
    plan = Plan(pattern="rearmed", faults=(DISARMED, REBOOT), lasts_s=40)
    report = simulate(seed, plan, Setup.small(hosts=3, vms=3))
    assert report.good, (report.inside, report.defects)
    (started,) = [line for line in report.timeline if "guest.started" in line]
    assert 22 < float(started.split()[0]) < 40
