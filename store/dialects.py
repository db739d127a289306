"""What differs between SQLite, PostgreSQL and MariaDB: connecting and beginning.

Nothing else in the engine names a database; what their errors mean is told in `store.failures`.
Writing transactions are SERIALIZABLE on the servers. On SQLite they take the one writer's lock with
their first statement (`BEGIN IMMEDIATE`), so that the second writer waits for the first instead of
failing in the middle. A reading transaction sees one moment, and its statements are checked before
they leave: it cannot write on any database.
"""

import asyncio
import logging
import os
import random
import socket
import sqlite3
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pydantic_core
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.util import await_only

from domain.errors import Invalid
from store import server_links
from store.failures import CHECK_FAILED, busy, number, read_only
from store.server_links import CONNECT_S, STATEMENT_S
from store.sqlite_threads import SqliteThreads
from store.unit_of_work import UNIT, NoUnitOpen, UnitOfWork

BUSY_S = 30.0
"""How long SQLite waits for the other writer."""

LOCK_S = 5
"""How long a statement waits for a row that another transaction holds, on the servers."""

INNER_LOCK_S = 1
"""The same for a transaction inside a suspended one, which may be what it waits for."""

INNER_POOL = 5
"""Connections for transactions inside suspended ones; outers cannot use them up."""

IDLE_S = 60
"""How long a server lets a transaction stand in which nothing is asked for. Higher: a process that
was paused, or whose machine has lost its power, keeps others from what it had locked. Lower: a
decision that takes long loses its transaction."""

DEAD_S = 20
"""How long a server's machine may give no sign of life. Higher: one that lost its power, or is
parted from us, is waited for longer. Lower: a network that stutters costs every connection."""

PRAGMAS = ("synchronous=NORMAL", "foreign_keys=ON", "wal_autocheckpoint=0")
"""No automatic checkpoints: see `Database.checkpoint`."""

JSON: dict[str, Any] = {
    "json_serializer": lambda value: pydantic_core.to_json(value).decode(),
    "json_deserializer": pydantic_core.from_json,
}
"""Several times quicker than the standard library's: a monitor writes much JSON each round."""

ALONE_S = 60
"""How long a migration waits for another process's migration on a server."""

ALONE_KEY = 0x686F6C64
"""The advisory lock of migrations; any fixed number that no other program uses will do."""

COLLATION = "utf8mb4_nopad_bin"
"""MariaDB compares texts byte by byte, as the others do: no case, accent or blank is overlooked."""

SQL_MODE = "STRICT_ALL_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE,ERROR_FOR_DIVISION_BY_ZERO"
"""MariaDB refuses what does not fit instead of cutting it off, whatever its settings say."""

Opener = Callable[..., Awaitable[Any]]
"""Opens one connection of SQLite, given what the driver's own `connect` takes."""

DRIVERS = ("sqlite+aiosqlite", "postgresql+asyncpg", "mariadb+asyncmy", "mysql+asyncmy")
"""How the addresses begin that this engine can use."""


def in_memory(url: str) -> bool:
    """Whether a database lives and dies with its one connection."""
    return url.startswith("sqlite") and ":memory:" in url


def missing_file(url: str) -> bool:
    """Whether `url` names an SQLite file that is not there; opening it would make an empty one."""
    address = sa.make_url(url)
    if not url.startswith("sqlite") or in_memory(url) or not address.database:
        return False
    return not Path(address.database).exists()


def check_url(url: str) -> None:
    """Invalid when `url` is no address of a database we know; it may hold a password: not shown."""
    try:
        given = sa.make_url(url).drivername
    except sa.exc.ArgumentError:
        given = "nothing readable"
    if given not in DRIVERS:
        raise Invalid(
            "DATABASE_URL_INVALID",
            f"the database's address begins with {given}, not with one of {', '.join(DRIVERS)}",
            next_step="correct it, for example sqlite+aiosqlite:////var/lib/holdfast/holdfast.db",
        )


def dialect_name(engine: AsyncEngine) -> str:
    """`sqlite`, `postgresql` or `mariadb`, also for MariaDB under a `mysql+` address."""
    name = engine.dialect.name
    return "mariadb" if name == "mysql" else name


