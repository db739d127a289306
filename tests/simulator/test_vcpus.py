"""A cluster that limits vCPUs loses a host: what no other host may hold waits for it."""

import pytest

from simulator.seeds import simulate
from tests.simulator.families import fault, plan
from tests.simulator.planted_vcpus import NARROW

pytestmark = pytest.mark.unit


def placed(*, overcommit: float | None) -> set[str]:
    """Hosts on which runs were placed after h1 has lost its power; it is back after a minute."""
    faults = (fault("host.power_cut", 1, lasts_s=40), fault("person.activate", 60))
    setup = NARROW.model_copy(update={"vcpu_overcommit": overcommit})
    report = simulate(7, plan("narrow", *faults, lasts_s=120), setup)
    assert report.good, (report.inside, report.defects)
    lines = [line.split() for line in report.timeline if "run.placed" in line]
    assert {words[2] for words in lines} == {"vm0", "vm3"}, report.timeline
    return {words[3] for words in lines}


def test_vms_wait_for_the_host_that_has_vcpus_for_them_though_others_have_memory() -> None:
    assert placed(overcommit=1.25) == {"host=h1"}


def test_the_same_vms_start_elsewhere_at_once_where_nobody_limits_vcpus() -> None:
    assert placed(overcommit=None) == {"host=h2", "host=h3"}
