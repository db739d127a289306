"""No jump of an engine machine's clock spends the fence budget twice, or blinds a recovery."""

from typing import Any

import pytest

from simulator import settling
from simulator.faults.plan import Fault, Plan
from simulator.report import Report
from simulator.seeds import simulate
from simulator.setup import Setup

pytestmark = pytest.mark.unit

CUT: dict[str, Any] = {"net": "management", "way": "both"}


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a spent budget holds is not waited for."""
    monkeypatch.setattr(settling, "ALONE_S", 60.0)
    monkeypatch.setattr(settling, "PERSON_S", 30.0)


def run(*faults: Fault, machines: int = 1) -> Report:
    plan = Plan(pattern="clock", faults=faults, lasts_s=70, machines=machines)
    return simulate(1, plan, Setup.small(hosts=5, vms=6))


def jump(by_s: float, at_s: float, machine: str = "engine-1", **more: Any) -> Fault:
    return Fault(kind="clock.jump", subject=machine, at_s=at_s, args={"by_s": by_s}, **more)


def cut_off(host: str, at_s: float, **more: Any) -> Fault:
    return Fault(kind="link.cut", subject=host, at_s=at_s, args=CUT, **more)


@pytest.mark.parametrize("by_s", [400.0, -400.0])
def test_a_jump_after_a_fence_does_not_make_room_for_a_second_one(by_s: float) -> None:
    certified = {"after_event": "certificate.issued"}
    report = run(cut_off("h3", 1), jump(by_s, 1, **certified), cut_off("h2", 2, **certified))
    assert report.good, (report.inside, report.defects)
    assert report.fences == 1


@pytest.mark.parametrize("machines", [1, 2])
@pytest.mark.parametrize("by_s", [300.0, -300.0])
def test_a_silent_host_is_fenced_in_time_after_a_jump(by_s: float, machines: int) -> None:
    report = run(jump(by_s, 0.5), cut_off("h3", 1), machines=machines)
    assert report.good, (report.inside, report.defects)
    assert report.fences == 1
    (claimed,) = [line for line in report.timeline if "fence.claimed" in line]
    assert float(claimed.split()[0]) < 30  # the clock is set right after 70 s


@pytest.mark.parametrize("machine", ["engine-1", "engine-2", "engine-3"])
@pytest.mark.parametrize("by_s", [400.0, -400.0])
def test_machines_that_disagree_on_the_time_spend_the_budget_once(
    by_s: float, machine: str
) -> None:
    certified = {"after_event": "certificate.issued"}
    report = run(
        cut_off("h3", 1),
        jump(by_s, 1, machine, **certified),
        cut_off("h2", 2, **certified),
        machines=3,
    )
    assert report.good, (report.inside, report.defects)
    assert report.fences == 1


@pytest.mark.parametrize("by_s", [300.0, -300.0])
def test_a_silent_host_is_fenced_in_time_though_one_machines_clock_is_wrong(by_s: float) -> None:
    report = run(jump(by_s, 0.5, "engine-2"), cut_off("h3", 1), machines=2)
    assert report.good, (report.inside, report.defects)
    assert report.fences == 1


def test_a_restart_that_failed_while_the_clock_was_wrong_says_why_its_vm_is_down() -> None:
    """Its rows are older, by their times and ids, than those of the start before it."""
    faults = (
        Fault(kind="host.power_cut", subject="h3", at_s=1, lasts_s=2.0),
        jump(-340.0, 1.0, after_event="host.power_lost", lasts_s=20.0),
        Fault(kind="storage.gone", at_s=0, after_event="step.started:guest.define"),
    )
    plan = Plan(pattern="clock", faults=faults, lasts_s=30)
    report = simulate(1, plan, Setup.small())
    assert report.good, (report.inside, report.defects)
    assert "storage.changed" in {line.split()[1] for line in report.timeline}
    assert report.started == 1  # by the person who is asked
