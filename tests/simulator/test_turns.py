"""Runs in which hosts are lost turn after turn: many recoveries, and a world that works between."""

import pytest

from simulator.campaign import campaign
from simulator.faults.menu import MENU
from simulator.faults.plan import Fault, Plan
from simulator.faults.turns import AWAY_S, CUT_S, ONLY_ONCE, turns_of, turns_setup
from simulator.seeds import simulate
from simulator.setup import Setup

pytestmark = pytest.mark.unit

LOSSES = 12


def test_each_turn_loses_a_host_and_nothing_stays_broken() -> None:
    for seed in range(60):
        setup = turns_setup(seed)
        plan = turns_of(seed, setup, LOSSES)
        assert plan == turns_of(seed, setup, LOSSES)
        assert Plan.model_validate_json(plan.model_dump_json()) == plan
        assert all(fault.kind in MENU for fault in plan.faults)
        lost = [fault for fault in plan.faults if fault.after_event is None][1:]
        assert len(lost) == LOSSES
        assert {fault.subject for fault in lost} == {host.name for host in setup.hosts}
        longest = max(AWAY_S[1], CUT_S[1])
        assert all(f.lasts_s is not None and f.lasts_s <= longest for f in plan.faults[1:])
        for kind in ONLY_ONCE:
            behind = [f for f in plan.faults if f.kind == kind and f.after_event is not None]
            assert len(behind) <= 1


def test_a_run_of_turns_recovers_host_after_host_and_breaks_no_promise() -> None:
    report = simulate(100, losses=LOSSES)
    assert report.good, (report.inside, report.defects)
    assert report.recoveries["recovered"] >= LOSSES // 3
    assert report.injected["person.looks_after"] == 1


def test_a_campaign_ends_once_it_has_enough_recoveries() -> None:
    seen: list[int] = []
    tally = campaign(
        iter(range(100, 200)),
        setup=None,
        workers=1,
        ends_at=None,
        told=lambda so_far, _report: seen.append(so_far.recoveries["recovered"]),
        losses=4,
        recoveries=5,
    )
    assert seen[-1] >= 5 > (seen[-2] if len(seen) > 1 else 0)
    assert tally.seeds == len(seen)


def test_a_fault_behind_an_event_does_not_come_before_its_turn() -> None:
    early = Fault(kind="host.power_cut", at_s=1.0, subject="h1", lasts_s=8.0)
    late = early.model_copy(update={"at_s": 40.0, "subject": "h2"})
    behind = Fault(kind="bmc.dead", at_s=0.0, subject="h3", after_event="incident.opened")
    since = behind.model_copy(update={"since_s": 35.0})
    times = []
    for fault in (behind, since):
        plan = Plan(pattern="turns", faults=(early, late, fault), lasts_s=55.0)
        report = simulate(1, plan, Setup.small(hosts=4))
        lines = [line for line in report.timeline if "fault" in line and "bmc.dead" in line]
        times.append(float(lines[0].split()[0]))
    assert times[0] < 35.0 < times[1]


def test_whoever_looks_after_hosts_brings_back_what_is_out_of_service() -> None:
    after = Fault(kind="person.looks_after", at_s=0.0)
    drained = Fault(kind="person.maintain", at_s=0.5, subject="h1")
    for faults, activated in (((drained,), False), ((after, drained), True)):
        plan = Plan(pattern="turns", faults=faults, lasts_s=40.0)
        lines = [line for line in simulate(1, plan, Setup.small()).timeline if "healed" not in line]
        own = [line for line in lines if "ActivateHost" in line and float(line.split()[0]) < 40.0]
        assert bool(own) is activated
