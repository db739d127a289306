"""A VM that somebody moved or started past the engine is not doubled by the engine."""

from copy import copy

import pytest

from domain.readings import StateReason
from engine.actions.vms import StartVm, StopVm
from simulator.faults.plan import Fault
from simulator.world.host import VirtualHost
from tests.simulator.scene import Scene, scene
from tests.simulator.test_adopted_copies import moved_by_hand
from tests.simulator.test_guests_end import home, runs

pytestmark = pytest.mark.unit


def copies(world: Scene) -> list[str]:
    """Hosts on which a process of `vm1` lives."""
    vm_id = world.vm("vm1")["id"]
    hosts = world.stage.centre.hosts.values()
    return [host.name for host in hosts if vm_id in host.domains and host.domains[vm_id].alive]


def start_of(world: Scene) -> dict[str, object]:
    """The operation that starts `vm1` again."""
    vm_id = world.vm("vm1")["id"]
    starts = world.stage.rows.table("operation", "kind = 'vm.start' ORDER BY rowid")
    return [op for op in starts if op["target_id"] == vm_id][-1]


def dead(world: Scene) -> tuple[VirtualHost, VirtualHost]:
    """The host of the rows has lost its power, the other one runs the VM and was polled since."""
    old, new = moved_by_hand(world)
    world.passes(5.0)
    hosts = world.stage.centre.hosts
    hosts[old].lose_power()
    return hosts[old], hosts[new]


def test_its_restart_waits_while_a_host_shows_it_and_goes_on_once_it_has_ended() -> None:
    with scene() as world:
        world.start()
        _old, new = dead(world)
        world.until(lambda: start_of(world)["reason_code"] == "NO_ROOM")
        assert f"the last poll of {new.name} shows a process of vm1" in str(
            start_of(world)["waiting_for"]
        )
        world.passes(60.0)
        assert copies(world) == [new.name]
        vm_id = world.vm("vm1")["id"]
        new.end(vm_id, "shut down there", StateReason.SHUTDOWN)
        world.until(lambda: start_of(world)["state"] == "succeeded")
        assert (copies(world), runs(world, "vm1")[-1]["state"]) == ([home(world, "vm1")], "running")
        assert (world.watch.violations, world.caught) == ([], [])


@pytest.mark.parametrize("step", ["recovery.claim_victims", "guest.place"])
def test_a_worker_that_dies_while_it_looks_starts_nothing_twice(step: str) -> None:
    with scene() as world:
        world.start()
        after = f"step.started:{step}"
        world.inject(
            Fault(kind="process.kill", at_s=0, subject="worker@engine-1", after_event=after)
        )
        _old, new = dead(world)
        world.until(lambda: start_of(world)["reason_code"] == "NO_ROOM", limit_s=300.0)
        world.passes(60.0)
        assert copies(world) == [new.name]
        assert (world.watch.violations, world.caught) == ([], [])


def started_by_hand(world: Scene, *, elsewhere: bool, state: str = "up") -> str:
    """vm1 was stopped; then somebody started it where it ran, or on a host in this state: which."""
    world.start()
    centre, vm_id = world.stage.centre, world.vm("vm1")["id"]
    first = home(world, "vm1")
    where = next(name for name in centre.hosts if (name != first) is elsewhere)
    kept = copy(centre.hosts[first].domains[vm_id])
    assert world.does(world.stage.done(StopVm(vm_id=vm_id)))["state"] == "succeeded"
    put_state = f"UPDATE host SET state = '{state}' WHERE name = '{where}'"
    world.stage.memory.raw.execute(put_state)
    centre.run(centre.hosts[where], vm_id, kept, by_hand=True)
    world.passes(5.0)
    return where


def a_start_waits(world: Scene, where: str) -> None:
    """A person's start of vm1 waits for the copy on this host, and starts nothing beside it."""
    world.does(world.stage.act(StartVm(vm_id=world.vm("vm1")["id"])))
    world.until(lambda: start_of(world)["reason_code"] == "NO_ROOM")
    why = f"the last poll of {where} shows a process of vm1"
    assert why in str(start_of(world)["waiting_for"])
    world.passes(60.0)
    assert copies(world) == [where]


def test_a_person_s_start_of_a_vm_that_is_down_waits_for_the_copy_that_another_host_shows() -> None:
    with scene() as world:
        other = started_by_hand(world, elsewhere=True)
        a_start_waits(world, other)
        vm_id = world.vm("vm1")["id"]
        world.stage.centre.hosts[other].end(vm_id, "shut down there", StateReason.SHUTDOWN)
        world.until(lambda: start_of(world)["state"] == "succeeded")
        assert (len(copies(world)), world.watch.inside, world.caught) == (1, [], [])


@pytest.mark.parametrize("state", ["maintenance", "preparing_maintenance", "non_operational"])
def test_a_copy_on_a_host_that_is_out_of_service_and_answers_is_seen_as_well(state: str) -> None:
    with scene() as world:
        a_start_waits(world, started_by_hand(world, elsewhere=True, state=state))


def test_a_copy_started_by_hand_where_the_vm_has_ended_is_seen_once_a_poll_shows_it() -> None:
    with scene() as world:
        a_start_waits(world, started_by_hand(world, elsewhere=False))


def test_a_vm_that_was_just_stopped_is_started_without_waiting_for_a_poll() -> None:
    with scene() as world:
        world.start()
        vm_id = world.vm("vm1")["id"]
        assert world.does(world.stage.done(StopVm(vm_id=vm_id)))["state"] == "succeeded"
        assert world.does(world.stage.done(StartVm(vm_id=vm_id)))["state"] == "succeeded"
        assert start_of(world)["reason_code"] is None


def test_the_others_of_its_host_do_not_wait_for_it() -> None:
    with scene() as world:
        world.start()
        moved_by_hand(world)
        world.passes(5.0)
        world.stage.centre.hosts[home(world, "vm1")].lose_power()
        world.until(lambda: runs(world, "vm4")[-1]["generation"] == 2)
        world.until(lambda: runs(world, "vm4")[-1]["state"] == "running")
        assert len(copies(world)) == 1
