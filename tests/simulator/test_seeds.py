"""The same seed gives the same run, plans are pure, and a fixed list of seeds finds nothing."""

import os
import subprocess
import sys

import pytest

from simulator.faults.draw import PATTERNS, plan_of
from simulator.faults.menu import MENU
from simulator.faults.plan import Fault, Plan
from simulator.report import Report
from simulator.seeds import setup_of, simulate
from simulator.setup import Setup

pytestmark = pytest.mark.unit

SMALL = Setup.small()
POWER_CUT = Plan(
    pattern="power cut", faults=(Fault(kind="host.power_cut", at_s=1.0, subject="h1"),), lasts_s=15
)

SEEDS = (0, 2, 3, 4, 5, 12, 13, 19, 23, 1053)
"""Every pattern of faults, in little time."""

ELSEWHERE = """
from simulator.seeds import simulate
from tests.simulator.test_seeds import POWER_CUT, SMALL
print(simulate(7, POWER_CUT, SMALL).digest)
"""


def test_plans_are_drawn_from_the_seed_alone_and_name_only_what_is_there() -> None:
    patterns = set()
    for seed in range(400):
        setup = setup_of(seed)
        plan = plan_of(seed, setup)
        assert plan == plan_of(seed, setup)
        assert Plan.model_validate_json(plan.model_dump_json()) == plan
        assert all(fault.kind in MENU for fault in plan.faults)
        patterns.add(plan.pattern)
    assert patterns == {pattern.__name__ for pattern in PATTERNS}


def test_every_kind_of_fault_is_drawn_sooner_or_later() -> None:
    drawn = {f.kind for seed in range(3000) for f in plan_of(seed, setup_of(seed)).faults}
    assert drawn == set(MENU)


def test_a_plan_reads_as_one_line_a_fault() -> None:
    fault = Fault(kind="bmc.dead", at_s=0.5, subject="h2", lasts_s=3, after_event="fence.claimed")
    plan = Plan(pattern="middle", faults=(*POWER_CUT.faults, fault))
    assert str(plan).splitlines() == [
        "middle: 2 faults in 60 s",
        "  at 1.00 s: host.power_cut h1",
        "  0.500 s behind fence.claimed: bmc.dead h2, for 3.0 s",
    ]


def test_a_power_cut_is_survived_and_told_in_the_report() -> None:
    report = simulate(7, POWER_CUT, SMALL)
    assert report.good, (report.inside, report.defects)
    assert report.recoveries == {"recovered": 1}
    assert (report.certificates, report.injected) == (1, {"host.power_cut": 1})
    kinds = [line.split()[1] for line in report.timeline]
    assert kinds.index("incident.opened") < kinds.index("certificate.issued")
    assert kinds.index("certificate.issued") < kinds.index("run.starting")


def test_the_same_seed_gives_the_same_run_and_another_one_another() -> None:
    first, again = simulate(7, POWER_CUT, SMALL), simulate(7, POWER_CUT, SMALL)
    unlike = {"real_s": 0.0}
    assert first.model_copy(update=unlike) == again.model_copy(update=unlike)
    assert simulate(8, POWER_CUT, SMALL).digest != first.digest


def test_the_same_seed_gives_the_same_run_in_another_process() -> None:
    def elsewhere(hash_seed: str) -> str:
        env = os.environ | {"PYTHONHASHSEED": hash_seed}
        done = subprocess.run(
            [sys.executable, "-c", ELSEWHERE], env=env, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    assert elsewhere("1") == elsewhere("2") == simulate(7, POWER_CUT, SMALL).digest


@pytest.mark.parametrize("seed", SEEDS)
def test_a_seed_breaks_nothing_that_was_promised(seed: int) -> None:
    report: Report = simulate(seed)
    assert (report.inside, report.defects) == ((), ()), "\n".join(report.timeline)
