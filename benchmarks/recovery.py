"""`python -m benchmarks recovery [--runs N] [--only NAME ...]`: recovery times in the real lab.

Real libvirtd, QEMU (software emulation) and IPMI in namespaces of this machine, and the real
engine; needs root. Prints a line a run, the phases, the figures beside their limits, and keeps all
of it in var/bench/recovery.json.
"""

import argparse
import json
import os
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.bench_lab import bench_lab, tell
from benchmarks.figures import show
from benchmarks.recovery_cases import CASES, Bench
from benchmarks.recovery_runs import Case, show_phases, show_steps

RUNS = 5


def main(arguments: list[str], var: Path) -> int:
    """Measure; the exit code, 0 also when a limit is missed: a figure is a figure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks recovery")
    parser.add_argument(
        "--runs", type=int, default=RUNS, help="of each fault (default %(default)s)"
    )
    parser.add_argument("--only", action="append", choices=list(CASES), help="may be repeated")
    parser.add_argument("--steps", action="store_true", help="show steps where limits are met, too")
    wanted = parser.parse_args(arguments)
    if wanted.runs < 1:
        parser.error("--runs must be 1 or more")
    cases = _measure(wanted.only or list(CASES), wanted.runs, var / "recovery")
    for case in cases:
        # Where a limit is missed, one wants to know at once which step costs what.
        if wanted.steps or any(figure.met is False for figure in case.figures):
            show_steps(case)
    show_phases(cases)
    show([figure for case in cases for figure in case.figures])
    _keep(cases, var / "recovery.json")
    return 0


def _measure(names: list[str], runs: int, var: Path) -> list[Case]:
    with bench_lab(var) as lab:
        bench = Bench(lab, var, runs, tell)
        return [case for name in names for case in CASES[name](bench)]


def _keep(cases: list[Case], path: Path) -> None:
    report = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "cases": [case.as_json() for case in cases],
    }
    path.write_text(json.dumps(report, indent=1) + "\n")
    print(f"report: {path}")
