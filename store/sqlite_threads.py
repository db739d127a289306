"""SQLite's driver runs each connection on a thread; here they end before their event loop does.

A thread answers through the event loop that asked it. One that is told to stop without anybody
waiting for it (a file that could not be opened, a connection given up after a cancel, one that a
cancelled task never gave back) may answer a loop that is closed by then, and die of it with a
traceback that nobody can place.

A connection that is closed here keeps nothing locked. Python closes with `sqlite3_close_v2`, which
leaves an open transaction as it is for as long as any statement is referred to: the cursor in the
traceback of a cancelled task kept every writer of the file out until it happened to be collected.
"""

import asyncio
import logging
import sqlite3
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

ROWS_AT_ONCE = 64
"""Rows that a cursor fetches when it is iterated: the driver's own default."""


class Closing(sqlite3.Connection):
    """Gives its locks back when it is closed, whoever still refers to one of its statements."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._cursors = weakref.WeakSet[sqlite3.Cursor]()

    def cursor(self, *arguments: Any) -> Any:
        """A cursor that ends with its connection."""
        made = super().cursor(*arguments)
        self._cursors.add(made)
        return made

    def close(self) -> None:
        """End what is read, roll back what is open, and close; repeatable."""
        try:
            for cursor in self._cursors:
                cursor.close()
            self.rollback()
        except sqlite3.Error as error:
            log.info("nothing to roll back", extra={"why": str(error)})
        finally:
            super().close()


class Stopping(aiosqlite.Connection):
    """Can be told twice to stop: a thread that has ended answers nobody."""

    _told = False

    def stop(self) -> asyncio.Future[None] | None:
        """End the thread after what it was given before; None: it was told before."""
        if self._told:
            return None
        self._told = True
        if self._connection is not None:
            # What the driver queues itself finds nothing to close once `close` was called, too.
            self._tx.put_nowait((None, self._connection.close))
        return super().stop()


class SqliteThreads:
    """The threads of one engine's connections."""

    def __init__(self) -> None:
        self._started: list[tuple[threading.Thread, weakref.ref[aiosqlite.Connection]]] = []

    async def open(self, *arguments: Any, **named: Any) -> aiosqlite.Connection:
        """A connection as the driver makes it, whose thread is remembered until it ended."""
        connection = Stopping(
            lambda: sqlite3.connect(*arguments, factory=Closing, **named), ROWS_AT_ONCE
        )
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
