"""A crowded cluster loses a host: less important VMs make room, and come back with the host."""

import pytest

from simulator.seeds import simulate
from simulator.setup import CROWDED
from tests.simulator.families import fault, plan

pytestmark = pytest.mark.unit


def test_the_least_important_make_room_and_run_again_once_the_host_is_back() -> None:
    # On h1 stand vm3, vm6 and vm9, of priority 30, 60 and 90; vm1 and vm2 are not protected.
    faults = (
        fault("host.power_cut", 1, lasts_s=40),
        fault("person.activate", 60),
    )
    report = simulate(7, plan("crowded", *faults, lasts_s=120), CROWDED)
    assert report.good, (report.inside, report.defects)
    stopped = [line.split()[2:] for line in report.timeline if "vm.makes_room" in line]
    names = [words[0] for words in stopped]
    assert {"vm1", "vm2"} <= set(names), report.timeline
    assert "vm9" not in names
    started = [line for line in report.timeline if "run.running" in line]
    assert any("vm1" in line for line in started), started