def make_engine(
    url: str,
    *,
    inner: bool = False,
    opener: Opener | None = None,
    statement_s: float | None = STATEMENT_S,
) -> AsyncEngine:
    """Connections to `url`; `inner`: the second, smaller pool, for transactions inside others.

    `opener` opens SQLite's connections in the driver's place. `statement_s`: how long a server's
    answer to a statement is waited for; None: for ever. Invalid (DATABASE_URL_INVALID) for another
    kind of database; nothing is connected yet.
    """
    check_url(url)
    if url.startswith("sqlite"):
        return _sqlite(url, inner=inner, opener=opener)
    pool = {"pool_size": 1, "max_overflow": INNER_POOL - 1} if inner else {"pool_size": 10}
    lock_s = INNER_LOCK_S if inner else LOCK_S
    mine = url.startswith(("mariadb", "mysql"))
    engine = create_async_engine(
        url,
        **JSON,
        **pool,
        isolation_level="SERIALIZABLE",
        pool_pre_ping=True,
        connect_args=(_mariadb_arguments if mine else _postgres_arguments)(lock_s, statement_s),
    )
    if mine:
        # It repeats each of the server's notes as a warning, such as "name ignored for PRIMARY".
        logging.getLogger("asyncmy").setLevel(logging.ERROR)
        sa.event.listen(engine.sync_engine, "begin", _begin_mariadb)
    sa.event.listen(engine.sync_engine, "connect", _notice_death)
    server_links.watch(engine)
    return _watched(engine)


def options(engine: AsyncEngine, unit: UnitOfWork) -> dict[str, Any]:
    """What a connection has to know about the transaction that is about to begin on it."""
    if unit.read and engine.dialect.name == "postgresql":
        only = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        return {UNIT: unit} | only
    return {UNIT: unit}


def unit_of(connection: AsyncConnection) -> UnitOfWork:
    """The unit that `connection` serves; `NoUnitOpen` outside of one."""
    found = None if connection.sync_connection is None else unit_on(connection.sync_connection)
    if found is None or found.closed:
        raise NoUnitOpen("this connection serves no open transaction")
    return found


async def exclude_others(connection: AsyncConnection, dialect: str) -> None:
    """Wait until no other migration runs; the lock ends with the transaction or `include_others`.

    Unavailable (DATABASE_BUSY) when another one takes longer than `ALONE_S`.
    """
    if dialect == "postgresql":
        await connection.execute(sa.text(f"SET LOCAL lock_timeout = '{ALONE_S}s'"))
        await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(ALONE_KEY)))
    if dialect == "mariadb":
        lock = sa.select(sa.func.get_lock(_alone_name(), ALONE_S))
        if (await connection.execute(lock)).scalar() != 1:
            raise busy(f"another migration has been running for {ALONE_S} s")


async def include_others(connection: AsyncConnection, dialect: str) -> None:
    """Give the lock of `exclude_others` back where it outlives the transaction (MariaDB)."""
    if dialect == "mariadb":
        await connection.execute(sa.select(sa.func.release_lock(_alone_name())))


def prepare(connection: sa.Connection) -> None:
    """Before the first table is made: new tables of MariaDB compare texts as `COLLATION` says."""
    if connection.dialect.name in ("mariadb", "mysql"):
        found = connection.exec_driver_sql("SELECT @@collation_database").scalar()
        if found != COLLATION:
            change = f"ALTER DATABASE CHARACTER SET utf8mb4 COLLATE {COLLATION}"
            connection.exec_driver_sql(change)


def _sqlite(url: str, *, inner: bool, opener: Opener | None) -> AsyncEngine:
    size, more = (1, 0) if in_memory(url) else (1, INNER_POOL - 1) if inner else (5, 10)
    if opener is not None:
        size = 0  # as many as are asked for: whoever opens them sees to their order
    threads = SqliteThreads()
    engine = create_async_engine(
        url,
        **JSON,
        connect_args={"timeout": BUSY_S, "async_creator_fn": opener or threads.open},
        poolclass=sa.AsyncAdaptedQueuePool,
        pool_size=size,
        max_overflow=more,
    )
    sa.event.listen(engine.sync_engine, "do_connect", _make_private)
    sa.event.listen(engine.sync_engine, "connect", _prepare_sqlite)
    sa.event.listen(engine.sync_engine, "begin", _begin_sqlite)
    sa.event.listen(engine.sync_engine, "engine_disposed", lambda _: await_only(threads.ended()))
    return _watched(engine)


def _watched(engine: AsyncEngine) -> AsyncEngine:
    sa.event.listen(engine.sync_engine, "before_cursor_execute", _before_statement)
    sa.event.listen(engine.sync_engine, "handle_error", _after_error)
    return engine


def _notice_death(raw: Any, _record: object) -> None:
    """Let the kernel end a connection whose other end is gone: nobody else would ever tell."""
    plug = raw.driver_connection._transport.get_extra_info("socket")
    if plug is None or plug.family == socket.AF_UNIX:
        return
    plug.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    plug.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, DEAD_S // 2)
    plug.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, DEAD_S // 4)
    plug.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 2)
    plug.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * DEAD_S)


async def may_idle(connection: AsyncConnection) -> None:
    """Let this connection's transaction stand for as long as it likes: it copies a database."""
    if connection.dialect.name == "postgresql":
        await connection.execute(sa.text("SET LOCAL idle_in_transaction_session_timeout = 0"))
    elif connection.dialect.name != "sqlite":
        await connection.execute(sa.text("SET SESSION idle_transaction_timeout = 0"))


