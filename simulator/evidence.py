"""A file that repeats one run exactly: seed, setup, plan, and what the run has shown.

The same seed, plan and code give the same events, each at the same virtual time. So a replay says
either that it is the same run, or what differs; code that has changed since is named first.
"""

from functools import lru_cache
from hashlib import sha256
from pathlib import Path

from domain.base import Frozen
from domain.errors import Invalid
from domain.version import VERSION
from simulator.faults.plan import Plan
from simulator.invariants.facts import Violation
from simulator.report import Report
from simulator.seeds import simulate
from simulator.setup import Setup

FORMAT = 1
CODE = (
    *("domain", "engine", "store", "workflows", "activities", "drivers", "worker", "simulator"),
)
"""Packages that decide what a run does."""


class Evidence(Frozen):
    """What the file holds."""

    format: int = FORMAT
    version: str = VERSION
    code: str  # digest of the sources
    seed: int
    setup: Setup
    plan: Plan
    drawn: Plan  # before it was made smaller
    violations: tuple[Violation, ...]
    defects: tuple[str, ...]
    digest: str
    timeline: tuple[str, ...]


class Replayed(Frozen):
    """A replay beside its evidence; no differences: it is the same run."""

    report: Report
    differences: tuple[str, ...]

    @property
    def same(self) -> bool:
        """Whether the run was repeated exactly."""
        return not self.differences


def evidence_of(report: Report, drawn: Plan) -> Evidence:
    """What to keep of a run; `drawn` is the plan that first showed it."""
    return Evidence(
        code=code_digest(),
        seed=report.seed,
        setup=report.setup,
        plan=report.plan,
        drawn=drawn,
        violations=report.violations,
        defects=report.defects,
        digest=report.digest,
        timeline=report.timeline,
    )


def write(evidence: Evidence, path: Path) -> Path:
    """Write the file; its folder is made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(evidence.model_dump_json(indent=1) + "\n")
    return path


def load(path: Path) -> Evidence:
    """Read a file. Invalid: EVIDENCE_UNREADABLE."""
    try:
        return Evidence.model_validate_json(path.read_text())
    except (OSError, ValueError) as error:
        raise Invalid(
            "EVIDENCE_UNREADABLE",
            f"{path} is no evidence of a simulation: {error!s:.300}",
            next_step="name a file that `holdfast simulate run` has written",
        ) from error


def replay(evidence: Evidence) -> Replayed:
    """Run it again and compare."""
    report = simulate(evidence.seed, evidence.plan, evidence.setup)
    return Replayed(report=report, differences=tuple(_differences(evidence, report)))


def _differences(evidence: Evidence, report: Report) -> list[str]:
    if evidence.digest == report.digest and evidence.violations == report.violations:
        return []
    found = []
    if evidence.code != code_digest():
        found.append("the code is another one than that which wrote the evidence")
    for was, now in zip(evidence.timeline, report.timeline, strict=False):
        if was != now:
            found.append(f"first difference: was   {was.strip()}")
            found.append(f"                  now   {now.strip()}")
            break
    was_found = [str(each) for each in evidence.violations]
    now_found = [str(each) for each in report.violations]
    if was_found != now_found:
        found.append(f"violations: {len(was_found)} then, {len(now_found)} now")
    return found or ["the events differ in what the timeline leaves out"]


@lru_cache(maxsize=1)
def code_digest() -> str:
    """One word for all sources that decide what a run does."""
    root, whole = Path(__file__).resolve().parents[1], sha256()
    for package in CODE:
        for path in sorted((root / package).rglob("*.py")):
            whole.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return whole.hexdigest()
