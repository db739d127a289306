"""`holdfast simulate scenario`: neutral HA scenarios, run here and set beside what a peer did.

Each scenario stands for itself, so they are spread over the machine's processors; the order of the
results is the file's.
"""

import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.failures import Exit, failure
from cli.render import print_facts, print_json, print_line, print_table

if TYPE_CHECKING:
    from simulator.scenarios.format import Scenario
    from simulator.scenarios.outcome import Outcome


def scenario(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The scenarios, as JSON.")],
    name: Annotated[
        str | None, typer.Option("--name", help="Only this scenario, with everything about it.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Scenarios at a time; one for each processor.")
    ] = None,
) -> None:
    """Run neutral HA scenarios on the real engine, and compare with what a peer did.

    Ends with 1 when an invariant was violated; a level that is not reached is a result.
    """
    from simulator.scenarios.format import read_file
    from simulator.scenarios.report import as_json as plain

    found = _chosen(read_file(file), name)
    outcomes = list(run_all(found, jobs or os.cpu_count() or 1))
    if as_json:
        print_json([plain(outcome) for outcome in outcomes])
    else:
        show(outcomes, everything=name is not None)
    if broken := [outcome.name for outcome in outcomes if outcome.violations]:
        detail = f"an invariant was violated in {', '.join(broken)}"
        raise failure(Exit.FAILED, "INVARIANT_VIOLATED", detail)


def run_all(scenarios: "Sequence[Scenario]", jobs: int) -> "Iterator[Outcome]":
    """Run scenarios, several at a time; results in the order of what was given."""
    from simulator.scenarios.run import run_scenario

    jobs = min(jobs, len(scenarios))
    if jobs <= 1:
        with silence():
            yield from map(run_scenario, scenarios)
        return
    with ProcessPoolExecutor(jobs, initializer=_be_silent) as pool:
        yield from pool.map(run_scenario, scenarios)


@contextmanager
def silence() -> Iterator[None]:
    """Keep the engine's log to itself: a simulation's is not the user's."""
    import structlog

    level, config = logging.root.manager.disable, structlog.get_config()
    logging.disable(logging.CRITICAL)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        with warnings.catch_warnings():
            # A process that was killed leaves its connection behind, as a real one does.
            warnings.filterwarnings("ignore", "The garbage collector is trying to clean up")
            yield
    finally:
        structlog.configure(**config)
        logging.disable(level)


def _be_silent() -> None:
    """For the whole life of a process of the pool."""
    _SILENT.enter_context(silence())


_SILENT = ExitStack()


def show(outcomes: "Sequence[Outcome]", *, everything: bool) -> None:
    """Print results for people."""
    from simulator.scenarios.report import HEADER, details, row, totals

    if everything:
        for outcome in outcomes:
            print_facts(details(outcome))
        return
    print_table(HEADER, map(row, outcomes), empty="the file has no scenarios")
    print_line()
    print_facts(totals(outcomes))


def _chosen(scenarios: "Sequence[Scenario]", name: str | None) -> "Sequence[Scenario]":
    chosen = [one for one in scenarios if name in (None, one.name)]
    if name is not None and not chosen:
        detail = f"the file has no scenario {name}"
        raise failure(Exit.NOT_FOUND, "SCENARIO_NOT_FOUND", detail, "list them without --name")
    return chosen
