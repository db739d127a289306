"""A smaller plan that still shows what a plan has shown: for a person to read.

Faults are dropped first, in halves, quarters and one by one (delta debugging); then what is left is
made simpler: it heals sooner, the plan ends sooner. Each step is a run of its own.
"""

from collections.abc import Callable, Iterator

from simulator.faults.plan import Fault, Plan
from simulator.report import Report
from simulator.seeds import simulate

RUNS_MAX = 60
"""Higher: the plan gets smaller. Lower: a person waits less for it."""

SHORT_S = 0.5
"""Durations below this are left as they are."""

Run = Callable[[Plan], Report]


def shrunk(report: Report, run: Run | None = None, runs_max: int = RUNS_MAX) -> Report:
    """The report of the smallest plan found that shows one of the same things.

    `run` runs a plan on the seed and setup of the report; the simulator itself by default.
    """
    again = run or (lambda plan: simulate(report.seed, plan, report.setup))
    return _Search(report, again, runs_max).smallest()


class _Search:
    def __init__(self, report: Report, run: Run, runs_left: int) -> None:
        self._best = report
        self._wanted = report.found()
        self._run = run
        self._left = runs_left

    def smallest(self) -> Report:
        self._drop_faults()
        while self._simplify():
            pass
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
        last_s = max((fault.at_s for fault in plan.faults), default=0.0)
        if plan.lasts_s - last_s > 4 * SHORT_S:
            sooner_s = round(last_s + (plan.lasts_s - last_s) / 2, 2)
            yield plan.model_copy(update={"lasts_s": sooner_s})

    def _with(self, faults: tuple[Fault, ...]) -> Plan:
        return self._best.plan.model_copy(update={"faults": faults})

    def _shows(self, plan: Plan) -> bool:
        """Whether this plan shows one of the same things; then it is the best one."""
        if self._left <= 0:
            return False
        self._left -= 1
        report = self._run(plan)
        if report.found() & self._wanted:
            self._best = report
            return True
        return False


def _simpler_faults(fault: Fault) -> Iterator[Fault]:
    if fault.lasts_s is not None and fault.lasts_s > SHORT_S:
        yield fault.model_copy(update={"lasts_s": round(fault.lasts_s / 2, 2)})
    if fault.after_event is None and fault.at_s > SHORT_S:
        yield fault.model_copy(update={"at_s": round(fault.at_s / 2, 2)})
