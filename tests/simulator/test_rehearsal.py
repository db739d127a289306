"""Rehearsals in the simulator: whatever dies in the middle, the host is on again."""

from typing import Any

import pytest

from engine.actions.hosts import ActivateHost
from engine.actions.maintain_host import MaintainHost
from engine.actions.rehearsals import RehearseFencing
from simulator.faults.plan import Fault
from tests.simulator.scene import Scene, scene

pytestmark = pytest.mark.unit


def of_kind(world: Scene, kind: str) -> list[dict[str, Any]]:
    return [row for row in world.stage.rows.table("operation") if row["kind"] == kind]


def ended(world: Scene, kind: str) -> dict[str, Any]:
    """The newest operation of a kind, once it has ended."""

    def over() -> bool:
        found = of_kind(world, kind)
        return bool(found) and found[-1]["finished_at"] is not None

    world.until(over, limit_s=1200.0)
    return of_kind(world, kind)[-1]


def rehearsal(world: Scene, *faults: Fault) -> dict[str, Any]:
    """h1 is emptied, and its devices are rehearsed under faults."""
    world.start()
    host_id = world.stage.rows.find("host", "h1")["id"]
    world.troubles.ask(MaintainHost(host_id=host_id))
    assert ended(world, "host.maintain")["state"] == "succeeded"
    world.inject(*faults)
    world.troubles.ask(RehearseFencing(host_id=host_id))
    return ended(world, "host.rehearse_fencing")


def test_the_host_is_off_and_on_again_and_nothing_takes_it_for_dead() -> None:
    with scene() as world:
        boot = world.h1.boot
        assert rehearsal(world)["state"] == "succeeded"
        assert (world.h1.powered, world.h1.boot) == (True, boot + 1)
        assert of_kind(world, "host.recover") == []
        world.troubles.ask(ActivateHost(host_id=world.stage.rows.find("host", "h1")["id"]))
        assert ended(world, "host.activate")["state"] == "succeeded"
        assert world.watch.violations == []


def test_a_person_of_a_plan_empties_a_host_and_rehearses_on_it() -> None:
    with scene() as world:
        world.start()
        boot = world.h1.boot
        world.inject(Fault(kind="person.rehearse", at_s=0, subject="h1"))
        assert ended(world, "host.rehearse_fencing")["state"] == "succeeded"
        assert (world.h1.powered, world.h1.boot) == (True, boot + 1)
        assert world.watch.violations == []


def test_what_is_not_emptied_is_not_cut() -> None:
    with scene() as world:
        world.start()
        world.h1.lose_power()
        world.passes(20.0)
        world.inject(Fault(kind="person.rehearse", at_s=0, subject="h1"))
        world.passes(20.0)
        assert world.troubles.refused["RehearseFencing HOST_STATE_FORBIDS"] == 1
        assert of_kind(world, "host.rehearse_fencing") == []


@pytest.mark.parametrize("process", ["fencing@engine-1", "worker@engine-1", "relay@engine-1"])
def test_a_process_killed_while_the_host_is_off_leaves_it_on_in_the_end(process: str) -> None:
    with scene() as world:
        kill = Fault(kind="process.kill", at_s=0, subject=process, after_event="host.power_lost")
        operation = rehearsal(world, kill)
        assert operation["state"] in ("succeeded", "failed"), operation
        assert world.h1.powered
        assert world.watch.violations == []
