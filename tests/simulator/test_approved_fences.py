"""A person's approval lets one held fence pass, and none once it is taken back."""

import pytest

from simulator.faults.plan import Fault
from tests.simulator.scene import Scene, scene

pytestmark = pytest.mark.unit


def two_of_three_are_cut_off(on: Scene) -> None:
    """Guests live; half of the hosts and more are silent, so the guard holds every fence."""
    on.start()
    on.passes(20.0)
    cuts = (
        Fault(kind="link.cut", at_s=0, subject=host, args={"net": "management"})
        for host in ("h1", "h2")
    )
    on.inject(*cuts)
    on.until(lambda: on.kinds.count("incident.opened") == 2)
    on.passes(5.0)
    assert on.watch.fences == 0


def test_an_approved_fence_passes_the_guard_and_no_other_does() -> None:
    with scene() as on:
        two_of_three_are_cut_off(on)
        other = on.stage.centre.hosts["h2"]
        booted = other.boot
        on.inject(Fault(kind="person.approve", at_s=0, subject="h1"))
        on.until(lambda: on.watch.fences == 1)
        on.passes(60.0)
        assert on.watch.fences == 1
        assert on.kinds.count("certificate.issued") == 1
        assert (other.powered, other.boot) == (True, booted)
        assert on.watch.violations == []


def test_an_approval_that_was_taken_back_lets_nothing_pass() -> None:
    with scene() as on:
        two_of_three_are_cut_off(on)
        hold = Fault(kind="person.disarm", at_s=0, lasts_s=20.0)
        approve = Fault(kind="person.approve", at_s=0.5, subject="h1", lasts_s=2.0)
        on.inject(hold, approve)
        on.passes(60.0)
        assert on.stage.rows.find("cluster", "c1")["armed"]
        assert on.watch.fences == 0
