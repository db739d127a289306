"""A cluster that promises memory more than once loses a host: its VMs fit elsewhere at once."""

import pytest

from domain.profiles import Profile
from simulator.seeds import simulate
from simulator.setup import HostSetup, Setup, VmSetup
from tests.simulator.families import fault, plan

pytestmark = pytest.mark.unit

TIGHT = Setup(
    hosts=tuple(HostSetup(name=name, memory_mib=1024) for name in ("h1", "h2", "h3")),
    vms=tuple(VmSetup(name=f"vm{n}", host=f"h{1 + n}", memory_mib=640) for n in range(3)),
    profile=Profile.FAST,
)
"""Hosts with a VM each, and no room for a second one."""


def placed(ratio: float) -> set[str]:
    """Hosts on which VMs were placed after h1 has lost its power; it is back after a minute."""
    faults = (fault("host.power_cut", 1, lasts_s=40), fault("person.activate", 60))
    setup = TIGHT.model_copy(update={"memory_overcommit": ratio})
    report = simulate(7, plan("tight", *faults, lasts_s=120), setup)
    assert report.good, (report.inside, report.defects)
    return {line.split()[3] for line in report.timeline if "run.placed" in line}


def test_a_vm_waits_for_the_host_that_has_memory_for_it() -> None:
    assert placed(1.0) == {"host=h1"}


def test_the_same_vm_starts_elsewhere_at_once_where_memory_may_be_promised_more_than_once() -> None:
    assert placed(1.25) & {"host=h2", "host=h3"}
