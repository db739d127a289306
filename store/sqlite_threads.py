"""SQLite's driver runs each connection on a thread; here they end before their event loop does.

A thread answers through the event loop that asked it. One that is told to stop without anybody
waiting for it (a file that could not be opened, a connection given up after a cancel) may answer a
loop that is closed by then, and die of it with a traceback that nobody can place.
"""

import asyncio
import logging
import threading
import time
from typing import Any

import aiosqlite

log = logging.getLogger(__name__)

ENDING_S = 10.0
"""How long closing waits for threads. Lower: one in a slow write is left behind. Higher: closing
takes long when somebody kept a connection."""


class SqliteThreads:
    """The threads of one engine's connections."""

    def __init__(self) -> None:
        self._started: list[threading.Thread] = []

    async def open(self, *arguments: Any, **named: Any) -> aiosqlite.Connection:
        """A connection as the driver makes it, whose thread is remembered until it ended."""
        connection = aiosqlite.connect(*arguments, **named)
        thread = connection._thread
        thread.daemon = True  # as SQLAlchemy sets it: a process can end beside a slow statement
        self._started = [known for known in self._started if known.is_alive()]
        self._started.append(thread)
        return await connection

    async def ended(self) -> None:
        """Wait until every thread has ended, at most `ENDING_S`; what is left then is logged."""
        deadline = time.monotonic() + ENDING_S
        for thread in self._started:
            await asyncio.to_thread(_join, thread, deadline)
        self._started = [thread for thread in self._started if thread.is_alive()]
        if self._started:
            log.warning("connections were still in use", extra={"connections": len(self._started)})


def _join(thread: threading.Thread, deadline: float) -> None:
    # One that is listed but not started yet belongs to an opening that was cancelled: no thread.
    if thread.ident is not None:
        thread.join(max(deadline - time.monotonic(), 0))
