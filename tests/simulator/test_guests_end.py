"""Guests that end by themselves, in virtual time: noticed, read back, and started again or not."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from domain.context import ActionContext, PriorityClass
from domain.errors import Refused
from domain.inventory import OnGuestShutdown
from engine.actions.base import Params
from engine.actions.clusters import ArmCluster
from engine.actions.vm_config import EditVm
from engine.actions.vm_recovery import RecoverVm
from engine.actions.vms import StartVm, StopVm
from simulator.faults.plan import Fault
from simulator.world.host import Libvirtd
from tests.simulator.scene import Scene, scene

pytestmark = pytest.mark.unit

MONITOR = ActionContext(
    principal="monitor:late", correlation_id="late", priority=PriorityClass.RECOVERY
)


@pytest.fixture
def world() -> Iterator[Scene]:
    """Three hosts, four protected VMs, an engine that is up; nothing may be violated."""
    with scene() as made:
        made.start()
        yield made
        assert made.watch.violations == []
        assert made.caught == []


def recoveries(world: Scene) -> list[dict[str, Any]]:
    """Operations that saw to a guest."""
    return world.stage.rows.table("operation", "kind = 'vm.recover' ORDER BY rowid")


def runs(world: Scene, vm: str) -> list[dict[str, Any]]:
    """Runs of a VM, oldest first."""
    vm_id = world.vm(vm)["id"]
    found = [run for run in world.stage.rows.table("vm_run") if run["vm_id"] == vm_id]
    return sorted(found, key=lambda run: int(run["generation"]))


def home(world: Scene, vm: str) -> str:
    """The host of the VM's newest run."""
    hosts = {row["id"]: row["name"] for row in world.stage.rows.table("host")}
    return str(hosts[runs(world, vm)[-1]["host_id"]])


def runs_in(world: Scene, vm: str, generation: int) -> Callable[[], bool]:
    """Whether a VM runs in a generation, in the rows as in the world."""

    def holds() -> bool:
        last = runs(world, vm)[-1]
        told = (last["generation"], last["state"]) == (generation, "running")
        return told and world.stage.centre.copies(world.vm(vm)["id"]) == [home(world, vm)]

    return holds


def is_down(world: Scene, vm: str) -> Callable[[], bool]:
    """Whether the last run of a VM is closed."""
    return lambda: runs(world, vm)[-1]["state"] == "ended"


def waits(world: Scene, code: str) -> Callable[[], bool]:
    """Whether the newest of them waits for this reason."""
    return lambda: bool(recoveries(world)) and recoveries(world)[-1]["reason_code"] == code


def edit(world: Scene, vm: str, **changes: Any) -> None:
    """Change a VM."""
    row = world.does(world.stage.done(EditVm(vm_id=world.vm(vm)["id"], **changes)))
    assert row["state"] == "succeeded"


def switch(world: Scene, *, armed: bool) -> None:
    """Allow automatic action, or forbid it."""
    (cluster,) = world.stage.rows.table("cluster")
    world.does(world.stage.done(ArmCluster(cluster_id=cluster["id"], armed=armed)))


def crash(world: Scene, vm: str, kind: str = "guest.crash") -> None:
    """A guest ends by itself."""
    world.inject(Fault(kind=kind, at_s=0, subject=vm))


@pytest.mark.parametrize(
    ("kind", "end_reason"),
    [
        ("guest.crash", "guest crashed"),
        ("hand.destroy", "guest destroyed by hand"),
        ("hand.undefine", "guest ended"),
    ],
)
def test_a_protected_vm_that_fails_is_started_again_on_its_own_host(
    world: Scene, kind: str, end_reason: str
) -> None:
    began_s = world.stage.loop.time()
    crash(world, "vm1", kind)
    world.until(runs_in(world, "vm1", 2))
    old, new = runs(world, "vm1")
    assert (old["end_reason"], new["host_id"]) == (end_reason, old["host_id"])
    assert [op["state"] for op in recoveries(world)] == ["succeeded"]
    assert world.stage.loop.time() - began_s < 6.0


