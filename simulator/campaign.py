"""Many seeds, on one process or more, and what they have shown together."""

import multiprocessing
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from itertools import islice

from simulator.report import Report
from simulator.seeds import simulate
from simulator.setup import Setup

Told = Callable[["Tally", Report], None]


@dataclass
class Tally:
    """What was run so far."""

    seeds: int = 0
    virtual_s: float = 0.0
    real_s: float = 0.0  # of all processes together
    certificates: int = 0
    fences: int = 0
    started: int = 0  # copies of VMs
    outside: int = 0  # violations outside of the promised fault model
    recoveries: Counter[str] = field(default_factory=Counter)
    injected: Counter[str] = field(default_factory=Counter)
    runs: Counter[str] = field(default_factory=Counter)  # by kind of fault
    recovered: Counter[str] = field(default_factory=Counter)
    violated: Counter[str] = field(default_factory=Counter)
    beyond: Counter[str] = field(default_factory=Counter)
    bad: list[Report] = field(default_factory=list)

    @property
    def violations(self) -> int:
        """Those inside of the promised fault model, and defects."""
        return sum(len(report.inside) + len(report.defects) for report in self.bad)

    def add(self, report: Report) -> None:
        """Take up one run."""
        self.seeds += 1
        self.virtual_s += report.virtual_s
        self.real_s += report.real_s
        self.certificates += report.certificates
        self.fences += report.fences
        self.started += report.started
        outside = len(report.violations) - len(report.inside)
        self.outside += outside
        self.recoveries.update(report.recoveries)
        self.injected.update(report.injected)
        for kind in report.injected:
            self.runs[kind] += 1
            self.recovered[kind] += report.recoveries.get("recovered", 0)
            self.violated[kind] += len(report.inside) + len(report.defects)
            self.beyond[kind] += outside
        if not report.good:
            self.bad.append(report)


def campaign(
    seeds: Iterable[int],
    *,
    setup: Setup | None,
    workers: int,
    ends_at: float | None,
    told: Told,
    losses: int | None = None,
    recoveries: int | None = None,
) -> Tally:
    """Run seeds until they, or the time, are at their end; `ends_at` on the monotonic clock.

    `losses`: of each seed, see `simulate`. `recoveries`: so many of hosts are enough.
    """
    tally = Tally()

    def more() -> bool:
        if recoveries is not None and tally.recoveries["recovered"] >= recoveries:
            return False
        return ends_at is None or time.monotonic() < ends_at

    run = partial(simulate, setup=setup, losses=losses)
    for report in _reports(iter(seeds), run, workers, more):
        tally.add(report)
        told(tally, report)
    return tally


def _reports(
    seeds: Iterator[int], run: Callable[[int], Report], workers: int, more: Callable[[], bool]
) -> Iterator[Report]:
    if workers <= 1:
        while more() and (some := list(islice(seeds, 1))):
            yield run(some[0])
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        open_: set[Future[Report]] = {pool.submit(run, seed) for seed in islice(seeds, workers)}
        while open_:
            done, open_ = wait(open_, return_when=FIRST_COMPLETED)
            fresh = islice(seeds, len(done)) if more() else ()
            open_ |= {pool.submit(run, seed) for seed in fresh}
            yield from (future.result() for future in done)
