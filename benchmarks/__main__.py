"""`python -m benchmarks [PART ...]`: one run, one table, and var/bench/report.json.

The parts are named in `PARTS`; `make bench` measures all of them. What needs the real lab, takes
long and has options of its own is named in `IN_THE_LAB`, and is the first word on its own.
"""

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import (
    backend,
    batches,
    kills,
    latencies,
    operations,
    queries,
    recovery,
    simulation,
    watching,
)
from benchmarks.figures import Figure, show
from domain.errors import EngineError
from worker.exit import exit_process
from worker.logs import set_up_logs

VAR = Path("var") / "bench"
PARTS: dict[str, Callable[[Path], Awaitable[list[Figure]]]] = {
    "operations": operations.measure,
    "backend": backend.measure,
    "batches": batches.measure,
    "queries": queries.measure,
    "watching": watching.measure,
    "simulation": simulation.measure,
}
IN_THE_LAB: dict[str, Callable[[list[str], Path], int]] = {
    "recovery": recovery.main,
    "kills": kills.main,
    "latencies": latencies.main,
}


async def _measure(names: list[str]) -> int:
    figures: list[Figure] = []
    for name in names:
        figures += await PARTS[name](VAR)
    show(figures)
    missed = [item.name for item in figures if item.met is False]
    report = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "load": os.getloadavg(),
        "figures": [item.as_json() for item in figures],
        "targets_missed": missed,
    }
    (VAR / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    print(f"report: {VAR / 'report.json'}")
    return 0


def main() -> None:
    """Measure what is named, or everything; ends the process."""
    names = sys.argv[1:] or list(PARTS)
    in_the_lab = IN_THE_LAB.get(names[0])
    unknown = [name for name in names if name not in PARTS]
    if unknown and in_the_lab is None:
        known = ", ".join([*PARTS, *IN_THE_LAB])
        print(f"unknown: {', '.join(unknown)}; there are: {known}", file=sys.stderr)
        exit_process(2)
    # In the lab processes are killed on purpose, and started again.
    set_up_logs("error" if in_the_lab else "warning", "bench")
    VAR.mkdir(parents=True, exist_ok=True)
    try:
        code = in_the_lab(names[1:], VAR) if in_the_lab else asyncio.run(_measure(names))
    except EngineError as error:
        print(f"error: {error.detail} ({error.code})\n  next: {error.next_step}", file=sys.stderr)
        code = 1
    exit_process(code)


main()