def test_what_is_shut_down_from_inside_stays_down_and_says_so(world: Scene) -> None:
    crash(world, "vm1", "guest.shutdown")
    world.until(is_down(world, "vm1"))
    world.passes(60.0)
    (run,) = runs(world, "vm1")
    assert (run["end_reason"], world.vm("vm1")["wanted"]) == ("guest shut down", False)
    assert "stays down" in recoveries(world)[0]["summary"]
    ended = [e for e in world.stage.rows.table("event") if e["type"] == "vm.ended"]
    assert [event["data"]["reason"] for event in ended] == ["guest shut down"]


def test_a_vm_may_ask_to_be_started_again_after_a_shutdown_from_inside(world: Scene) -> None:
    edit(world, "vm1", on_guest_shutdown=OnGuestShutdown.RESTART)
    crash(world, "vm1", "guest.shutdown")
    world.until(runs_in(world, "vm1", 2))


def test_an_unprotected_vm_that_crashes_is_shown_down_and_stays_so(world: Scene) -> None:
    edit(world, "vm1", protected=False)
    crash(world, "vm1")
    world.until(is_down(world, "vm1"))
    world.passes(60.0)
    assert len(runs(world, "vm1")) == 1
    assert world.vm("vm1")["wanted"]


def test_a_disarmed_cluster_leaves_it_as_it_is_until_it_is_armed_again(world: Scene) -> None:
    switch(world, armed=False)
    crash(world, "vm1")
    world.passes(120.0)
    assert [run["state"] for run in runs(world, "vm1")] == ["running"]
    assert recoveries(world) == []
    switch(world, armed=True)
    world.until(runs_in(world, "vm1", 2))


def test_a_guest_that_ends_while_it_is_being_stopped_is_the_stops_business(world: Scene) -> None:
    world.stage.centre.deaf.add(world.vm("vm1")["id"])
    operation = world.does(world.stage.act(StopVm(vm_id=world.vm("vm1")["id"])))
    world.until(lambda: runs(world, "vm1")[0]["state"] == "stopping")
    crash(world, "vm1")
    world.until(lambda: world.stage.rows.ended(operation))
    world.passes(60.0)
    assert world.stage.rows.operation(operation)["state"] == "succeeded"
    assert (recoveries(world), len(runs(world, "vm1"))) == ([], 1)


def test_a_vm_that_ends_again_and_again_is_moved_and_then_waits_for_its_next_try(
    world: Scene,
) -> None:
    edit(world, "vm1", max_restart=1, max_relocate=1)
    began_s, homes = world.stage.loop.time(), [home(world, "vm1")]
    for generation in (2, 3, 4):
        crash(world, "vm1")
        world.until(runs_in(world, "vm1", generation))
        homes.append(home(world, "vm1"))
    assert homes[0] == homes[1] != homes[2] == homes[3]
    crash(world, "vm1")
    world.until(waits(world, "RESTARTS_SPENT"))
    assert "next try at" in recoveries(world)[-1]["waiting_for"]
    assert is_down(world, "vm1")()
    world.until(runs_in(world, "vm1", 5), limit_s=700.0)
    assert world.stage.loop.time() - began_s > 590.0
    assert recoveries(world)[-1]["state"] == "succeeded"


def test_a_vm_that_waits_for_its_next_try_survives_the_reboot_of_its_host(world: Scene) -> None:
    edit(world, "vm1", max_restart=0, max_relocate=0)
    crash(world, "vm1")
    world.until(waits(world, "RESTARTS_SPENT"))
    world.inject(Fault(kind="host.reboot", at_s=0, subject=home(world, "vm1")))
    edit(world, "vm1", max_restart=1)
    world.until(runs_in(world, "vm1", 2), limit_s=700.0)


def test_nothing_is_closed_while_a_copy_runs_on_another_host(world: Scene) -> None:
    centre, vm_id = world.stage.centre, world.vm("vm1")["id"]
    first = centre.hosts[home(world, "vm1")]
    second = next(host for host in centre.hosts.values() if host is not first)
    # As `virsh migrate --undefinesource` does it: there is one copy at any time.
    moved = first.domains.pop(vm_id)
    second.domains[vm_id] = moved
    world.until(waits(world, "GUEST_ELSEWHERE"))
    world.passes(120.0)
    assert [run["state"] for run in runs(world, "vm1")] == ["running"]
    assert len(recoveries(world)) == 1
    first.domains[vm_id] = second.domains.pop(vm_id)
    world.until(lambda: recoveries(world)[-1]["state"] == "succeeded")
    assert "after all" in recoveries(world)[-1]["summary"]


