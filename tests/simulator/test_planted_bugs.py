"""The checker can fail: each planted bug is caught, and the same seeds are clean without it."""

import pytest

from simulator import settling
from simulator.quiet import quiet
from simulator.report import Report
from simulator.seeds import simulate
from simulator.stage import built
from tests.simulator.planted import BUGS, Bug
from tests.simulator.planted_rooms import BUGS as ROOMS
from tests.simulator.planted_storm import BUGS as STORM
from tests.simulator.planted_turns import BUGS as TURNS
from tests.simulator.planted_vcpus import BUGS as VCPUS

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What never comes right is waited for a minute, and not for the quarter of an hour that a
    fence budget's window may take."""
    monkeypatch.setattr(settling, "ALONE_S", 60.0)
    monkeypatch.setattr(settling, "PERSON_S", 30.0)


def seen(bug: Bug, seed: int, *, planted: bool) -> Report:
    setup, plan = bug.family(seed)
    with quiet([]):
        built(setup)  # by the product as it is
    with pytest.MonkeyPatch.context() as patch:
        if planted:
            bug.plant(patch)
        return simulate(seed, plan, setup)


EVERY = (*BUGS, *STORM, *ROOMS, *TURNS, *VCPUS)


@pytest.mark.parametrize("bug", EVERY, ids=str)
def test_a_planted_bug_is_caught_within_its_seeds_and_nothing_is_without_it(bug: Bug) -> None:
    clean = seen(bug, bug.known, planted=False)
    assert clean.good, (clean.inside, clean.defects)
    assert not bug.caught(clean)
    others = (seed for seed in range(1, bug.within + 1) if seed != bug.known)
    assert any(bug.caught(seen(bug, seed, planted=True)) for seed in (bug.known, *others))


def test_there_are_at_least_ten_planted_bugs_and_each_says_what_it_breaks() -> None:
    assert len({str(bug) for bug in EVERY}) == len(EVERY) >= 10
    assert all(bug.plant.__doc__ and bug.family.__doc__ for bug in EVERY)
