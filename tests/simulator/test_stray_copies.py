"""A VM that a person has doubled comes back to one copy, whatever fails while a copy is ended."""

from typing import Any

import pytest

from domain.errors import Refused
from domain.readings import StateReason
from engine.actions.base import Params
from engine.actions.stray_copies import EndCopy
from simulator.faults.plan import Fault
from tests.simulator.scene import Scene, scene
from tests.simulator.test_guests_end import crash, home, recoveries, runs, runs_in, strays, waits

pytestmark = pytest.mark.unit


def wrong_copies(world: Scene) -> set[str]:
    """Where vm1 runs and should not."""
    return set(world.stage.centre.copies(world.vm("vm1")["id"])) - {home(world, "vm1")}


def doubled(world: Scene) -> str:
    """A person has started a second copy of vm1, which was told; the host of that copy."""
    world.start()
    crash(world, "vm1", "hand.start")
    world.until(lambda: bool(strays(world)))
    (wrong,) = wrong_copies(world)
    return wrong


def wish(world: Scene, host: str, *, last_copy: bool = False) -> Params:
    """What a person asks for."""
    host_id = world.stage.rows.find("host", host)["id"]
    return EndCopy(vm_id=world.vm("vm1")["id"], host_id=host_id, last_copy=last_copy)


def ended(world: Scene) -> list[dict[str, Any]]:
    """Operations that ended a copy, or were to."""
    return world.stage.rows.table("operation", "kind = 'vm.end_copy' ORDER BY rowid")


def test_a_doubled_vm_is_brought_back_to_one_copy_by_a_person() -> None:
    with scene() as world:
        wrong = doubled(world)
        (event,) = world.stage.rows.table("event", "type = 'vm.stray'")
        assert f"`holdfast vm end-copy vm1 --host {wrong}`" in event["data"]["next_step"]
        assert world.does(world.stage.done(wish(world, wrong)))["state"] == "succeeded"
        world.passes(120.0)
        assert (wrong_copies(world), len(strays(world))) == (set(), 1)
        assert runs_in(world, "vm1", 1)()


def test_a_vm_that_was_moved_by_hand_is_ended_there_and_its_recovery_gives_way() -> None:
    with scene() as world:
        world.start()
        centre, vm_id = world.stage.centre, world.vm("vm1")["id"]
        first = centre.hosts[home(world, "vm1")]
        second = next(host for host in centre.hosts.values() if host is not first)
        second.domains[vm_id] = first.domains.pop(vm_id)
        world.until(waits(world, "GUEST_ELSEWHERE"))
        why = recoveries(world)[-1]["waiting_for"]
        assert f"end-copy vm1 --host {second.name} --last-copy" in why
        asked = wish(world, second.name, last_copy=True)
        assert world.does(world.stage.done(asked))["state"] == "succeeded"
        assert recoveries(world)[-1]["reason_code"] == "superseded"
        world.passes(120.0)
        assert (centre.copies(vm_id), runs(world, "vm1")[-1]["state"]) == ([], "ended")
        assert (world.watch.violations, world.caught) == ([], [])


BEHIND = ("copy.read", "copy.end", "copy.forget", "copy.record")
KINDS = ("process.kill", "own host.power_cut", "host.reboot")


@pytest.mark.parametrize("behind", BEHIND)
@pytest.mark.parametrize("kind", KINDS)
def test_whatever_fails_in_the_middle_one_copy_is_left(kind: str, behind: str) -> None:
    with scene() as world:
        wrong = doubled(world)
        own = kind.startswith("own ")
        subject = "worker@engine-1" if kind == "process.kill" else wrong
        trouble = Fault(
            kind=kind.removeprefix("own "),
            at_s=0,
            subject=home(world, "vm1") if own else subject,
            after_event=f"step.started:{behind}",
        )
        world.inject(trouble)
        world.does(world.stage.act(wish(world, wrong)))
        world.until(lambda: bool(ended(world)[-1]["finished_at"]), limit_s=300.0)
        world.passes(300.0)
        lost = runs(world, "vm1")[-1]["state"] == "lost"  # its restart waits until that has ended
        for host in wrong_copies(world) if lost else ():
            copy = world.stage.centre.hosts[host]
            copy.end(world.vm("vm1")["id"], "shut down there", StateReason.SHUTDOWN)
            world.passes(60.0)
        for host in wrong_copies(world):
            assert world.does(world.stage.done(wish(world, host)))["state"] == "succeeded"
        assert (wrong_copies(world), runs(world, "vm1")[-1]["state"]) == (set(), "running")
        copies = world.stage.centre.copies(world.vm("vm1")["id"])
        assert copies == [home(world, "vm1")]
        assert [double for double in world.stage.centre.doubles if not double.outside] == []
        assert world.caught == []


def test_the_copy_that_the_books_know_is_refused_at_the_door() -> None:
    with scene() as world:
        doubled(world)
        with pytest.raises(Refused, match="COPY_IS_THE_RUN"):
            world.does(world.stage.act(wish(world, home(world, "vm1"))))
