"""Every kind of fault does what it says, and heals."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest

from domain.operations import WorkflowState
from engine.actions.vms import StopVm
from simulator.faults.menu import MENU, is_outside
from simulator.faults.plan import Fault, Value
from simulator.world.host import Bmc, Libvirtd
from simulator.world.network import Net
from simulator.world.storage import StorageState
from tests.simulator.scene import Scene, scene

pytestmark = pytest.mark.unit

Holds = Callable[[Scene], bool]


@dataclass(frozen=True)
class Case:
    """A fault on h1, what it breaks, and what is well again once it has healed."""

    broken: Holds
    healed: Holds | None = None
    subject: str = "h1"
    args: dict[str, Value] = field(default_factory=dict)
    after_s: float = 0.0


def mode(on: Scene) -> Bmc:
    return on.h1.bmc


def carries(net: Net, source: str, target: str) -> Holds:
    return lambda s: s.stage.centre.networks[net].carries(source, target)


def bmc(mode: Bmc) -> Case:
    return Case(lambda s: s.h1.bmc is mode, lambda s: s.h1.bmc is Bmc.OK)


def storage(state: StorageState) -> Case:
    return Case(
        lambda s: s.stage.centre.storage.state is state,
        lambda s: s.stage.centre.storage.state is StorageState.OK,
    )


def swizzled(s: Scene) -> bool:
    told = [facts for _, kind, facts in s.stage.events if kind.startswith("network.")]
    cut = [each["source"] + each["target"] for each in told[:4]]
    healed = [each["source"] + each["target"] for each in told[4:]]
    return sorted(cut) == sorted(healed) and cut != healed


WORLD: dict[str, Case] = {
    "host.power_cut": Case(lambda s: not s.h1.powered, lambda s: s.h1.up and s.h1.boot == 2),
    "host.reboot": Case(lambda s: s.h1.booting and s.h1.boot == 2, args={"boot_s": 5.0}),
    "host.libvirtd_hung": Case(
        lambda s: s.h1.libvirtd is Libvirtd.HUNG, lambda s: s.h1.libvirtd is Libvirtd.ALIVE
    ),
    "host.libvirtd_down": Case(
        lambda s: s.h1.libvirtd is Libvirtd.DOWN, lambda s: s.h1.libvirtd is Libvirtd.ALIVE
    ),
    "host.slow": Case(
        lambda s: s.h1.slowness == 9.0, lambda s: s.h1.slowness == 1.0, args={"times": 9.0}
    ),
    "rack.power_cut": Case(
        lambda s: [h.powered for h in s.stage.centre.hosts.values()] == [False, True, False],
        lambda s: all(h.powered for h in s.stage.centre.hosts.values()),
        subject="r1",
    ),
    "bmc.dead": bmc(Bmc.DEAD),
    "bmc.hanging": bmc(Bmc.HANGING),
    "bmc.slow": bmc(Bmc.SLOW_S),
    "bmc.wrong_password": bmc(Bmc.WRONG_PASSWORD),
    "bmc.already_off_error": bmc(Bmc.ALREADY_OFF_ERROR),
    "bmc.lying": bmc(Bmc.LYING),
    "storage.read_only": storage(StorageState.READ_ONLY),
    "storage.gone": storage(StorageState.GONE),
    "link.cut": Case(
        lambda s: (
            not carries(Net.STORAGE, "h1", "storage")(s)
            and carries(Net.STORAGE, "storage", "h1")(s)
        ),
        carries(Net.STORAGE, "h1", "storage"),
        args={"net": "storage", "way": "from"},
    ),
    "link.partition": Case(
        lambda s: (
            not carries(Net.MANAGEMENT, "h1", "h3")(s) and carries(Net.MANAGEMENT, "h1", "h2")(s)
        ),
        carries(Net.MANAGEMENT, "h1", "h3"),
        subject="h1+h2",
    ),
    "link.swizzle": Case(swizzled, subject="h1+h2", args={"order": 3, "step_s": 0.1}, after_s=2.0),
    "hand.destroy": Case(lambda s: s.stage.centre.copies(s.vm("vm1")["id"]) == [], subject="vm1"),
    "hand.undefine": Case(lambda s: s.vm("vm1")["id"] not in s.h1.domains, subject="vm1"),
    "hand.start": Case(
        lambda s: s.stage.centre.copies(s.vm("vm1")["id"]) == ["h1", "h2"], subject="vm1"
    ),
    "hand.foreign": Case(lambda s: any(d.generation is None for d in s.h1.domains.values())),
    "database.away": Case(
        lambda s: not s.stage.engine.database_up, lambda s: s.stage.engine.database_up
    ),
    "temporal.down": Case(lambda s: not s.stage.server.up, lambda s: s.stage.server.up),
}


@pytest.mark.parametrize("kind", WORLD)
def test_a_fault_of_the_world_breaks_what_it_says_and_heals(kind: str) -> None:
    case = WORLD[kind]
    with scene() as on:
        fault = Fault(kind=kind, at_s=0.0, subject=case.subject, args=case.args)
        on.inject(fault)
        on.passes(case.after_s)
        assert case.broken(on)
        on.troubles.heal_all()
        on.passes(0.01)
        assert case.healed is None or case.healed(on)
        assert on.troubles.injected == {kind: 1}


def test_a_fault_heals_by_itself_after_its_time() -> None:
    with scene() as on:
        on.inject(Fault(kind="bmc.dead", at_s=1.0, subject="h1", lasts_s=2.0))
        on.passes(1.5)
        assert mode(on) is Bmc.DEAD
        on.passes(2.0)
        assert mode(on) is Bmc.OK


def test_a_power_cut_with_its_controller_leaves_nobody_to_be_asked() -> None:
    with scene() as on:
        cut = Fault(kind="host.power_cut", at_s=0, subject="h1", args={"with_bmc": True})
        on.inject(cut)
        assert mode(on) is Bmc.DEAD_WITH_HOST
        on.troubles.heal_all()
        assert mode(on) is Bmc.OK


def test_a_killed_process_comes_back_as_another_one() -> None:
    with scene() as on:
        on.start()
        before = on.stage.engine.running["worker@engine-1"].process
        on.inject(Fault(kind="process.kill", at_s=0, subject="worker@engine-1"))
        assert before.dead
        on.passes(1.0)
        assert on.stage.engine.running["worker@engine-1"].process is not before


def test_a_frozen_process_does_nothing_until_it_is_thawed() -> None:
    with scene() as on:
        on.start()
        monitor = "monitor@engine-1"
        on.inject(Fault(kind="process.freeze", at_s=0, subject=monitor, lasts_s=20.0))
        on.passes(5.0)
        (was,) = on.stage.rows.table("monitor", "name = ?", "engine-1-monitor")
        on.passes(10.0)
        assert on.stage.rows.table("monitor", "name = ?", "engine-1-monitor") == [was]
        on.passes(15.0)
        assert on.stage.rows.table("monitor", "name = ?", "engine-1-monitor") != [was]


def test_a_clock_jump_is_seen_by_all_processes_of_a_machine_and_by_their_successors() -> None:
    def skews(on: Scene) -> list[timedelta]:
        return [made.process.clock_skew for made in on.stage.engine.running.values()]

    with scene() as on:
        on.start()
        on.inject(Fault(kind="clock.jump", at_s=0, subject="engine-1", args={"by_s": -60.0}))
        on.stage.engine.kill("worker@engine-1")
        on.passes(1.0)
        assert skews(on) == [timedelta(seconds=-60)] * 5
        on.troubles.heal_all()
        assert skews(on) == [timedelta(0)] * 5


@pytest.mark.parametrize(
    ("kind", "written", "dies"),
    [
        ("database.commit_failed", False, False),
        ("database.commit_lost", True, False),
        ("process.kill_before_commit", False, True),
        ("process.kill_after_commit", True, True),
    ],
)
def test_a_commit_fails_before_or_after_it_was_written_and_its_process_lives_or_not(
    kind: str, written: bool, dies: bool
) -> None:
    with scene() as on:
        on.start()
        api = on.stage.engine.running["api@engine-1"].process
        on.inject(Fault(kind=kind, at_s=0, subject="api@engine-1"))
        on.inject(Fault(kind="person.disarm", at_s=0))
        on.passes(1.0)
        assert on.stage.rows.find("cluster", "c1")["armed"] is not written
        assert api.dead is dies
        assert "asked" not in on.kinds
        assert on.recorder.statements == []


def test_disarming_lasts_until_it_heals() -> None:
    with scene() as on:
        on.start()
        on.inject(Fault(kind="person.disarm", at_s=0, lasts_s=5.0))
        on.passes(1.0)
        assert not on.stage.rows.find("cluster", "c1")["armed"]
        on.passes(6.0)
        assert on.stage.rows.find("cluster", "c1")["armed"]


def test_an_evicted_workflow_goes_on_by_replay() -> None:
    with scene() as on:
        on.start()
        on.h1.lose_power()
        on.inject(
            *(
                Fault(kind="worker.evict", at_s=0, subject="worker@engine-1", after_event=moment)
                for moment in ("incident.opened", "certificate.issued", "run.starting")
            )
        )
        on.until(lambda: "incident.closed" in on.kinds)
        assert on.troubles.injected == {"worker.evict": 3}
        assert on.stage.defects == []


def test_a_person_terminates_the_newest_workflow_of_a_type() -> None:
    with scene() as on:
        on.start()
        vm_id = on.vm("vm1")["id"]
        on.stage.centre.deaf.add(vm_id)
        on.does(on.troubles.answer_to(StopVm(vm_id=vm_id)))
        on.inject(Fault(kind="workflow.terminated", at_s=1.0, subject="StopVm"))
        on.passes(2.0)
        states = [chain[-1].state for chain in on.stage.server.runs.values()]
        assert states == [WorkflowState.TERMINATED]


PEOPLE: dict[str, tuple[str, dict[str, Value], str]] = {
    "person.activate": ("h1", {}, "ActivateHost HOST_STATE_FORBIDS"),
    "person.start_vm": ("vm1", {}, "StartVm VM_NOT_DOWN"),
    "person.stop_vm": ("vm1", {"force": True}, "StopVm"),
    "person.migrate_vm": ("vm1", {}, "MigrateVm"),
    "person.maintain": ("h1", {}, "MaintainHost"),
    "person.shutdown": ("h1", {"vms": "freeze"}, "ShutdownHost"),
    "person.reboot": ("h1", {"vms": "failover"}, "RebootHost"),
    "monitor.late_report": ("h1", {"times": 2}, "RecoverHost HOST_STATE_FORBIDS"),
}


@pytest.mark.parametrize("kind", PEOPLE)
def test_people_and_monitors_ask_through_the_engines_door(kind: str) -> None:
    subject, args, answer = PEOPLE[kind]
    with scene() as on:
        on.start()
        on.inject(Fault(kind=kind, at_s=0, subject=subject, args=args))
        on.passes(2.0)
        asked = [f["subject"] for _, kind, f in on.stage.events if kind == "asked"]
        assert answer in (*asked, *on.troubles.refused)


def test_a_report_about_an_epoch_that_is_over_is_refused_as_stale() -> None:
    with scene() as on:
        on.start()
        late = {"epochs_ago": 1, "times": 1}
        on.inject(Fault(kind="monitor.late_report", at_s=0, subject="h1", args=late))
        on.passes(1.0)
        assert on.troubles.refused == {"RecoverHost EPOCH_STALE": 1}


def test_a_person_cancels_and_retries_the_newest_operation_of_a_kind() -> None:
    def state(on: Scene) -> str:
        return str(on.stage.rows.table("operation", "kind = 'vm.stop'")[-1]["state"])

    with scene() as on:
        on.start()
        vm_id = on.vm("vm1")["id"]
        on.stage.centre.deaf.add(vm_id)
        on.does(on.troubles.answer_to(StopVm(vm_id=vm_id)))
        on.inject(Fault(kind="person.cancel", at_s=1.0, subject="vm.stop"))
        on.until(lambda: state(on) == "cancelled")
        on.stage.centre.deaf.clear()
        on.inject(Fault(kind="person.retry", at_s=0, subject="vm.stop"))
        on.until(lambda: state(on) == "succeeded")


def test_a_fault_waits_for_its_event_and_comes_once_right_behind_it() -> None:
    with scene() as on:
        on.start()
        on.inject(
            Fault(kind="bmc.dead", at_s=0.25, subject="h2", after_event="incident.opened"),
            Fault(kind="host.power_cut", at_s=1.0, subject="h1"),
        )
        on.until(lambda: "incident.closed" in on.kinds)
        times = {kind: at_s for at_s, kind, _ in on.stage.events}
        (dead,) = [t for t, kind, f in on.stage.events if kind == "fault" and f["of"] == "h2"]
        assert dead == pytest.approx(times["incident.opened"] + 0.25)


def test_a_fault_may_wait_for_one_step_of_one_name() -> None:
    with scene() as on:
        on.start()
        moment = "step.started:fencing.certify"
        on.inject(Fault(kind="bmc.dead", at_s=0, subject="h2", after_event=moment))
        on.h1.lose_power()
        on.until(lambda: "fault" in on.kinds)
        said = [(t, f"{kind}:{f.get('subject')}") for t, kind, f in on.stage.events]
        (begun,) = [t for t, what in said if what == moment]
        (came,) = [t for t, kind, _ in on.stage.events if kind == "fault"]
        assert came == begun


def test_only_a_lie_and_a_start_by_hand_lie_outside_of_the_promise() -> None:
    assert [kind for kind in MENU if is_outside(kind)] == ["bmc.lying", "hand.start"]


def test_every_kind_of_the_menu_is_tried_here_or_in_a_file_of_its_own() -> None:
    here = Path(__file__)
    machines = ("test_machine_faults.py", "test_upgrades.py", "test_soft_step.py")
    guests = ("test_guests_end.py", "test_guests_paused.py", "test_guests_hang.py")
    people = ("test_approved_fences.py", "test_rehearsal.py")
    beside = (*machines, *guests, *people, "test_turns.py")
    source = "".join((here.read_text(), *(here.with_name(name).read_text() for name in beside)))
    assert [kind for kind in MENU if f'"{kind}"' not in source] == []
