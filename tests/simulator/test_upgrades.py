"""Upgrades in the middle of a recovery: patched code goes on with old runs, careless code is found.

Runs that began on today's code are replayed on the next release, new ones take its new steps, and
no run that has taken one is replayed on today's code unless operators let it happen.
"""

from collections import Counter

import pytest

from simulator import next_release, settling
from simulator.faults.machines import Way
from simulator.faults.plan import Fault, Plan
from simulator.next_release import CHANGED, NEXT
from simulator.report import Report
from simulator.seeds import simulate
from simulator.setup import Setup
from worker.parts import WORKFLOWS

pytestmark = pytest.mark.unit

SETUP = Setup.small(hosts=3, vms=6)
MOMENTS = (
    *("incident.opened", "step.started:recovery.assess", "step.started:fencing.read_back"),
    *("certificate.issued", "run.placed", "step.started:guest.define", "guest.started"),
)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What never comes right is waited for a minute."""
    monkeypatch.setattr(settling, "ALONE_S", 60.0)
    monkeypatch.setattr(settling, "PERSON_S", 30.0)


def upgraded(
    way: Way, moment: str, *more: Fault, machines: int = 2, seed: int = 1, step_s: float = 3.0
) -> Report:
    """A host loses its power, and the engine is upgraded behind an event of its recovery."""
    names = "+".join(f"engine-{number + 1}" for number in reversed(range(machines)))
    faults = (
        Fault(kind="host.power_cut", at_s=1.0, subject="h1"),
        Fault(
            kind="upgrade",
            at_s=0.0,
            subject=names,
            after_event=moment,
            args={"way": way.value, "step_s": step_s},
        ),
        *more,
    )
    plan = Plan(pattern="upgrade", faults=faults, lasts_s=30.0, machines=machines)
    return simulate(seed, plan, SETUP)


def mixed(way: Way, seed: int) -> Report:
    """One machine has the next release, and its worker dies in the middle of what it began."""
    moment = "step.started:guest.define"
    dies = Fault(kind="process.kill", at_s=0, subject="worker@engine-2", after_event=moment)
    return upgraded(way, "incident.opened", dies, seed=seed, step_s=20.0)


def kinds(report: Report) -> Counter[str]:
    return Counter(line.split()[1] for line in report.timeline)


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("way", [Way.DRAINED, Way.VERSIONED])
def test_a_recovery_goes_on_through_an_upgrade(way: Way, moment: str) -> None:
    report = upgraded(way, moment)
    assert (report.inside, report.defects) == ((), ())
    assert kinds(report)["upgraded"] == 2
    assert report.recoveries == {"recovered": 1}


def test_the_only_machine_is_upgraded_in_the_middle_of_a_recovery() -> None:
    report = upgraded(Way.DRAINED, "certificate.issued", machines=1)
    assert (report.inside, report.defects) == ((), ())
    assert report.recoveries == {"recovered": 1}


def test_a_drained_upgrade_ends_every_old_worker_before_a_new_one_starts() -> None:
    report = upgraded(Way.DRAINED, "incident.opened")
    told = [line.split() for line in report.timeline if "upgraded" in line]
    assert [words[2] for words in told] == ["engine-2", "engine-1"]
    assert told[0][0] == told[1][0]


def test_a_versioned_upgrade_lets_both_releases_work_for_a_while() -> None:
    report = upgraded(Way.VERSIONED, "incident.opened", step_s=3.0)
    first, second = (
        float(line.split()[0]) for line in report.timeline if line.split()[1] == "upgraded"
    )
    assert second - first == pytest.approx(3.0, abs=0.01)


def test_a_rolling_upgrade_without_versions_is_told_as_non_determinism_with_its_patch() -> None:
    """Old code gets runs that new code has gone on with: the SDK refuses those, too, until the
    last old worker has ended. Nothing is lost or doubled meanwhile."""
    found = [mixed(Way.ROLLING, seed) for seed in range(1, 11)]
    defects = [defect for report in found for defect in report.defects]
    assert defects
    for defect in defects:
        assert defect.startswith("NonDeterminism: ")
        assert 'patch_id: "' in defect
    assert all(report.inside == () for report in found)
    assert all(report.recoveries == {"recovered": 1} for report in found)


def test_versions_keep_runs_of_new_code_from_old_code() -> None:
    found = [mixed(Way.VERSIONED, seed) for seed in range(1, 11)]
    assert [(report.inside, report.defects) for report in found] == [((), ())] * 10


def test_a_change_without_a_patch_is_told_as_non_determinism_with_its_difference(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(next_release, "patched", lambda _change: True)
    report = upgraded(Way.DRAINED, "guest.started")
    assert report.defects
    for defect in report.defects:
        assert defect.startswith("NonDeterminism: StartVm: replay gave other commands")
        assert '-  activity_type: "guest.define"' in defect
        assert "+start_timer {" in defect


def test_the_next_release_has_every_workflow_and_changes_those_of_a_recovery() -> None:
    names = [each.__name__ for each in WORKFLOWS]
    assert [each.__name__.removeprefix("Next") for each in NEXT.workflows] == names
    assert {each.__name__ for each in CHANGED} == {"FenceHost", "RecoverHost", "StartVm"}
