"""`python -m benchmarks [PART ...]`: one run, one table, and var/bench/report.json.

The parts are named in `PARTS`; `make bench` measures all of them.
"""

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import backend, batches, operations, queries, simulation, watching
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


async def _measure(names: list[str]) -> int:
    VAR.mkdir(parents=True, exist_ok=True)
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
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        print(f"unknown: {', '.join(unknown)}; there are: {', '.join(PARTS)}", file=sys.stderr)
        exit_process(2)
    set_up_logs("warning", "bench")
    try:
        code = asyncio.run(_measure(names))
    except EngineError as error:
        print(f"error: {error.detail} ({error.code})\n  next: {error.next_step}", file=sys.stderr)
        code = 1
    exit_process(code)


main()