def _postgres_arguments(lock_s: int, statement_s: float | None) -> dict[str, Any]:
    settings = {
        "lock_timeout": f"{lock_s}s",
        "idle_in_transaction_session_timeout": f"{IDLE_S}s",
        "tcp_keepalives_idle": str(DEAD_S // 2),
        "tcp_keepalives_interval": str(DEAD_S // 4),
        "tcp_keepalives_count": "2",
        "tcp_user_timeout": f"{DEAD_S}s",
    }
    return {
        "timeout": CONNECT_S,
        "command_timeout": statement_s,
        "server_settings": settings,
        "connection_class": server_links.PostgresLink,
    }


def _mariadb_arguments(lock_s: int, statement_s: float | None) -> dict[str, Any]:
    from store.mariadb_link import open_mariadb

    settings = f"innodb_lock_wait_timeout={lock_s}, sql_mode='{SQL_MODE}', time_zone='+00:00'"
    settings += f", idle_transaction_timeout={IDLE_S}"
    names = f"SET NAMES utf8mb4 COLLATE {COLLATION}"
    return {
        "async_creator_fn": open_mariadb,
        "statement_s": statement_s,
        "charset": "utf8mb4",
        "init_command": f"{names}, SESSION {settings}",
    }


def _make_private(
    _dialect: object, _record: object, arguments: list[Any], named: dict[str, Any]
) -> None:
    # SQLite would make a new file readable to all, and gives its journals the mode of the file.
    path = str(arguments[0])
    if path == ":memory:" or named.get("uri"):
        return
    with suppress(OSError):  # It is there already, or SQLite itself tells why it cannot be.
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


def _prepare_sqlite(raw: sa.engine.interfaces.DBAPIConnection, _record: object) -> None:
    # The driver must not open transactions by itself: it would use a deferred BEGIN, which fails
    # with "database is locked" when a reader becomes a writer.
    raw.isolation_level = None
    cursor = raw.cursor()
    _switch_to_wal(cursor)
    for pragma in PRAGMAS:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _switch_to_wal(cursor: sa.engine.interfaces.DBAPICursor) -> None:
    # Several processes may open a new file at once. SQLite does not wait for the one that is
    # switching it over, whatever its time-out: it says "locked" at once.
    deadline = time.monotonic() + BUSY_S
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            await_only(asyncio.sleep(random.uniform(0.002, 0.02)))
        else:
            return


def _begin_sqlite(connection: sa.Connection) -> None:
    unit = unit_on(connection)
    if unit is None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    elif unit.read:
        connection.exec_driver_sql("BEGIN")


def _begin_mariadb(connection: sa.Connection) -> None:
    unit = unit_on(connection)
    if unit is not None and unit.read:
        once = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"
        connection.exec_driver_sql(once)


def _before_statement(
    connection: sa.Connection,
    _cursor: object,
    statement: str,
    _values: object,
    context: Any,
    *_: Any,
) -> None:
    unit = unit_on(connection)
    changes = context is not None and (context.isinsert or context.isupdate or context.isdelete)
    if unit is not None and begins(unit, statement, changes=changes):
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        unit.begun = True


def begins(unit: UnitOfWork, statement: str, *, changes: bool) -> bool:
    """Whether a writing transaction begins with this statement; a reading one refuses changes."""
    if unit.read:
        if changes:
            raise read_only(statement)
        return False
    return not unit.begun and statement != "BEGIN IMMEDIATE"


def _unanswered(context: sa.engine.ExceptionContext) -> TimeoutError | None:
    # PostgreSQL's driver tells it by this error without a word; the connection is dropped already.
    silent = isinstance(context.original_exception, TimeoutError)
    return TimeoutError("a statement got no answer in time") if silent else None


def _after_error(context: sa.engine.ExceptionContext) -> BaseException | None:
    # A database may have ended the transaction with the statement (PostgreSQL does, and answers
    # a COMMIT of it without an error), so whoever swallows the error must not go on to commit.
    error = _broken_rule(context) or _unanswered(context) or context.sqlalchemy_exception
    connection = context.connection
    unit = None if connection is None else unit_on(connection)
    if connection is not None and unit is not None and not connection.in_nested_transaction():
        unit.doom(error or context.original_exception)
    return error


def _broken_rule(context: sa.engine.ExceptionContext) -> IntegrityError | None:
    # To MariaDB's drivers a violated CHECK is an operational error.
    error = context.sqlalchemy_exception
    if isinstance(error, DBAPIError) and number(error) == CHECK_FAILED:
        assert error.orig is not None
        return IntegrityError(error.statement, error.params, error.orig)
    return None


def unit_on(connection: sa.Connection) -> UnitOfWork | None:
    """The unit whose transaction this connection carries."""
    found: UnitOfWork | None = connection.get_execution_options().get(UNIT)
    return found


def _alone_name() -> sa.ColumnElement[str]:
    # Locks of that kind belong to the server; each database of it gets its own.
    return sa.func.concat(sa.func.database(), f".{ALONE_KEY:x}")
