"""When garbage is collected in a simulation: between callbacks, at virtual times, never by chance.

The connections of dead processes are garbage, and SQLAlchemy ends such a one when it is collected.
Collected at rest, that is never in the middle of somebody's step, and the same seed stays the same
run, whatever memory looked like before.
"""

import asyncio
import gc
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

from sqlalchemy.exc import SAWarning

EVERY_S = 60.0
"""Virtual seconds. Higher: a long run needs more memory. Lower: it takes longer."""

LOOK_AGAIN = 100
"""Runs until what was there before them is looked at again. Higher: garbage that other code left
between them is kept longer. Lower: runs are slower, since all that was imported is looked at."""

_runs = count()


@contextmanager
def collected_at_rest() -> Iterator[None]:
    """Keep Python from collecting by itself; see `collect_garbage`."""
    was = gc.isenabled()
    gc.disable()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The garbage collector", SAWarning)
            _look()
            yield
    finally:
        if was:
            gc.enable()


def _look() -> None:
    """Collect what the last run left; what was there before it is kept out of that."""
    again = next(_runs) % LOOK_AGAIN == 0
    if again:
        gc.unfreeze()
    _collect()
    if again:
        gc.freeze()


async def collect_garbage() -> None:
    """Collect again and again, until cancelled."""
    while True:
        await asyncio.sleep(EVERY_S)
        _collect()


def _collect() -> None:
    with warnings.catch_warnings():
        # A process that was killed leaves coroutines that it had not begun.
        warnings.filterwarnings("ignore", r"coroutine '.*' was never awaited", RuntimeWarning)
        gc.collect()
