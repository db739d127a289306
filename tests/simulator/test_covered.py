"""Branches taken are counted by package, and where nothing can measure them that is said."""

import pytest

from cli.simulate_report import Sample
from simulator import covered
from simulator.covered import Covered

pytestmark = pytest.mark.unit


def told(branches: int, taken: int) -> dict[str, object]:
    return {"summary": {"num_branches": branches, "covered_branches": taken}}


def test_branches_are_added_up_by_package() -> None:
    files = {
        "domain/locks.py": told(6, 5),
        "/somewhere/domain/storm.py": told(20, 10),
        "workflows/start_vm.py": told(12, 9),
    }
    domain, workflows = covered.counted(files)
    assert (domain.package, domain.branches, domain.taken) == ("domain", 26, 15)
    assert (workflows.package, workflows.share) == ("workflows", 0.75)


def test_without_the_package_nothing_is_run_and_nothing_claimed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(covered, "find_spec", lambda _name: None)
    assert covered.covered(0, 1000) == ()
    assert Sample(1000, ()).as_json() == {"seeds": 1000, "branches": None}


def test_the_report_names_the_sample() -> None:
    sample = Sample(3, (Covered(package="domain", branches=4, taken=1),))
    assert sample.as_json() == {"seeds": 3, "branches": {"domain": [1, 4]}}
