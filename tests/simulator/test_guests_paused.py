"""Guests that QEMU pauses because a disk fails them: let go on, left, or ended; in virtual time."""

from collections.abc import Iterator

import pytest

from domain.inventory import OnIoError
from domain.paused_guests import KILL_AFTER_S, KILLED
from domain.readings import DomainState, StateReason
from simulator.faults.plan import Fault
from simulator.world.storage import StorageState
from tests.simulator.scene import Scene, scene
from tests.simulator.test_guests_end import edit, home, recoveries, runs, runs_in, switch, waits

pytestmark = pytest.mark.unit


@pytest.fixture
def world() -> Iterator[Scene]:
    """Three hosts, four protected VMs, an engine that is up; nothing may be violated."""
    with scene() as made:
        made.start()
        yield made
        assert made.watch.violations == []
        assert made.caught == []


def state(world: Scene, vm: str) -> DomainState:
    """The state of the VM's domain where it runs."""
    return world.stage.centre.hosts[home(world, vm)].domains[world.vm(vm)["id"]].state


def fail_io(world: Scene, vm: str = "vm1", storage: StorageState = StorageState.GONE) -> None:
    """The storage fails, and the guest notices."""
    world.stage.centre.set_storage(storage)
    world.inject(Fault(kind="guest.io_error", at_s=0, subject=vm))


def test_a_guest_goes_on_once_its_disk_answers_again(world: Scene) -> None:
    fail_io(world)
    world.until(waits(world, "GUEST_PAUSED"))
    assert "next try at" in recoveries(world)[-1]["waiting_for"]
    assert runs(world, "vm1")[0]["paused_reason"] == "io_error"
    world.stage.centre.set_storage(StorageState.OK)
    world.until(lambda: state(world, "vm1") is DomainState.RUNNING)
    world.until(lambda: recoveries(world)[-1]["state"] == "succeeded")
    (run,) = runs(world, "vm1")
    assert (run["state"], run["paused_reason"]) == ("running", None)


def test_a_short_failure_costs_seconds(world: Scene) -> None:
    began_s = world.stage.loop.time()
    fail_io(world, storage=StorageState.OK)
    world.until(lambda: state(world, "vm1") is DomainState.RUNNING)
    assert world.stage.loop.time() - began_s < 5.0


def test_a_guest_is_left_paused_where_its_vm_says_so_and_is_shown_so(world: Scene) -> None:
    edit(world, "vm1", on_io_error=OnIoError.LEAVE_PAUSED)
    fail_io(world)
    world.until(lambda: bool(recoveries(world)))
    world.stage.centre.set_storage(StorageState.OK)
    world.passes(120.0)
    assert state(world, "vm1") is DomainState.PAUSED
    assert [op["state"] for op in recoveries(world)] == ["succeeded"]
    assert runs(world, "vm1")[0]["paused_reason"] == "io_error"
    # A person lets it go on, by hand.
    domain = world.stage.centre.hosts[home(world, "vm1")].domains[world.vm("vm1")["id"]]
    domain.state, domain.reason = DomainState.RUNNING, StateReason.UNKNOWN
    world.until(lambda: runs(world, "vm1")[0]["paused_reason"] is None)


def test_a_vm_that_may_be_ended_is_started_again_elsewhere_after_a_while(world: Scene) -> None:
    edit(world, "vm1", on_io_error=OnIoError.KILL)
    first, began_s = home(world, "vm1"), world.stage.loop.time()
    fail_io(world)
    world.until(lambda: runs(world, "vm1")[0]["state"] == "ended", limit_s=300.0)
    assert world.stage.loop.time() - began_s > KILL_AFTER_S
    assert runs(world, "vm1")[0]["end_reason"] == KILLED
    world.stage.centre.set_storage(StorageState.OK)
    world.until(runs_in(world, "vm1", runs(world, "vm1")[-1]["generation"]), limit_s=300.0)
    assert home(world, "vm1") != first


def test_a_vm_that_may_be_ended_goes_on_where_its_disk_answers_in_time(world: Scene) -> None:
    edit(world, "vm1", on_io_error=OnIoError.KILL)
    fail_io(world)
    world.until(waits(world, "GUEST_PAUSED"))
    world.stage.centre.set_storage(StorageState.OK)
    world.until(lambda: recoveries(world)[-1]["state"] == "succeeded")
    assert [run["state"] for run in runs(world, "vm1")] == ["running"]


def test_a_disarmed_cluster_lets_nothing_go_on(world: Scene) -> None:
    switch(world, armed=False)
    fail_io(world, storage=StorageState.OK)
    world.passes(60.0)
    assert (state(world, "vm1"), recoveries(world)) == (DomainState.PAUSED, [])
    switch(world, armed=True)
    world.until(lambda: state(world, "vm1") is DomainState.RUNNING)


def test_a_worker_that_dies_with_the_resume_lets_the_guest_go_on_all_the_same(
    world: Scene,
) -> None:
    world.inject(
        Fault(
            kind="process.kill",
            at_s=0,
            subject="worker@engine-1",
            after_event="step.started:vm.resume",
        )
    )
    fail_io(world, storage=StorageState.OK)
    world.until(lambda: recoveries(world) != [] and recoveries(world)[-1]["state"] == "succeeded")
    assert state(world, "vm1") is DomainState.RUNNING
