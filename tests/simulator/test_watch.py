"""The watch sees what must never be, and tells what lies outside of the promise apart."""

from uuid import UUID

import pytest

from domain.inventory import FenceDevice
from simulator.faults.plan import Fault, Plan
from simulator.invariants.watch import Watch
from simulator.seeds import simulate
from simulator.setup import Setup
from simulator.world.power import VirtualPower
from tests.simulator.scene import Scene, scene

pytestmark = pytest.mark.unit


def cut_power(on: Scene, host: str) -> None:
    """As a step of ours would do it, whatever speaks against it."""
    row = on.stage.rows.find("fence_device", f"bmc-{host}")
    device = FenceDevice(
        id=row["id"],
        host_id=row["host_id"],
        name=row["name"],
        agent=row["agent"],
        options={},
        deadline_s=10.0,
    )
    on.does(VirtualPower(on.stage.centre).off(device))


def found(watch: Watch) -> dict[str, str]:
    return {each.check: each.sentence for each in watch.inside}


def test_two_hosts_switched_off_within_the_window_are_more_than_the_budget() -> None:
    with scene() as on:
        cut_power(on, "h1")
        assert found(on.watch) == {}
        cut_power(on, "h2")
        why = "h2 was switched off though h1 of its cluster had been within 300 s, and 1 may be"
        assert found(on.watch) == {"fence_budget": why}


def test_the_same_two_hosts_are_fine_once_the_window_has_passed() -> None:
    with scene() as on:
        cut_power(on, "h1")
        on.passes(300)
        cut_power(on, "h2")
        assert found(on.watch) == {}


def test_a_disarming_that_was_never_committed_forbids_nothing() -> None:
    with scene() as on:
        on.start()
        on.inject(Fault(kind="process.kill_before_commit", at_s=0, subject="api@engine-1"))
        on.inject(Fault(kind="person.disarm", at_s=0, args={"mode": "ignore"}))
        assert all(row["armed"] for row in on.stage.rows.table("cluster"))
        on.h1.lose_power()
        on.until(lambda: "incident.opened" in on.kinds)
        assert found(on.watch) == {}


def test_a_power_cut_long_after_disarming_is_a_violation() -> None:
    with scene() as on:
        on.start()
        on.inject(Fault(kind="person.disarm", at_s=0))
        on.passes(31)
        cut_power(on, "h1")
        assert list(found(on.watch)) == ["disarmed"]


def test_a_foreign_guest_may_die_with_its_host_but_not_by_our_hand() -> None:
    with scene() as on:
        on.inject(Fault(kind="hand.foreign", at_s=0, subject="h1"))
        (guest,) = [vm for vm, domain in on.h1.domains.items() if domain.generation is None]
        on.h1.reboot()
        assert found(on.watch) == {}
        on.stage.centre.start_by_hand(on.h1, guest)
        on.h1.end(guest, "destroyed")
        assert found(on.watch) == {"foreign": "foreign-h1 on h1 was destroyed"}


def test_what_is_wrong_in_the_rows_is_seen_at_the_end_at_the_latest() -> None:
    with scene() as on:
        host: UUID = on.stage.rows.find("host", "h1")["id"]
        on.stage.memory.raw.execute(
            "UPDATE host SET memory_reserved_mib = 4096 WHERE id = ?", (host.hex,)
        )
        on.watch.finish()
        assert list(found(on.watch)) == ["capacity_holds"]


def test_a_lie_that_no_channel_could_tell_is_outside_of_the_promise() -> None:
    faults = (
        Fault(kind="link.cut", at_s=1, subject="h1", args={"net": "management", "way": "both"}),
        Fault(kind="bmc.lying", at_s=1, subject="h1"),
    )
    plan = Plan(pattern="lie", faults=faults, lasts_s=40)
    report = simulate(1, plan, Setup.small())
    assert (report.inside, report.defects) == ((), ())
    checks = {each.check for each in report.violations}
    assert {"certified_dead", "one_copy"} <= checks


def test_the_same_lie_is_told_by_a_knock_while_the_host_is_heard() -> None:
    faults = (Fault(kind="host.libvirtd_hung", at_s=1, subject="h1"),)
    lie = Fault(kind="bmc.lying", at_s=1, subject="h1")
    plan = Plan(pattern="lie", faults=(*faults, lie), lasts_s=40)
    report = simulate(1, plan, Setup.small())
    assert report.violations == ()
    assert report.certificates == 0
