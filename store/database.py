"""Connections and transactions, on SQLite and PostgreSQL.

A transaction is a function of one connection, so that it can be run again: a serialisation failure,
a deadlock or a lost race for a unique key rolls back and repeats it, at most `TRIES` times. Writing
transactions are SERIALIZABLE on PostgreSQL and `BEGIN IMMEDIATE` on SQLite (one writer; the second
waits for the first instead of failing in the middle). A memory database is one connection: its
transactions take turns, since sharing it would make one commit the other's writes.
"""

import asyncio
import random
import sqlite3
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pydantic_core
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from domain.errors import Unavailable

T = TypeVar("T")
Work = Callable[[AsyncConnection], Awaitable[T]]

TRIES = 12
"""Higher: a hot row makes a request slow. Lower: a burst on one host's row fails requests."""

BUSY_S = 30.0
"""How long SQLite waits for the other writer."""

PRAGMAS = ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON", "wal_autocheckpoint=0")
"""No automatic checkpoints: see `Database.checkpoint`."""

CHECKPOINT_MS = 200
"""How long a checkpoint holds up writers while it waits for readers."""

JSON: dict[str, Any] = {
    "json_serializer": lambda value: pydantic_core.to_json(value).decode(),
    "json_deserializer": pydantic_core.from_json,
}
"""Several times quicker than the standard library's: a monitor writes much JSON each round."""

ALONE_S = 60
"""How long a migration waits for another process's migration on PostgreSQL."""

ALONE_KEY = 0x686F6C64
"""The advisory lock of migrations; any fixed number that no other program uses will do."""

RETRY_STATES = frozenset({"40001", "40P01", "55P03"})
"""SQLSTATE of serialisation failure, deadlock and lock time-out (PostgreSQL, appendix A)."""

DOWN_STATES = ("08", "28", "3D", "53", "57")
"""Classes of SQLSTATE: no connection, no access, no such database, no resources, shut down."""


