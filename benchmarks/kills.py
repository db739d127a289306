"""`python -m benchmarks kills [--process P ...] [--rounds N]`: every process killed at every step.

One recovery of ten VMs in the real lab for each pair of a process of the engine and a point of a
recovery; all pairs take about forty minutes. Exit code 1 when a VM did not come back exactly once.
"""

import argparse
import json
import os
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from benchmarks.bench_lab import bench_lab, tell
from tests.lab.kills import HOSTS, POINTS, PROCESSES, VMS, Pair, Round, killing, pairs

ROUNDS = f"at most so many; the first {len(POINTS)} have every point"


def main(arguments: list[str], var: Path) -> int:
    """Kill; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks kills")
    parser.add_argument("--process", action="append", choices=PROCESSES, help="may be repeated")
    parser.add_argument("--point", action="append", choices=POINTS, help="may be repeated")
    parser.add_argument("--rounds", type=int, help=ROUNDS)
    wanted = parser.parse_args(arguments)
    chosen = [
        pair
        for pair in pairs()
        if pair.process in (wanted.process or PROCESSES) and pair.point in (wanted.point or POINTS)
    ]
    rounds = _kill(chosen[: wanted.rounds], var / "kills")
    _show(rounds)
    report = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "rounds": [asdict(each) for each in rounds],
    }
    (var / "kills.json").write_text(json.dumps(report, indent=1) + "\n")
    print(f"report: {var / 'kills.json'}")
    return 0 if all(_good(each) for each in rounds) else 1


def _kill(chosen: list[Pair], var: Path) -> list[Round]:
    rounds: list[Round] = []
    with bench_lab(var, "kills", HOSTS) as lab, killing(lab, var / "engine") as kills:
        for number, pair in enumerate(chosen, start=1):
            rounds.append(kills.round(pair))
            last = rounds[-1]
            told = "; ".join(last.wrong) or f"{last.back_once} of {VMS} VMs run exactly once"
            what = f"{number}/{len(chosen)} {pair.process} killed at {pair.point}"
            tell(f"{what}: {told}, {last.took_s:.1f} s")
    return rounds


def _good(each: Round) -> bool:
    return each.back_once == VMS and not each.wrong


def _show(rounds: list[Round]) -> None:
    table = Table("killed", "points", "VMs back exactly once", "median s", "worst s")
    for process in PROCESSES:
        own = [each for each in rounds if each.pair.process == process]
        if not own:
            continue
        took = [each.took_s for each in own]
        back = f"{sum(each.back_once for each in own)} of {VMS * len(own)}"
        points = f"{len(own)} of {len(POINTS)}"
        table.add_row(process, points, back, f"{median(took):.1f}", f"{max(took):.1f}")
    Console(width=100).print(table)
    good = sum(_good(each) for each in rounds)
    print(f"{len(rounds)} pairs tried, {good} with each VM exactly once")
