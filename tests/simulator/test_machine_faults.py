"""What happens to whole machines of the engine, while others of it live on."""

from datetime import timedelta

import pytest

from simulator.engine import ROLES
from simulator.faults.draw import MACHINES, plan_of
from simulator.faults.plan import Fault, Plan
from simulator.seeds import simulate
from simulator.setup import Setup
from simulator.world.network import Net
from tests.simulator.scene import Scene, scene

pytestmark = pytest.mark.unit

SECOND = {f"{role}@engine-2" for role in ROLES}


def two_machines(on: Scene) -> None:
    on.stage.engine.start("engine-2")
    on.start()


def sequence(on: Scene, machine: str) -> int:
    """How often a machine's monitor has written what it saw."""
    (row,) = on.stage.rows.table("monitor", "name = ?", f"{machine}-monitor")
    return int(row["sequence"])


def goes_on(on: Scene, machine: str) -> bool:
    was = sequence(on, machine)
    on.passes(10.0)
    return sequence(on, machine) > was


def test_a_machine_that_dies_takes_all_its_processes_and_no_other_machines() -> None:
    with scene() as on:
        two_machines(on)
        on.inject(Fault(kind="machine.power_cut", at_s=0, subject="engine-2", lasts_s=20.0))
        assert not SECOND & set(on.stage.engine.running)
        assert goes_on(on, "engine-1")
        assert not SECOND & set(on.stage.engine.running)  # nothing starts them meanwhile
        on.passes(15.0)
        assert set(on.stage.engine.running) >= SECOND
        assert goes_on(on, "engine-2")


def test_a_process_that_was_dying_when_its_machine_went_dark_stays_dead_with_it() -> None:
    with scene() as on:
        two_machines(on)
        on.stage.engine.kill("worker@engine-2")
        on.inject(Fault(kind="machine.power_cut", at_s=0, subject="engine-2"))
        on.passes(5.0)
        assert not SECOND & set(on.stage.engine.running)
        on.troubles.heal_all()
        assert set(on.stage.engine.running) >= SECOND


def test_a_killed_process_comes_back_while_temporal_is_away() -> None:
    with scene() as on:
        on.start()
        on.inject(Fault(kind="temporal.down", at_s=0))
        on.stage.engine.kill("monitor@engine-1")
        on.passes(1.0)
        assert "monitor@engine-1" in on.stage.engine.running


def test_a_machine_that_stands_still_goes_on_late_and_the_other_one_does_all_along() -> None:
    with scene() as on:
        two_machines(on)
        on.inject(Fault(kind="machine.freeze", at_s=0, subject="engine-2", lasts_s=25.0))
        frozen = {name for name, made in on.stage.engine.running.items() if made.process.frozen}
        assert frozen == SECOND
        assert not goes_on(on, "engine-2")
        assert goes_on(on, "engine-1")
        on.passes(10.0)
        assert goes_on(on, "engine-2")


def test_nothing_starts_a_process_that_is_killed_on_a_machine_that_stands_still() -> None:
    with scene() as on:
        two_machines(on)
        on.inject(
            Fault(kind="machine.freeze", at_s=0, subject="engine-2", lasts_s=10.0),
            Fault(kind="process.kill", at_s=1.0, subject="worker@engine-2"),
        )
        on.passes(5.0)
        assert "worker@engine-2" not in on.stage.engine.running
        on.passes(10.0)
        assert not on.stage.engine.running["worker@engine-2"].process.frozen


def test_the_clock_of_one_machine_jumps_and_no_others() -> None:
    with scene() as on:
        two_machines(on)
        on.inject(Fault(kind="clock.jump", at_s=0, subject="engine-2", args={"by_s": 500.0}))
        skews = {
            made.process.machine: made.process.clock_skew
            for made in on.stage.engine.running.values()
        }
        assert skews == {"engine-1": timedelta(0), "engine-2": timedelta(seconds=500)}


def test_people_ask_a_machine_that_is_there() -> None:
    with scene() as on:
        two_machines(on)
        on.inject(Fault(kind="machine.freeze", at_s=0, subject="engine-1"))
        on.inject(Fault(kind="person.disarm", at_s=0))
        on.passes(1.0)
        assert not on.stage.rows.find("cluster", "c1")["armed"]


def test_a_machine_that_hears_no_host_still_reaches_the_database_and_the_other_does_both() -> None:
    with scene() as on:
        two_machines(on)
        parted = {"net": "management", "other": "hosts"}
        on.inject(Fault(kind="link.partition", at_s=0, subject="engine-2", args=parted))
        network = on.stage.centre.networks[Net.MANAGEMENT]
        assert [network.answers("engine-2", h) for h in ("h1", "h2", "database")] == [
            *(False, False, True)
        ]
        assert network.answers("engine-1", "h1")
        on.troubles.heal_all()
        assert network.answers("engine-2", "h1")


def test_a_partition_leaves_out_no_machine_that_is_dark_just_then() -> None:
    with scene() as on:
        two_machines(on)
        on.inject(
            Fault(kind="machine.power_cut", at_s=0, subject="engine-2", lasts_s=1.0),
            Fault(kind="link.partition", at_s=0, subject="h1", args={"net": "management"}),
        )
        on.passes(2.0)
        assert not on.stage.centre.networks[Net.MANAGEMENT].answers("engine-2", "h1")


def test_a_host_that_dies_is_recovered_by_the_machine_that_is_left() -> None:
    with scene() as on:
        two_machines(on)
        on.passes(7.0)
        on.h1.lose_power()
        moment = "step.started:recovery.assess"
        on.inject(Fault(kind="machine.power_cut", at_s=0, subject="engine-1", after_event=moment))
        on.until(lambda: "incident.closed" in on.kinds)
        assert [row["outcome"] for row in on.stage.rows.table("incident")] == ["recovered"]
        assert on.watch.inside == []


@pytest.mark.parametrize("machines", [2, 3])
def test_a_machine_that_hears_no_host_fences_none_that_another_machine_hears(machines: int) -> None:
    deaf = Fault(
        kind="link.partition",
        at_s=1.0,
        subject="engine-1",
        args={"net": "management", "other": "hosts"},
    )
    plan = Plan(pattern="deaf", faults=(deaf,), lasts_s=90.0, machines=machines)
    report = simulate(1, plan, Setup.small(hosts=4, vms=4))
    assert report.good, (report.inside, report.defects)
    assert (report.fences, report.certificates) == (0, 0)


def test_plans_draw_one_to_three_machines_and_faults_of_each() -> None:
    plans = [plan_of(seed, Setup.small()) for seed in range(2000)]
    assert {plan.machines for plan in plans} == set(MACHINES)
    for kind in ("machine.power_cut", "machine.freeze", "clock.jump", "process.kill"):
        subjects = {
            (plan.machines, fault.subject.rpartition("@")[2])
            for plan in plans
            for fault in plan.faults
            if fault.kind == kind
        }
        assert subjects >= {(3, "engine-1"), (3, "engine-2"), (3, "engine-3"), (1, "engine-1")}
        assert all(int(subject[-1]) <= machines for machines, subject in subjects)
