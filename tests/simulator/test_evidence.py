"""A file of evidence repeats its run exactly, and says what differs where it does not."""

from pathlib import Path

import pytest

from domain.errors import Invalid
from simulator.evidence import evidence_of, load, replay, write
from simulator.faults.plan import Fault, Plan
from simulator.invariants.facts import Violation
from simulator.seeds import simulate
from simulator.setup import Setup

pytestmark = pytest.mark.unit

PLAN = Plan(
    pattern="by hand", faults=(Fault(kind="hand.start", at_s=1.0, subject="vm1"),), lasts_s=3.0
)


def test_evidence_survives_its_file_and_repeats_the_run(tmp_path: Path) -> None:
    report = simulate(3, PLAN, Setup.small())
    path = write(evidence_of(report, PLAN), tmp_path / "new" / "seed-3.json")
    read = load(path)
    assert read.violations == report.violations
    assert [found.outside for found in read.violations][:1] == ["vm1 was started on h2 by hand"]
    assert replay(read).differences == ()


def test_a_run_that_differs_is_told_by_its_first_difference(tmp_path: Path) -> None:
    report = simulate(3, PLAN, Setup.small())
    evidence = evidence_of(report, PLAN)
    gone = Violation(at_s=1.0, check="one_copy", sentence="it was so")
    other = evidence.model_copy(
        update={
            "digest": "another",
            "code": "another",
            "violations": (*evidence.violations, gone),
            "timeline": ("    0.000  fault  nothing", *evidence.timeline[1:]),
        }
    )
    differences = replay(other).differences
    assert differences[0] == "the code is another one than that which wrote the evidence"
    assert differences[1] == "first difference: was   0.000  fault  nothing"
    assert (
        differences[-1]
        == f"violations: {len(other.violations)} then, {len(other.violations) - 1} now"
    )


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "note.txt"
    path.write_text("not evidence")
    with pytest.raises(Invalid) as caught:
        load(path)
    assert caught.value.code == "EVIDENCE_UNREADABLE"
