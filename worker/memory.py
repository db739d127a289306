"""Garbage collection of a process that has to be punctual.

What a process has loaded when it begins its work (modules, models, statements) lives as long as
the process. Each full collection would look through all of it in vain and stop everything
meanwhile: 65 ms in the monitor.
"""

import gc

YOUNG_MAX = 50_000
"""New objects between two collections (Python's own: 700). Higher: cyclic garbage stays longer.
Lower: collections that find nothing take a larger share; a round of 100 hosts makes some 10,000."""


def settle() -> None:
    """Leave all that is there by now out of later collections. Once, before the work begins."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_MAX, *gc.get_threshold()[1:])
