"""The engine's way to its database in a simulation: SQLAlchemy without greenlets.

The store asks for an `AsyncEngine`. With an SQLite that answers at once, all that makes one
asynchronous is wasted, and it takes longer than the statements. Here the same statements go, by the
same rules for transactions (`store.dialects`), through the synchronous engine that every
asynchronous one is built on.
"""

import asyncio
import sqlite3
from collections import Counter
from collections.abc import Callable, Generator, Iterable
from functools import cached_property
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.util import greenlet_spawn

from simulator.direct import Direct, run, run_many
from store.dialects import make_engine
from store.inline_sqlite import URL, Gate, SharedMemory

WRITING = {"INSERT": 2, "UPDATE": 1, "DELETE": 2}
"""Which word of a statement names its table; no rule of the schema changes another one along."""


class Board:
    """Connects every simulated process to the memory that is plugged in, one at a time.

    One engine serves them all, since SQLAlchemy compiles a statement once for each engine, which
    takes longer than running it.
    """

    def __init__(self) -> None:
        self._memory: SharedMemory | None = None
        self._gate: Gate = _open
        self._written: Counter[str] = Counter()
        self.holder: Plain | None = None  # whose transaction is open

    @cached_property
    def engine(self) -> AsyncEngine:
        """For `Database(URL, engine)`."""
        made = make_engine(URL, opener=_never).sync_engine
        sa.event.listen(made, "do_connect", lambda *_: Plain(self))
        return cast("AsyncEngine", Engine(made))

    @property
    def raw(self) -> sqlite3.Connection:
        """The connection that is plugged in."""
        if self._memory is None:
            raise sqlite3.OperationalError("no database is plugged in")
        return self._memory.raw

    def plug_in(self, memory: SharedMemory, gate: Gate) -> None:
        """From now on, statements go there, each past `gate`."""
        self._memory, self._gate, self.holder = memory, gate, None

    def pull_out(self) -> None:
        """Statements go nowhere any more."""
        self._memory, self._gate, self.holder = None, _open, None

    def abandon(self) -> None:
        """Undo whatever transaction is open: its process is dead."""
        if self._memory is not None and self.raw.in_transaction:
            self.raw.execute("ROLLBACK")
        self.holder = None

    def is_open_for(self, connection: "Plain") -> bool:
        """Whether a transaction is open, and this connection's own.

        One that was given up by a dead process may be collected in the middle of another's.
        """
        held = self.holder is connection and self._memory is not None
        return held and self.raw.in_transaction

    def let(self, statement: str) -> None:
        """Ask the gate; a connection that is prepared for use is nobody's statement."""
        if not statement.startswith("PRAGMA"):
            self._gate(statement)

    def wrote(self, statement: str) -> None:
        """Note which table a statement changes."""
        word = WRITING.get(statement[:6])
        if word is not None:
            self._written[statement.split(None, 3)[word]] += 1

    def changes(self, tables: Iterable[str]) -> tuple[int, ...]:
        """How often rows of these tables may have changed so far."""
        return tuple(self._written[table] for table in tables)

    def any(self, query: str) -> bool:
        """Whether a query finds a row, past every process and gate."""
        return self.raw.execute(query).fetchone() is not None


def _open(_statement: str) -> None:
    return


async def _never(*_arguments: Any, **_named: Any) -> Any:
    raise AssertionError("a simulation has no asynchronous connections")


class Engine:
    """What `Database` uses of an `AsyncEngine`."""

    def __init__(self, sync_engine: sa.Engine) -> None:
        self.sync_engine = sync_engine
        self.dialect = sync_engine.dialect
        self.idle: list[Connection] = []
        self._direct = Direct(self.dialect)

    def connect(self) -> "Checkout":
        """A connection for the length of a block."""
        return Checkout(self)

    async def opened(self) -> "Connection":
        """A new connection."""
        # The first use of an asynchronous engine's pool wants to wait for a lock.
        return Connection(await greenlet_spawn(self.sync_engine.connect), self._direct)