def strays(world: Scene) -> list[str]:
    """What was told of VMs that run where they should not."""
    events = world.stage.rows.table("event", "type = 'vm.stray' ORDER BY rowid")
    return [event["data"]["why"] for event in events]


def test_a_copy_that_a_person_started_elsewhere_is_told_once_and_not_touched() -> None:
    with scene() as world:
        world.start()
        first = home(world, "vm1")
        crash(world, "vm1", "hand.start")
        world.until(lambda: bool(strays(world)))
        world.passes(120.0)
        (why,) = strays(world)
        (wrong,) = set(world.stage.centre.copies(world.vm("vm1")["id"])) - {first}
        assert why == f"vm1 runs on {wrong} and should run on {first}"


def test_starts_stops_and_foreign_guests_are_no_strays(world: Scene) -> None:
    world.does(world.stage.done(StopVm(vm_id=world.vm("vm1")["id"])))
    world.does(world.stage.done(StartVm(vm_id=world.vm("vm1")["id"])))
    world.inject(Fault(kind="hand.foreign", at_s=0, subject="h1"))
    crash(world, "vm2")
    world.until(runs_in(world, "vm2", 2))
    world.passes(60.0)
    assert strays(world) == []


def test_a_late_report_about_an_earlier_run_changes_nothing(world: Scene) -> None:
    (first,) = runs(world, "vm1")
    crash(world, "vm1")
    world.until(runs_in(world, "vm1", 2))
    before = len(world.stage.rows.table("operation"))
    late: Params = RecoverVm(
        vm_id=first["vm_id"], run_id=first["id"], why="late", reported_by="late"
    )
    with pytest.raises(Refused, match="RUN_MOVED_ON"):
        world.does(world.stage.engine.act(late, MONITOR))
    assert len(world.stage.rows.table("operation")) == before


def test_a_report_about_a_guest_that_runs_comes_to_nothing(world: Scene) -> None:
    (run,) = runs(world, "vm1")
    wrong: Params = RecoverVm(vm_id=run["vm_id"], run_id=run["id"], why="?", reported_by="late")
    world.does(world.stage.engine.act(wrong, MONITOR))
    world.until(lambda: recoveries(world)[-1]["state"] == "succeeded")
    assert "runs on" in recoveries(world)[-1]["summary"]
    assert runs_in(world, "vm1", 1)()


def test_a_guest_that_dies_with_its_host_is_left_to_the_recovery_of_the_host(
    world: Scene,
) -> None:
    victim = home(world, "vm1")
    crash(world, "vm1")
    world.inject(Fault(kind="host.power_cut", at_s=0, subject=victim))
    world.until(runs_in(world, "vm1", 2), limit_s=300.0)
    assert home(world, "vm1") != victim
    assert runs(world, "vm1")[0]["state"] == "lost"


def test_a_guest_that_dies_while_libvirtd_restarts_is_started_again(world: Scene) -> None:
    host = world.stage.centre.hosts[home(world, "vm1")]
    host.set_libvirtd(Libvirtd.DOWN)
    crash(world, "vm1", "guest.shutdown")
    world.passes(5.0)
    host.set_libvirtd(Libvirtd.ALIVE)
    # Nobody can tell any more that somebody inside wanted it down.
    world.until(runs_in(world, "vm1", 2))
    assert runs(world, "vm1")[0]["end_reason"] == "guest ended"


@pytest.mark.parametrize("behind", ["vm.examine", "vm.settle"])
@pytest.mark.parametrize("kind", ["process.kill", "process.freeze", "host.reboot"])
def test_whatever_fails_in_the_middle_the_vm_runs_again_once(
    world: Scene, behind: str, kind: str
) -> None:
    subject = "worker@engine-1" if kind.startswith("process") else home(world, "vm1")
    lasts_s = 20.0 if kind == "process.freeze" else None
    trouble = Fault(
        kind=kind, at_s=0, subject=subject, lasts_s=lasts_s, after_event=f"step.started:{behind}"
    )
    world.inject(trouble, Fault(kind="guest.crash", at_s=0, subject="vm1"))
    world.until(lambda: runs(world, "vm1")[0]["state"] == "ended", limit_s=300.0)
    world.until(runs_in(world, "vm1", 2), limit_s=300.0)
    world.passes(60.0)
    assert runs_in(world, "vm1", 2)()
