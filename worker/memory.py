"""Garbage collection of a process that has to be punctual.

What a process has loaded when it begins its work (modules, models, statements) lives as long as it
does. Each full collection would look through all of it in vain, and stop everything meanwhile: 65 ms
in the monitor.
"""

import gc


def settle() -> None:
    """Leave all that is there by now out of later collections. Once, before the work begins."""
    gc.collect()
    gc.freeze()
