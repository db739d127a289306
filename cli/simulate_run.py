"""`holdfast simulate run` and `replay`: seeds of faults, and one of them repeated exactly."""

import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.failures import Exit, failure
from cli.nouns.cluster import Profile
from cli.render import print_json, print_line
from cli.simulate_report import Sample, as_json_of, print_run, print_tally
from cli.terminal import say

if TYPE_CHECKING:
    from simulator.campaign import Tally
    from simulator.report import Report
    from simulator.setup import Setup
    from simulator.shrink import Progress

DEFAULT_SEEDS = 100
FOLDER = Path("var/simulate")
TELL_EVERY_S = 5.0
"""How long a search for a smaller plan is silent while it finds none."""

LINE_EVERY_S = 60.0
"""How often a line tells the progress where no terminal shows it."""

LOSSES = "Each seed loses so many hosts, turn after turn, in one long run."
RECOVERIES = "As many seeds as it takes to recover so many hosts."
Losses = Annotated[int | None, typer.Option(min=1, help=LOSSES)]
Recoveries = Annotated[int | None, typer.Option(min=1, help=RECOVERIES)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def run(
    seeds: Annotated[
        int | None, typer.Option(min=1, help=f"How many; {DEFAULT_SEEDS} by default.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="This one alone.")] = None,
    first: Annotated[int, typer.Option("--from", min=0, help="The first seed.")] = 0,
    minutes: Annotated[
        float | None, typer.Option(min=0.01, help="As many as fit into this time.")
    ] = None,
    hosts: Annotated[int | None, typer.Option(min=1, help="Hosts; drawn by default.")] = None,
    vms: Annotated[int | None, typer.Option(min=1, help="VMs; drawn by default.")] = None,
    profile: Annotated[
        Profile | None, typer.Option(help="Timing profile; drawn by default.")
    ] = None,
    losses: Losses = None,
    recoveries: Recoveries = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes side by side.")] = 1,
    folder: Annotated[Path, typer.Option(help="Where evidence is written.")] = FOLDER,
    coverage: Annotated[
        int, typer.Option(min=0, help="Seeds on which branch coverage is measured, afterwards.")
    ] = 0,
    as_json: AsJson = False,
) -> None:
    """Draw faults from seeds and run the engine under them; exit code 1 on a violation."""
    from simulator.campaign import campaign
    from simulator.covered import covered

    endless = minutes is not None or recoveries is not None
    if seed is not None and (seeds is not None or endless):
        why = "--seed goes with none of --seeds, --minutes and --recoveries"
        raise failure(Exit.USAGE, "SEED_OR_SEEDS", why)
    wanted = [seed] if seed is not None else _seeds(first, seeds, endless=endless)
    began = time.monotonic()
    ends_at = None if minutes is None else began + 60 * minutes
    setup = _setup(hosts, vms, profile)
    with _Progress(quiet=as_json) as told:
        tally = campaign(
            wanted,
            setup=setup,
            workers=workers,
            ends_at=ends_at,
            told=told.tell,
            losses=losses,
            recoveries=recoveries,
        )
    files = list(_kept(tally.bad, folder))
    took_s = time.monotonic() - began
    sample = Sample(coverage, covered(first, coverage)) if coverage else None
    _print(tally, files, took_s, sample, as_json=as_json)
    if tally.bad:
        raise typer.Exit(int(Exit.FAILED))


def _print(
    tally: "Tally", files: list[Path], took_s: float, sample: Sample | None, *, as_json: bool
) -> None:
    if as_json:
        print_json(as_json_of(tally, files, took_s, sample))
    else:
        print_tally(tally, files, took_s, sample)


def replay(
    file: Annotated[Path, typer.Argument(help="What `holdfast simulate run` has written.")],
    as_json: AsJson = False,
) -> None:
    """Repeat the run of a file exactly; exit code 1 while it still shows a violation."""
    from simulator.evidence import load
    from simulator.evidence import replay as repeat

    replayed = repeat(load(file))
    report = replayed.report
    if as_json:
        shown = report.model_dump(mode="json")
        print_json(shown | {"same": replayed.same, "differences": list(replayed.differences)})
    else:
        print_run(report, every_line=True)
        print_line("the same run, event for event" if replayed.same else "another run:")
        for difference in replayed.differences:
            print_line(f"  {difference}")
    if not report.good:
        raise typer.Exit(int(Exit.FAILED))


def _seeds(first: int, number: int | None, *, endless: bool) -> Iterator[int]:
    if number is None and endless:
        return count(first)
    return iter(range(first, first + (number or DEFAULT_SEEDS)))


def _setup(hosts: int | None, vms: int | None, profile: Profile | None) -> "Setup | None":
    from domain import profiles
    from simulator.setup import Setup

    if hosts is None and vms is None and profile is None:
        return None
    number = hosts or 3
    return Setup.small(
        number, vms or number + 1, profiles.Profile((profile or Profile.BALANCED).value)
    )


def _kept(bad: "list[Report]", folder: Path) -> Iterator[Path]:
    """Write the files that repeat these runs; the first to show something gets a smaller plan."""
    from simulator.evidence import evidence_of, write

    seen: set[frozenset[str]] = set()
    for report in bad:
        path = write(evidence_of(report, report.plan), folder / f"seed-{report.seed}.json")
        if report.found() not in seen:
            seen.add(report.found())
            write(evidence_of(_smaller(report), report.plan), path)
        yield path


def _smaller(report: "Report") -> "Report":
    from simulator.shrink import SECONDS_MAX, shrunk

    what = f"seed {report.seed}: making its plan smaller, for {SECONDS_MAX:.0f} s at most"
    say(f"{what}; Ctrl-C takes the smallest so far")
    shown = len(report.plan.faults), 0.0

    def tell(progress: "Progress") -> None:
        nonlocal shown
        faults, at_s = shown
        if progress.faults < faults or progress.took_s >= at_s + TELL_EVERY_S:
            shown = progress.faults, progress.took_s
            say(f"seed {report.seed}: {progress}")

    return shrunk(report, told=tell)


class _Progress:
    """One line on the terminal while seeds run; elsewhere a line a minute. A violation at once."""

    def __init__(self, *, quiet: bool) -> None:
        from rich.console import Console

        self._console = Console(stderr=True)
        self._status = self._console.status("the first seed runs")
        self._shown = self._console.is_terminal and not quiet
        self._quiet = quiet
        self._told_s = time.monotonic()

    def __enter__(self) -> "_Progress":
        if self._shown:
            self._status.start()
        return self

    def __exit__(self, *_error: object) -> None:
        if self._shown:
            self._status.stop()

    def tell(self, tally: "Tally", report: "Report") -> None:
        """After each seed."""
        for found in () if self._quiet else (*report.inside, *report.defects):
            line = f"seed {report.seed}: {found!s}"
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)
        line = (
            f"{tally.seeds} seeds, {tally.virtual_s / 3600:.1f} virtual hours, "
            f"{sum(tally.injected.values())} faults, "
            f"{tally.recoveries['recovered']} recoveries, {tally.violations} violations"
        )
        if self._shown:
            self._status.update(line)
        elif not self._quiet and time.monotonic() >= self._told_s + LINE_EVERY_S:
            self._told_s = time.monotonic()
            say(line)
