"""A host in maintenance stays there whatever becomes of the engine, and nobody fences it."""

import pytest

from simulator.faults.plan import Fault
from simulator.setup import Setup
from tests.simulator.scene import scene

pytestmark = pytest.mark.unit


def test_an_engine_that_loses_its_power_finds_the_host_in_maintenance_and_leaves_it_alone() -> None:
    with scene(Setup.small(hosts=3, vms=3)) as on:
        on.start()
        on.passes(20.0)
        on.inject(Fault(kind="person.maintain", at_s=0, subject="h1"))
        on.until(lambda: on.stage.rows.find("host", "h1")["state"] == "maintenance")
        on.stage.engine.lose_machine("engine-1")
        on.passes(30.0)
        on.stage.engine.regain_machine("engine-1")
        on.passes(10.0)
        on.h1.lose_power()
        on.passes(120.0)
        assert on.stage.rows.find("host", "h1")["state"] == "maintenance"
        assert on.stage.rows.table("incident") == []
        assert all(on.vm(f"vm{n}")["wanted"] for n in (1, 2, 3))
        assert (on.watch.inside, on.caught) == ([], [])
