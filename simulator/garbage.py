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

from sqlalchemy.exc import SAWarning

EVERY_S = 60.0
"""Virtual seconds. Higher: a long run needs more memory. Lower: it takes longer."""


@contextmanager
def collected_at_rest() -> Iterator[None]:
    """Keep Python from collecting by itself; see `collect_garbage`."""
    was = gc.isenabled()
    gc.disable()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The garbage collector", SAWarning)
            gc.collect()
            gc.freeze()  # what is there already need not be looked at again and again
            yield
    finally:
        gc.unfreeze()
        if was:
            gc.enable()


async def collect_garbage() -> None:
    """Collect again and again, until cancelled."""
    while True:
        await asyncio.sleep(EVERY_S)
        gc.collect()
