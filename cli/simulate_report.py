"""What `holdfast simulate run` and `replay` print: many seeds as a table, one run as a timeline."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cli.render import lasting, print_facts, print_line, print_table

if TYPE_CHECKING:
    from simulator.campaign import Tally
    from simulator.covered import Covered
    from simulator.report import Report

SHOWN = 40
"""Lines of a timeline that are printed; the file holds all of them."""


@dataclass(frozen=True)
class Sample:
    """Branch coverage, and on how many seeds it was measured; nothing where it could not be."""

    seeds: int
    packages: "tuple[Covered, ...]"

    def as_json(self) -> dict[str, object]:
        """Branches by package, taken and all."""
        found = {each.package: [each.taken, each.branches] for each in self.packages}
        return {"seeds": self.seeds, "branches": found or None}


def print_tally(tally: "Tally", files: list[Path], took_s: float, sample: Sample | None) -> None:
    """What many seeds have shown, each that has found something with the end of its timeline."""
    rows = [
        (
            kind,
            tally.runs[kind],
            tally.injected[kind],
            tally.recovered[kind],
            tally.violated[kind],
            tally.beyond[kind],
        )
        for kind in sorted(tally.injected)
    ]
    header = ("FAULT", "RUNS", "INJECTED", "RECOVERIES", "VIOLATIONS", "OUTSIDE")
    print_table(header, rows, empty="no fault was injected")
    print_line()
    outcomes = ", ".join(f"{number} {word}" for word, number in sorted(tally.recoveries.items()))
    print_facts(
        (
            ("seeds", tally.seeds),
            ("virtual time", lasting(tally.virtual_s)),
            ("real time", lasting(took_s)),
            ("virtual hours a second", f"{_pace(tally, took_s):.3f}"),
            ("faults", sum(tally.injected.values())),
            ("incidents", outcomes or "none"),
            ("certificates", tally.certificates),
            ("fences", tally.fences),
            ("VMs started", tally.started),
            ("violations", tally.violations),
            ("outside of the promise", tally.outside),
            *(() if sample is None else _covered(sample)),
        )
    )
    for report, file in zip(tally.bad, files, strict=True):
        print_line()
        print_run(report, every_line=False)
        print_line(f"repeat it: holdfast simulate replay {file}")


def _pace(tally: "Tally", took_s: float) -> float:
    return tally.virtual_s / 3600 / took_s


def _covered(sample: Sample) -> Iterator[tuple[str, str]]:
    if not sample.packages:
        yield "branches taken", "not measured: the Python package coverage is not installed"
    for each in sample.packages:
        share = f"{each.taken} of {each.branches}, {100 * each.share:.0f} %"
        yield f"branches of {each.package}/", f"{share} (on {sample.seeds} of these seeds)"


def print_run(report: "Report", *, every_line: bool) -> None:
    """One run: its plan, its timeline or the end of it, and what was found."""
    print_line(f"seed {report.seed}, {report.plan}".splitlines()[0])
    for fault in report.plan.faults:
        print_line(f"  {fault}")
    lines = report.timeline if every_line else report.timeline[-SHOWN:]
    for line in lines:
        print_line(line)
    for violation in report.violations:
        print_line(f"VIOLATION {violation}")
    for defect in report.defects:
        print_line(f"DEFECT {defect}")


def as_json_of(
    tally: "Tally", files: list[Path], took_s: float, sample: Sample | None
) -> dict[str, object]:
    """The same as JSON."""
    kinds = {
        kind: {
            "runs": tally.runs[kind],
            "injected": tally.injected[kind],
            "recoveries": tally.recovered[kind],
            "violations": tally.violated[kind],
            "outside": tally.beyond[kind],
        }
        for kind in sorted(tally.injected)
    }
    bad = [
        {
            "seed": report.seed,
            "violations": [violation.model_dump(mode="json") for violation in report.inside],
            "defects": list(report.defects),
            "evidence": str(file),
        }
        for report, file in zip(tally.bad, files, strict=True)
    ]
    return {
        "seeds": tally.seeds,
        "virtual_s": round(tally.virtual_s, 3),
        "real_s": round(took_s, 3),
        "virtual_hours_a_second": round(_pace(tally, took_s), 4),
        "faults": sum(tally.injected.values()),
        "incidents": dict(sorted(tally.recoveries.items())),
        "certificates": tally.certificates,
        "fences": tally.fences,
        "started": tally.started,
        "violations": tally.violations,
        "outside": tally.outside,
        "by_fault": kinds,
        "bad": bad,
        "coverage": None if sample is None else sample.as_json(),
    }
