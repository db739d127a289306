"""Guests that hang, in virtual time: heard first, silent for long enough, asked afresh, started."""

from collections.abc import Iterator
from typing import Any

import pytest

from domain.inventory import OnHang
from domain.readings import DomainState
from simulator.faults.plan import Fault
from simulator.world.host import Libvirtd
from tests.simulator.scene import Scene, scene
from tests.simulator.test_guests_end import edit, home, recoveries, runs, runs_in, switch

pytestmark = pytest.mark.unit


@pytest.fixture
def world() -> Iterator[Scene]:
    """Three hosts, four protected VMs, an engine that is up; nothing may be violated."""
    with scene() as made:
        made.start()
        yield made
        assert made.watch.violations == []
        assert made.caught == []


def listened(world: Scene, vm: str = "vm1", on_hang: OnHang = OnHang.RESTART) -> None:
    """The VM asks for it, and its agent was heard."""
    edit(world, vm, on_hang=on_hang, hang_after_s=30)
    world.until(lambda: bool(runs(world, vm)[-1]["agent_heard"]), limit_s=120.0)


def hang(world: Scene, vm: str = "vm1") -> None:
    world.inject(Fault(kind="guest.hang", at_s=0, subject=vm))


def told(world: Scene, kind: str) -> list[dict[str, Any]]:
    return world.stage.rows.table("event", f"type = '{kind}'")


def domain(world: Scene, vm: str = "vm1") -> Any:
    return world.stage.centre.hosts[home(world, vm)].domains[world.vm(vm)["id"]]


def test_a_guest_that_hangs_is_started_again_after_its_time(world: Scene) -> None:
    listened(world)
    began_s, generation = world.stage.loop.time(), runs(world, "vm1")[-1]["generation"]
    hang(world)
    world.until(runs_in(world, "vm1", generation + 1), limit_s=120.0)
    assert 30.0 <= world.stage.loop.time() - began_s < 60.0
    assert runs(world, "vm1")[-2]["end_reason"] == "guest hung"
    assert len(told(world, "vm.hung")) == 1
    assert not domain(world).hung


def test_one_that_is_only_reported_is_told_once_and_again_when_it_comes_to(world: Scene) -> None:
    listened(world, on_hang=OnHang.REPORT)
    hang(world)
    world.until(lambda: bool(told(world, "vm.hung")), limit_s=120.0)
    world.passes(120.0)
    assert (len(told(world, "vm.hung")), recoveries(world)) == (1, [])
    assert runs(world, "vm1")[-1]["agent_silent_since"] is not None
    domain(world).hung = False
    world.until(lambda: bool(told(world, "vm.answers_again")), limit_s=60.0)
    assert runs(world, "vm1")[-1]["agent_silent_since"] is None


def test_a_guest_that_nobody_listens_to_may_hang(world: Scene) -> None:
    hang(world)
    world.passes(300.0)
    assert (told(world, "vm.hung"), recoveries(world)) == ([], [])
    assert not runs(world, "vm1")[-1]["agent_heard"]


def test_one_whose_agent_never_answered_is_not_held_to_hang(world: Scene) -> None:
    hang(world)
    edit(world, "vm1", on_hang=OnHang.RESTART, hang_after_s=15)
    world.passes(300.0)
    assert (told(world, "vm.hung"), recoveries(world)) == ([], [])


def test_an_agent_that_is_stopped_is_no_hang(world: Scene) -> None:
    listened(world)
    world.stage.centre.not_ready.add(world.vm("vm1")["id"])
    world.passes(300.0)
    assert (told(world, "vm.hung"), recoveries(world)) == ([], [])


def test_a_libvirtd_that_hangs_makes_no_guest_hang(world: Scene) -> None:
    listened(world)
    host = world.stage.centre.hosts[home(world, "vm1")]
    host.set_libvirtd(Libvirtd.HUNG)
    world.passes(120.0)
    host.set_libvirtd(Libvirtd.ALIVE)
    world.passes(20.0)
    assert (told(world, "vm.hung"), recoveries(world)) == ([], [])


def test_a_guest_that_is_paused_by_hand_does_not_hang(world: Scene) -> None:
    listened(world)
    domain(world).state = DomainState.PAUSED
    world.passes(120.0)
    assert told(world, "vm.hung") == []
    domain(world).state = DomainState.RUNNING


def test_a_disarmed_cluster_tells_and_ends_nothing(world: Scene) -> None:
    listened(world)
    switch(world, armed=False)
    hang(world)
    world.passes(120.0)
    assert (len(told(world, "vm.hung")), recoveries(world)) == (1, [])
    switch(world, armed=True)
    generation = runs(world, "vm1")[-1]["generation"]
    world.until(runs_in(world, "vm1", generation + 1), limit_s=120.0)


@pytest.mark.parametrize("step", ["vm.examine", "vm.settle"])
def test_a_worker_that_dies_with_the_step_starts_it_again_once(world: Scene, step: str) -> None:
    listened(world)
    after = f"step.started:{step}"
    world.inject(Fault(kind="process.kill", at_s=0, subject="worker@engine-1", after_event=after))
    generation = runs(world, "vm1")[-1]["generation"]
    hang(world)
    world.until(runs_in(world, "vm1", generation + 1), limit_s=300.0)
    assert [run["state"] for run in runs(world, "vm1")] == ["ended", "running"]
