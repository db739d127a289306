"""What the world does later is nobody's work, and still goes by the simulation's clock."""

from datetime import timedelta

import pytest

from engine.clock import utc_now
from simulator.faults.plan import Fault
from simulator.loop import CURRENT, EPOCH
from tests.simulator.scene import scene

pytestmark = pytest.mark.unit


def test_what_happens_later_belongs_to_no_process_and_tells_virtual_time() -> None:
    with scene() as on:
        on.start()
        told = []
        later = on.stage.centre.happenings.later
        on.stage.loop.call_soon(later, 1.0, lambda: told.append((CURRENT.get(), utc_now())))
        on.passes(1.5)
        ((whose, at),) = told
        assert whose is None
        assert on.stage.loop.now() - at == timedelta(seconds=0.5)


def test_a_process_that_dies_behind_an_event_of_the_world_comes_back_in_virtual_time() -> None:
    """The cut of a BMC takes effect later; whoever dies with it used to wake up in real time."""
    with scene() as on:
        on.start()
        on.inject(
            Fault(kind="link.cut", at_s=0, subject="h1", args={"net": "management", "way": "both"}),
            Fault(
                kind="process.kill",
                at_s=0,
                subject="monitor@engine-1",
                after_event="host.power_lost",
            ),
        )
        on.until(lambda: "host.power_lost" in on.kinds)
        on.passes(30.0)
        looked = [row["seen_at"] for row in on.stage.rows.table("monitor")]
        assert looked
        assert all(at.year == EPOCH.year for at in looked)
