"""A VM that a person has moved by hand is adopted where it runs, whatever fails meanwhile."""

from typing import Any

import pytest

from domain.errors import Refused
from engine.actions.adoptions import AdoptCopy
from engine.actions.base import Params
from engine.actions.vms import StartVm, StopVm
from simulator.faults.plan import Fault
from tests.simulator.scene import Scene, scene
from tests.simulator.test_guests_end import crash, home, recoveries, runs, runs_in, strays, waits

pytestmark = pytest.mark.unit


def moved_by_hand(world: Scene) -> tuple[str, str]:
    """`vm1` was moved past the engine, as `virsh migrate --undefinesource` does it: from, to."""
    centre, vm_id = world.stage.centre, world.vm("vm1")["id"]
    first = centre.hosts[home(world, "vm1")]
    second = next(host for host in centre.hosts.values() if host is not first)
    second.domains[vm_id] = first.domains.pop(vm_id)
    return first.name, second.name


def wish(world: Scene, host: str) -> Params:
    """What a person asks for."""
    host_id = world.stage.rows.find("host", host)["id"]
    return AdoptCopy(vm_id=world.vm("vm1")["id"], host_id=host_id)


def adoptions(world: Scene) -> list[dict[str, Any]]:
    """Operations that adopted a copy, or were to."""
    return world.stage.rows.table("operation", "kind = 'vm.adopt_copy' ORDER BY rowid")


def adopted(world: Scene) -> list[str]:
    """Where copies were adopted, as it was told."""
    events = world.stage.rows.table("event", "type = 'vm.copy_adopted' ORDER BY rowid")
    return [event["data"]["host"] for event in events]


def test_a_vm_that_was_moved_by_hand_is_adopted_and_its_recovery_gives_way() -> None:
    with scene() as world:
        world.start()
        old, new = moved_by_hand(world)
        world.until(waits(world, "GUEST_ELSEWHERE"))
        assert f"`holdfast vm adopt-copy vm1 --host {new}`" in recoveries(world)[-1]["waiting_for"]
        assert world.does(world.stage.done(wish(world, new)))["state"] == "succeeded"
        assert recoveries(world)[-1]["reason_code"] == "superseded"
        world.passes(120.0)
        assert (runs_in(world, "vm1", 2)(), home(world, "vm1")) == (True, new)
        assert (runs(world, "vm1")[0]["end_reason"], adopted(world)) == ("copy adopted", [new])
        assert world.vm("vm1")["id"] not in world.stage.centre.hosts[old].domains
        assert (world.watch.violations, world.caught, len(recoveries(world))) == ([], [], 1)
        for again in (StopVm, StartVm):
            row = world.does(world.stage.done(again(vm_id=world.vm("vm1")["id"])))
            assert row["state"] == "succeeded"
        assert runs_in(world, "vm1", 3)()
        assert (world.watch.violations, world.caught) == ([], [])


def test_an_adoption_that_names_the_wrong_host_leaves_the_vm_to_its_recovery() -> None:
    with scene() as world:
        world.start()
        old, new = moved_by_hand(world)
        world.until(waits(world, "GUEST_ELSEWHERE"))
        (wrong,) = set(world.stage.centre.hosts) - {old, new}
        row = world.does(world.stage.done(wish(world, wrong)))
        assert (row["state"], row["problem"]["code"]) == ("failed", "COPY_NOT_FOUND")
        world.until(lambda: len(recoveries(world)) == 2 and waits(world, "GUEST_ELSEWHERE")())
        assert (runs(world, "vm1")[-1]["state"], adopted(world)) == ("running", [])


def test_neither_of_two_copies_is_adopted() -> None:
    with scene() as world:
        world.start()
        crash(world, "vm1", "hand.start")
        world.until(lambda: bool(strays(world)))
        (wrong,) = set(world.stage.centre.copies(world.vm("vm1")["id"])) - {home(world, "vm1")}
        row = world.does(world.stage.done(wish(world, wrong)))
        assert (row["state"], row["problem"]["code"]) == ("failed", "COPY_DOUBLED")
        assert (len(runs(world, "vm1")), adopted(world)) == (1, [])


