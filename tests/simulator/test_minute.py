"""A minute's share of what `make simulate` runs for ten, in the order of their seeds."""

import time
from collections.abc import Callable, Iterator

import pytest

from simulator.campaign import Tally
from simulator.seeds import simulate
from tests.simulator.figures import FIGURES

pytestmark = [pytest.mark.unit, pytest.mark.slow]

FIRST, MOST = 20_000, 190
SHARE_S = 60.0
"""CPU seconds after which no further seed is begun, on a machine that is slow."""


def shared(cpu: Callable[[], float]) -> Iterator[int]:
    """Seeds until the share is used up."""
    began = cpu()
    for seed in range(FIRST, FIRST + MOST):
        if cpu() - began >= SHARE_S:
            return
        yield seed


def told(tally: Tally) -> str:
    hours, faults = tally.virtual_s / 3600, sum(tally.injected.values())
    return (
        f"{tally.seeds} seeds from {FIRST}, {hours:.2f} virtual hours in {tally.real_s:.0f} s, "
        f"{faults} faults of {len(tally.injected)} kinds, {sum(tally.recoveries.values())} "
        f"incidents, {tally.certificates} certificates, {tally.fences} fences, "
        f"{tally.violations} violations, {tally.outside} outside of the promise"
    )


def test_a_minute_of_seeds_breaks_nothing_that_was_promised(
    record_property: Callable[[str, object], None],
) -> None:
    tally = Tally()
    for seed in shared(time.process_time):
        tally.add(simulate(seed))
    record_property(FIGURES, told(tally))
    assert tally.seeds > 0
    assert [(bad.seed, bad.inside, bad.defects) for bad in tally.bad] == []