class Checkout:
    """Gives a connection out, and takes it back with nothing open on it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._out: Connection | None = None

    async def __aenter__(self) -> AsyncConnection:
        idle = self._engine.idle
        self._out = idle.pop() if idle else await self._engine.opened()
        return cast("AsyncConnection", self._out)

    async def __aexit__(self, kind: object, *_error: object) -> None:
        assert self._out is not None
        sync = self._out.sync_connection
        if not (sync.closed or sync.invalidated):
            if sync.in_transaction():
                sync.rollback()
            if kind is not None:
                sync.connection.rollback()  # where the commit failed, SQLAlchemy does not
            self._engine.idle.append(self._out)
        # As with an asynchronous connection, others come between a commit and whoever asked for
        # it: a process may die before it knows that its change was written.
        await asyncio.sleep(0)


class Connection:
    """What the store and the engine use of an `AsyncConnection`."""

    def __init__(self, sync_connection: sa.Connection, direct: Direct) -> None:
        self.sync_connection = sync_connection
        self.dialect = sync_connection.dialect
        self._direct = direct

    async def execute(self, statement: Any, values: Any = None) -> Any:
        """Run one statement, once or for each of several rows."""
        if type(values) is dict and (ready := self._direct.ready(statement, values)) is not None:
            return run(self.sync_connection, ready, values)
        return self.sync_connection.execute(statement, values)

    async def exec_driver_sql(self, statement: str, values: Any = None) -> Any:
        """Run one statement as it is."""
        if isinstance(values, list):
            return run_many(self.sync_connection, statement, values)
        return self.sync_connection.exec_driver_sql(statement, values)

    async def execution_options(self, **options: Any) -> "Connection":
        """What the connection has to know from now on."""
        self.sync_connection.execution_options(**options)
        return self

    def begin(self) -> "Transaction":
        """A transaction."""
        return Transaction(self.sync_connection.begin)

    def begin_nested(self) -> "Transaction":
        """A savepoint."""
        return Transaction(self.sync_connection.begin_nested)


class Transaction:
    """What is used of an `AsyncTransaction`: awaited, or as a block that commits or rolls back."""

    def __init__(self, begin: Callable[[], sa.Transaction]) -> None:
        self._begin = begin
        self._open: sa.Transaction | None = None

    async def __aenter__(self) -> "Transaction":
        self._open = self._begin()
        return self

    async def __aexit__(self, *error: Any) -> None:
        assert self._open is not None
        self._open.__exit__(*error)

    def __await__(self) -> Generator[Any, None, "Transaction"]:
        return self.__aenter__().__await__()

    async def rollback(self) -> None:
        """Undo it."""
        assert self._open is not None
        self._open.rollback()

    async def commit(self) -> None:
        """Keep it."""
        assert self._open is not None
        self._open.commit()


class Plain:
    """One connection as a DBAPI has it, to whatever is plugged in; each statement past the gate."""

    isolation_level = None

    def __init__(self, board: Board) -> None:
        self._board = board

    def cursor(self) -> "Cursor":
        """A cursor, not used yet."""
        return Cursor(self._board, self)

    def create_function(self, *arguments: Any, **named: Any) -> None:
        """Make a function known to SQL."""
        self._board.raw.create_function(*arguments, **named)

    def commit(self) -> None:
        """End its transaction, if there is one."""
        if self._board.is_open_for(self):
            self._board.let("COMMIT")
            self._board.raw.execute("COMMIT")

    def rollback(self) -> None:
        """Undo its transaction, if there is one; nothing can stand in the way of that."""
        if self._board.is_open_for(self):
            self._board.raw.execute("ROLLBACK")

    close = terminate = rollback
    """The database stays for the other connections; what was open is undone."""


class Cursor:
    """A cursor as a DBAPI has it."""

    def __init__(self, board: Board, connection: Plain) -> None:
        self._cursor: sqlite3.Cursor = board.raw.cursor()
        self._board = board
        self._connection = connection
        self.fetchone = self._cursor.fetchone
        self.fetchmany = self._cursor.fetchmany
        self.fetchall = self._cursor.fetchall
        self.close = self._cursor.close

    @property
    def description(self) -> Any:
        """Of the last statement's columns."""
        return self._cursor.description

    @property
    def rowcount(self) -> int:
        """How many rows the last statement changed."""
        return self._cursor.rowcount

    @property
    def lastrowid(self) -> int | None:
        """Of the last row that was inserted."""
        return self._cursor.lastrowid

    def execute(self, statement: str, values: Any = ()) -> None:
        """Run one statement."""
        self._board.let(statement)
        self._board.wrote(statement)
        self._cursor.execute(statement, values)
        if statement.startswith("BEGIN"):
            self._board.holder = self._connection

    def executemany(self, statement: str, rows: Any) -> None:
        """Run one statement for each row."""
        self._board.let(statement)
        self._board.wrote(statement)
        self._cursor.executemany(statement, rows)
