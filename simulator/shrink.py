"""A smaller plan that still shows what a plan has shown: for a person to read.

Faults are dropped first, in halves, quarters and one by one (delta debugging); then what is left is
made simpler: it heals sooner, the plan ends sooner, the engine has fewer machines. Each step is a
run of its own.

A run that shows what never comes right waits for it to the end of its patience, so the search has
a limit of time beside that of runs: no run is begun that would not fit. Whatever ends the search,
also a person who interrupts it, the smallest plan found so far counts.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from simulator.faults.plan import Fault, Plan
from simulator.report import Report
from simulator.seeds import simulate

RUNS_MAX = 60
"""Higher: the plan gets smaller. Lower: a person waits less for it."""

SHORT_S = 0.5
"""Durations below this are left as they are."""

SECONDS_MAX = 60.0
"""Higher: the plan gets smaller. Lower: a person waits less for it."""

Run = Callable[[Plan], Report]


@dataclass(frozen=True)
class Progress:
    """How far a search has come."""

    runs: int
    took_s: float
    faults: int  # of the smallest plan so far

    def __str__(self) -> str:
        return f"{self.runs} runs in {self.took_s:.0f} s, {self.faults} faults left"


Told = Callable[[Progress], None]


@dataclass(frozen=True)
class Budget:
    """What a search may use up, on which clock."""

    runs: int = RUNS_MAX
    seconds: float = SECONDS_MAX
    clock: Callable[[], float] = time.monotonic


def shrunk(
    report: Report,
    run: Run | None = None,
    budget: Budget | None = None,
    told: Told = lambda _progress: None,
) -> Report:
    """The report of the smallest plan found that shows one of the same things.

    `run` runs a plan on the seed and setup of the report; the simulator itself by default. `told`
    hears how far it is after each run.
    """
    again = run or (lambda plan: simulate(report.seed, plan, report.setup))
    return _Search(report, again, budget or Budget(), told).smallest()


class _Search:
    def __init__(self, report: Report, run: Run, budget: Budget, told: Told) -> None:
        self._best = report
        self._wanted = report.found()
        self._run = run
        self._budget = budget
        self._told = told
        self._began_s = budget.clock()
        self._longest_s = report.real_s
        self._tried = {report.plan.model_dump_json()}
        self._runs = 0

    def smallest(self) -> Report:
        try:
            self._drop_faults()
            while self._simplify():
                pass
        except KeyboardInterrupt:
            pass  # whoever waits has waited enough
        return self._best

    def _drop_faults(self) -> None:
        parts = 2
        while len(faults := self._best.plan.faults) > 1:
            size = max(1, len(faults) // parts)
            kept = (faults[:at] + faults[at + size :] for at in range(0, len(faults), size))
            if any(self._shows(self._with(some)) for some in kept):
                parts = max(2, parts - 1)
            elif size == 1:
                return
            else:
                parts = min(len(faults), 2 * parts)

    def _simplify(self) -> bool:
        return any(self._shows(plan) for plan in self._simpler())

    def _simpler(self) -> Iterator[Plan]:
        plan = self._best.plan
        for number, fault in enumerate(plan.faults):
            for simpler in _simpler_faults(fault):
                faults = (*plan.faults[:number], simpler, *plan.faults[number + 1 :])
                yield self._with(faults)
        last = f"engine-{plan.machines}"
        if plan.machines > 1 and not any(last in fault.subject for fault in plan.faults):
            yield plan.model_copy(update={"machines": plan.machines - 1})
        last_s = max((fault.at_s for fault in plan.faults), default=0.0)
        if plan.lasts_s - last_s > 4 * SHORT_S:
            sooner_s = round(last_s + (plan.lasts_s - last_s) / 2, 2)
            yield plan.model_copy(update={"lasts_s": sooner_s})

    def _with(self, faults: tuple[Fault, ...]) -> Plan:
        return self._best.plan.model_copy(update={"faults": faults})

    def _shows(self, plan: Plan) -> bool:
        """Whether this plan shows one of the same things; then it is the best one."""
        if not self._fits() or (known := plan.model_dump_json()) in self._tried:
            return False
        self._tried.add(known)
        report = self._timed(plan)
        shows = bool(report.found() & self._wanted)
        if shows:
            self._best = report
        took_s = self._budget.clock() - self._began_s
        self._told(Progress(self._runs, took_s, len(self._best.plan.faults)))
        return shows

    def _fits(self) -> bool:
        """Whether there is room for one more run, even for the longest."""
        left_s = self._began_s + self._budget.seconds - self._budget.clock()
        return self._runs < self._budget.runs and self._longest_s <= left_s

    def _timed(self, plan: Plan) -> Report:
        self._runs += 1
        began_s = self._budget.clock()
        report = self._run(plan)
        self._longest_s = max(self._longest_s, self._budget.clock() - began_s)
        return report


def _simpler_faults(fault: Fault) -> Iterator[Fault]:
    if fault.lasts_s is not None and fault.lasts_s > SHORT_S:
        yield fault.model_copy(update={"lasts_s": round(fault.lasts_s / 2, 2)})
    if fault.after_event is None and fault.at_s > SHORT_S:
        yield fault.model_copy(update={"at_s": round(fault.at_s / 2, 2)})
