"""Connections that were given up: what they had locked is free, and closing one never hangs."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from store import sqlite_threads
from store.database import Database, Work
from store.sqlite_threads import Closing, SqliteThreads

pytestmark = pytest.mark.store

SLOW = sa.text(
    "WITH RECURSIVE many(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM many WHERE x < 2000000) "
    "SELECT count(*) FROM many"
)


async def cancelled_in_the_middle(run: Callable[[Work[None]], Awaitable[None]]) -> object:
    """A transaction is cancelled in a slow statement; one of its cursors, half read, is kept."""
    kept: list[object] = []
    under_way = asyncio.Event()

    async def work(connection: AsyncConnection) -> None:
        await connection.execute(sa.text("SELECT 'the transaction begins'"))
        raw = (await connection.get_raw_connection()).driver_connection
        assert raw is not None
        cursor = await raw.cursor()
        await cursor.execute("SELECT name FROM sqlite_master UNION SELECT 'a' UNION SELECT 'b'")
        await cursor.fetchone()
        # As the traceback of a task does until it is collected.
        kept.append(cursor)
        under_way.set()
        await connection.execute(SLOW)

    task = asyncio.ensure_future(run(work))
    await under_way.wait()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    return kept


async def test_a_write_that_was_cancelled_keeps_nobody_out(tmp_path: Path) -> None:
    database = Database(f"sqlite+aiosqlite:///{tmp_path}/a.db")
    kept = await cancelled_in_the_middle(database.write)
    try:
        await asyncio.to_thread(_written, tmp_path / "a.db")
    finally:
        del kept
        await database.close()


def _written(path: Path) -> None:
    other = sqlite3.connect(path, timeout=5, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    other.execute("COMMIT")
    other.close()


async def test_a_connection_that_was_told_to_stop_can_be_closed(tmp_path: Path) -> None:
    threads = SqliteThreads()
    connection = await threads.open(str(tmp_path / "a.db"))
    connection.stop()
    async with asyncio.timeout(60):
        with pytest.raises(ValueError, match="closed"):
            await connection.close()
        await threads.ended()


async def test_a_connection_that_is_being_closed_can_be_told_to_stop(tmp_path: Path) -> None:
    threads = SqliteThreads()
    connection = await threads.open(str(tmp_path / "a.db"))
    closing = asyncio.create_task(connection.close())
    await asyncio.sleep(0)
    connection.stop()
    async with asyncio.timeout(60):
        await closing
        await threads.ended()


async def test_a_read_that_was_cancelled_keeps_no_log_from_being_emptied(tmp_path: Path) -> None:
    database = Database(f"sqlite+aiosqlite:///{tmp_path}/a.db")
    await database.write(lambda c: c.execute(sa.text("CREATE TABLE t (x)")))
    kept = await cancelled_in_the_middle(database.read)
    try:
        await database.write(lambda c: c.execute(sa.text("INSERT INTO t VALUES (1)")))
        await database.checkpoint()
    finally:
        del kept
        await database.close()


async def test_a_busy_connection_that_is_stopped_and_closed_gives_its_lock_back(
    tmp_path: Path,
) -> None:
    threads = SqliteThreads()
    connection = await threads.open(str(tmp_path / "a.db"), isolation_level=None)
    cursor = await connection.cursor()
    await cursor.execute("BEGIN IMMEDIATE")
    await cursor.execute("SELECT 1 UNION SELECT 2")
    slow = asyncio.create_task(connection.execute(str(SLOW)))
    await asyncio.sleep(0)
    connection.stop()
    with pytest.raises(ValueError, match="closed"):
        await connection.close()
    await threads.ended()
    await asyncio.to_thread(_written, tmp_path / "a.db")
    await slow
    assert cursor is not None


class Failing(Closing):
    """A disk that takes no rollback."""

    def rollback(self) -> None:
        raise sqlite3.OperationalError("disk I/O error")


async def test_a_connection_that_cannot_roll_back_ends_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_threads, "Closing", Failing)
    threads = SqliteThreads()
    connection = await threads.open(str(tmp_path / "a.db"))
    connection.stop()
    async with asyncio.timeout(60):
        await threads.ended()
    assert not connection._thread.is_alive()