def test_nothing_is_adopted_while_the_host_that_it_left_is_silent() -> None:
    with scene() as world:
        world.start()
        old, new = moved_by_hand(world)
        world.stage.centre.hosts[old].frozen = True
        row = world.does(world.stage.done(wish(world, new)))
        assert (row["state"], row["problem"]["code"]) == ("failed", "HOST_NOT_READ")
        assert adopted(world) == []


BEHIND = (
    *("adoption.read", "adoption.number", "adoption.mark", "adoption.record"),
    "adoption.forget",
)


def adopt_under(world: Scene, kind: str, behind: str, subject: str) -> None:
    """Adopt `vm1` while something happens right behind a step, and let all settle."""
    _old, new = moved_by_hand(world)
    lasts_s = 20.0 if kind == "process.freeze" else None
    after = f"step.started:{behind}"
    world.inject(Fault(kind=kind, at_s=0, subject=subject, lasts_s=lasts_s, after_event=after))
    world.does(world.stage.act(wish(world, new)))
    world.until(lambda: bool(adoptions(world)[-1]["finished_at"]), limit_s=300.0)
    world.passes(300.0)


@pytest.mark.parametrize("behind", BEHIND)
@pytest.mark.parametrize("kind", ["process.kill", "process.freeze"])
def test_a_worker_that_dies_in_the_middle_leaves_the_vm_adopted_once(
    kind: str, behind: str
) -> None:
    with scene() as world:
        world.start()
        adopt_under(world, kind, behind, "worker@engine-1")
        assert adoptions(world)[-1]["state"] == "succeeded"
        (new,) = adopted(world)
        assert world.stage.centre.copies(world.vm("vm1")["id"]) == [new] == [home(world, "vm1")]
        assert (world.stage.centre.doubles, world.watch.violations, world.caught) == ([], [], [])


@pytest.mark.parametrize("behind", BEHIND)
def test_a_copy_that_dies_with_its_host_in_the_middle_runs_again_once(behind: str) -> None:
    with scene() as world:
        world.start()
        new = next(host for host in world.stage.centre.hosts if host != home(world, "vm1"))
        adopt_under(world, "host.reboot", behind, new)
        assert len(world.stage.centre.copies(world.vm("vm1")["id"])) == 1
        assert (runs(world, "vm1")[-1]["state"], len(adopted(world)) <= 1) == ("running", True)
        assert (world.stage.centre.doubles, world.watch.violations, world.caught) == ([], [], [])


@pytest.mark.parametrize("behind", BEHIND)
@pytest.mark.parametrize("kind", ["host.reboot", "host.power_cut"])
def test_a_vm_is_not_adopted_and_recovered_when_its_old_host_dies_in_the_middle(
    kind: str, behind: str
) -> None:
    with scene() as world:
        world.start()
        adopt_under(world, kind, behind, home(world, "vm1"))
        told = adopted(world)
        assert bool(told) == (behind == "adoption.forget")
        # A host that dies before the books have changed takes what it should run with it; what a
        # person has moved away from it runs on, and is not doubled.
        assert len(world.stage.centre.copies(world.vm("vm1")["id"])) == 1
        assert (world.stage.centre.doubles, world.watch.violations, world.caught) == ([], [], [])
        mine = world.stage.rows.table("operation", "state = 'waiting'")
        why = [op["reason_code"] for op in mine if op["target_id"] == world.vm("vm1")["id"]]
        assert why in ([[]] if told else [["NO_ROOM"], ["GUEST_ELSEWHERE"]])


def test_the_host_that_the_books_know_is_refused_at_the_door() -> None:
    with scene() as world:
        world.start()
        with pytest.raises(Refused, match="COPY_IS_THE_RUN"):
            world.does(world.stage.act(wish(world, home(world, "vm1"))))