class Database:
    """One database; `write` and `read` run a function in a transaction."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._engine = _engine(url)
        self.dialect = self._engine.dialect.name

    async def write(self, work: Work[T]) -> T:
        """Run `work` in a writing transaction; repeated as a whole when it lost a race."""
        return await self._run(work, read=False)

    async def read(self, work: Work[T]) -> T:
        """Run `work` in a transaction that must not write; a consistent view."""
        return await self._run(work, read=True)

    async def alone(self, work: Callable[[sa.Connection], T]) -> T:
        """Run synchronous `work` in one transaction that excludes every other such: migrations.

        Not repeated. On PostgreSQL READ COMMITTED, so that what the one before us did is seen.
        """
        try:
            async with self._engine.connect() as connection:
                if self.dialect == "postgresql":
                    await connection.execution_options(isolation_level="READ COMMITTED")
                async with connection.begin():
                    if self.dialect == "postgresql":
                        await _exclude_others(connection)
                    return await connection.run_sync(work)
        except DBAPIError as error:
            raise _translated(error) from error
        except (TimeoutError, OSError) as error:
            raise _down(error) from error

    async def checkpoint(self) -> None:
        """Move SQLite's write-ahead log into the database file; nothing to do elsewhere.

        Never by SQLite itself: its automatic checkpoint starts beside other writers, and a
        version before 3.51.3 can then lose a committed transaction (the "WAL-reset bug" of its
        documentation). TRUNCATE starts under the writer's lock, which excludes that. A reader in
        the way ends the attempt after `CHECKPOINT_MS`; the next one succeeds.
        """
        if self.dialect != "sqlite" or in_memory(self.url):
            return
        async with self._engine.connect() as connection:
            raw = (await connection.get_raw_connection()).driver_connection
            assert raw is not None
            await raw.execute(f"PRAGMA busy_timeout={CHECKPOINT_MS}")
            try:
                await raw.execute_fetchall("PRAGMA wal_checkpoint(TRUNCATE)")
            except sqlite3.OperationalError as error:
                raise _busy(f"the log was not moved: {error}") from error
            finally:
                await raw.execute(f"PRAGMA busy_timeout={int(BUSY_S * 1000)}")

    async def close(self) -> None:
        """Give every connection back."""
        await self._engine.dispose()

    async def create_all(self, metadata: sa.MetaData) -> None:
        """Create the tables without migrations: for tests of single statements."""
        async with self._engine.begin() as connection:
            await connection.run_sync(metadata.create_all)

    async def _run(self, work: Work[T], *, read: bool) -> T:
        for left in reversed(range(TRIES)):
            try:
                return await self._once(work, read=read)
            except DBAPIError as error:
                if not _lost_race(error):
                    raise _translated(error) from error
                if left == 0:
                    raise _busy(f"the transaction lost {TRIES} races in a row") from error
                await asyncio.sleep(random.uniform(0.002, 0.02) * (TRIES - left))
            except sa.exc.TimeoutError as error:
                raise _busy("no connection was free in time") from error
            except (TimeoutError, OSError) as error:
                raise _down(error) from error
        raise AssertionError("the last try either returns or raises")

    async def _once(self, work: Work[T], *, read: bool) -> T:
        async with self._engine.connect() as plain:
            options: dict[str, bool | str] = {"holdfast_read": True} if read else {}
            if read and self.dialect == "postgresql":
                options |= {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
            connection = await plain.execution_options(**options)
            async with connection.begin():
                return await work(connection)


def in_memory(url: str) -> bool:
    """Whether a database lives and dies with its one connection."""
    return url.startswith("sqlite") and ":memory:" in url


def _engine(url: str) -> AsyncEngine:
    if url.startswith("sqlite"):
        size, more = (1, 0) if in_memory(url) else (5, 10)
        engine = create_async_engine(
            url,
            **JSON,
            connect_args={"timeout": BUSY_S},
            poolclass=sa.AsyncAdaptedQueuePool,
            pool_size=size,
            max_overflow=more,
        )
        sa.event.listen(engine.sync_engine, "connect", _prepare_sqlite)
        sa.event.listen(engine.sync_engine, "begin", _begin_sqlite)
        return engine
    return create_async_engine(
        url,
        **JSON,
        isolation_level="SERIALIZABLE",
        pool_size=10,
        max_overflow=10,
        pool_pre_ping=True,
        connect_args={"timeout": 5, "server_settings": {"lock_timeout": "5000"}},
    )


def _prepare_sqlite(raw: sa.engine.interfaces.DBAPIConnection, _record: object) -> None:
    # The driver must not open transactions by itself: it would use a deferred BEGIN, which fails
    # with "database is locked" when a reader becomes a writer.
    raw.isolation_level = None
    cursor = raw.cursor()
    for pragma in PRAGMAS:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: sa.Connection) -> None:
    read = connection.get_execution_options().get("holdfast_read", False)
    connection.exec_driver_sql("BEGIN" if read else "BEGIN IMMEDIATE")


async def _exclude_others(connection: AsyncConnection) -> None:
    await connection.execute(sa.text(f"SET LOCAL lock_timeout = '{ALONE_S}s'"))
    await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(ALONE_KEY)))


def _lost_race(error: DBAPIError) -> bool:
    if isinstance(error, IntegrityError):
        # A unique key taken between look and insert; the next try sees the winner's row.
        return "unique" in str(error.orig).lower()
    state = getattr(error.orig, "sqlstate", None)
    return state in RETRY_STATES or "database is locked" in str(error.orig)


def _translated(error: DBAPIError) -> Exception:
    if error.connection_invalidated or isinstance(error, OperationalError):
        return _down(error)
    state = str(getattr(error.orig, "sqlstate", "") or "")
    return _down(error) if state.startswith(DOWN_STATES) else error


def _down(error: Exception) -> Unavailable:
    cause = getattr(error, "orig", None) or error
    return Unavailable(
        "DATABASE_UNAVAILABLE",
        f"the database does not answer: {str(cause)[:300] or type(cause).__name__}",
        next_step="nothing was changed; try again when the database is back",
    )


def _busy(detail: str) -> Unavailable:
    return Unavailable("DATABASE_BUSY", detail, next_step="try again", tries=TRIES)
