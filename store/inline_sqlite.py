"""A database in memory that answers where it is asked, on no thread of its own: for simulations.

Any number of connections share it (`simulator.sql`); since their transactions do not overlap, none
sees another's half-done work.
"""

import sqlite3
from collections.abc import Callable

from store.dialects import PRAGMAS

Gate = Callable[[str], None]
"""Called with each statement before it is run; what it raises, the caller gets."""

URL = "sqlite+aiosqlite:///:memory:"


class SharedMemory:
    """One database in memory. `copy_of` gives it the tables and rows of another one."""

    def __init__(self, copy_of: sqlite3.Connection | None = None) -> None:
        self.raw = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        if copy_of is not None:
            copy_of.backup(self.raw)
        for pragma in PRAGMAS:
            self.raw.execute(f"PRAGMA {pragma}")

    def close(self) -> None:
        """Forget everything."""
        self.raw.close()
