"""What was measured of one recovery in the lab, and the tables that several of them give.

Times are seconds from the fault itself, as the machine's clock had it just before the fault was
made; the engine's own times begin later, with what it noticed.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.figures import Figure
from cli.demo_report import PHASES

Json = dict[str, Any]


@dataclass(frozen=True)
class Step:
    """One step of a recovery, or of a part of it."""

    name: str
    target: str
    began_s: float
    took_s: float


@dataclass(frozen=True)
class Run:
    """One recovery."""

    phases: dict[str, float | None]
    first_s: float
    last_s: float
    load: float
    steps: tuple[Step, ...] = ()

    def as_json(self) -> Json:
        """As the report keeps it."""
        return asdict(self)

    def told(self) -> str:
        """One line of progress."""
        phases = ", ".join(f"{name} {_shown(took)}" for name, took in self.phases.items())
        return f"first {self.first_s:.2f} s, last {self.last_s:.2f} s ({phases})"


@dataclass
class Case:
    """All runs of one fault, and what follows from them."""

    name: str
    runs: list[Run] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)

    def as_json(self) -> Json:
        """As the report keeps it."""
        figures = [figure.as_json() for figure in self.figures]
        return {"name": self.name, "runs": [run.as_json() for run in self.runs], "figures": figures}


def steps_of(tree: Json, fault_at: datetime) -> Iterator[Step]:
    """The steps of an operation and of its parts that have ended, as the API shows them."""
    for step in tree["steps"]:
        if step["started_at"] and step["finished_at"]:
            began, ended = (
                datetime.fromisoformat(step[f"{k}_at"]) for k in ("started", "finished")
            )
            yield Step(
                name=step["name"],
                target=tree["target_name"],
                began_s=round((began - fault_at).total_seconds(), 3),
                took_s=round((ended - began).total_seconds(), 3),
            )
    for child in tree["children"]:
        yield from steps_of(child, fault_at)


def timed(name: str, times: Sequence[float], limit_s: float, loads: Sequence[float]) -> Figure:
    """Median and worst of some times against a limit for the median."""
    middle, worst = median(times), max(times)
    return Figure(
        name,
        f"median {middle:.2f} s, worst {worst:.2f} s ({len(times)} runs)",
        f"≤ {limit_s:g} s",
        middle <= limit_s,
        {"median_s": round(middle, 3), "worst_s": round(worst, 3), "runs": float(len(times))},
        load=max(loads),
    )


def show_phases(cases: Sequence[Case]) -> None:
    """Median and worst of each phase of each fault."""
    table = Table("fault", *PHASES, "first VM", "last VM", "runs", "load", title="phases, seconds")
    for case in cases:
        if not case.runs:
            continue
        cells = [_pair([run.phases[phase] for run in case.runs]) for phase in PHASES]
        first, last = ([getattr(r, f"{k}_s") for r in case.runs] for k in ("first", "last"))
        loads = [run.load for run in case.runs]
        load = f"{min(loads):.1f}–{max(loads):.1f}"
        table.add_row(case.name, *cells, _pair(first), _pair(last), str(len(case.runs)), load)
    table.caption = "median / worst, from the fault on; first and last VM that runs again"
    Console(width=140).print(table)


def show_steps(case: Case) -> None:
    """Where the time of a fault goes, step by step: for whoever wants to shorten it."""
    if not case.runs:
        return
    found: defaultdict[str, list[Step]] = defaultdict(list)
    for run in case.runs:
        for step in run.steps:
            found[step.name].append(step)
    table = Table("step", "a run", "begins", "ends", "takes", title=f"steps: {case.name}")
    for name, steps in sorted(found.items(), key=lambda item: median(s.began_s for s in item[1])):
        ends = [step.began_s + step.took_s for step in steps]
        table.add_row(
            name,
            f"{len(steps) / len(case.runs):g}",
            _pair([step.began_s for step in steps]),
            _pair(ends),
            _pair([step.took_s for step in steps]),
        )
    Console(width=140).print(table)


def _pair(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{median(known):.2f} / {max(known):.2f}" if known else "–"


def _shown(seconds: float | None) -> str:
    return "–" if seconds is None else f"{seconds:.2f}"
