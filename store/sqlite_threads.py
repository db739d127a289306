"""SQLite's driver runs each connection on a thread; here they end before their event loop does.

A thread answers through the event loop that asked it. One that is told to stop without anybody
waiting for it (a file that could not be opened, a connection given up after a cancel, one that a
cancelled task never gave back) may answer a loop that is closed by then, and die of it with a
traceback that nobody can place.
"""

import asyncio
import logging
import threading
import time
import weakref
from typing import Any

import aiosqlite

log = logging.getLogger(__name__)

IN_USE_S = 1.0
"""How long closing lets what is in use go on. Lower: a statement under way is its last one."""

ENDING_S = 10.0
"""How long closing waits for threads. Lower: one in a slow write is left behind."""


class SqliteThreads:
    """The threads of one engine's connections."""

    def __init__(self) -> None:
        self._started: list[tuple[threading.Thread, weakref.ref[aiosqlite.Connection]]] = []

    async def open(self, *arguments: Any, **named: Any) -> aiosqlite.Connection:
        """A connection as the driver makes it, whose thread is remembered until it ended."""
        connection = aiosqlite.connect(*arguments, **named)
        thread = connection._thread
        thread.daemon = True  # as SQLAlchemy sets it: a process can end beside a slow statement
        self._started = self._alive()
        self._started.append((thread, weakref.ref(connection)))
        return await connection

    async def ended(self) -> None:
        """Wait until every thread has ended, for what is in use at most `IN_USE_S`, then stop it.

        Whatever is left after `ENDING_S` is logged.
        """
        await self._join(IN_USE_S)
        for _thread, found in self._alive():
            if (connection := found()) is not None:
                connection.stop()
        await self._join(ENDING_S)
        self._started = self._alive()
        if self._started:
            log.warning("connections were still in use", extra={"connections": len(self._started)})

    async def _join(self, within_s: float) -> None:
        deadline = time.monotonic() + within_s
        for thread, _connection in self._alive():
            await asyncio.to_thread(_join, thread, deadline)

    def _alive(self) -> list[tuple[threading.Thread, weakref.ref[aiosqlite.Connection]]]:
        # One that is not started yet belongs to an opening that was cancelled: no thread.
        return [known for known in self._started if known[0].is_alive()]


def _join(thread: threading.Thread, deadline: float) -> None:
    thread.join(max(deadline - time.monotonic(), 0))
