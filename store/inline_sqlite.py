"""An SQLite driver that runs each statement where it is asked for, on no thread of its own.

The store's usual driver hands every statement to a thread, so that the order of events depends on
the machine. Here a transaction runs to its end before anything else goes on, and the same requests
give the same order each time: for simulations. Any number of connections share one database in
memory; since transactions do not overlap, none sees another's half-done work.
"""

import sqlite3
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from store.dialects import PRAGMAS, make_engine

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


class Switchboard:
    """Connects whoever asks to the memory that is plugged in: one engine serves many databases.

    SQLAlchemy compiles a statement once for each engine, which takes longer than running it.
    """

    def __init__(self) -> None:
        self._memory: SharedMemory | None = None
        self._gate: Gate = _open
        self.holder: InlineConnection | None = None  # whose transaction is open

    @cached_property
    def engine(self) -> AsyncEngine:
        """For `Database(URL, engine)`."""
        return make_engine(URL, opener=self._connect)

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

    def is_open_for(self, connection: "InlineConnection") -> bool:
        """Whether a transaction is open, and this connection's own.

        One that was given up by a dead process may be collected in the middle of another's.
        """
        held = self.holder is connection and self._memory is not None
        return held and self.raw.in_transaction

    @property
    def raw(self) -> sqlite3.Connection:
        """The connection that is plugged in."""
        if self._memory is None:
            raise sqlite3.OperationalError("no database is plugged in")
        return self._memory.raw

    def let(self, statement: str) -> None:
        """Ask the gate."""
        self._gate(statement)

    async def _connect(self, *_arguments: Any, **_named: Any) -> "InlineConnection":
        return InlineConnection(self)


def _open(_statement: str) -> None:
    return


class InlineConnection:
    """What SQLAlchemy uses of `aiosqlite.Connection`."""

    isolation_level = None

    def __init__(self, board: Switchboard) -> None:
        self._board = board

    @property
    def _connection(self) -> sqlite3.Connection:
        return self._board.raw

    @property
    def _conn(self) -> "InlineConnection":
        return self

    @property
    def _tx(self) -> "InlineConnection":
        return self

    def put_nowait(self, work: tuple[Any, Callable[[], Any]]) -> None:
        """Do what SQLAlchemy would hand to the driver's thread."""
        future, function = work
        future.set_result(function())

    def cursor(self) -> "InlineCursor":
        """A cursor, not used yet."""
        return InlineCursor(self._board, self)

    async def create_function(self, *arguments: Any, **named: Any) -> None:
        """Make a function known to SQL."""
        self._board.raw.create_function(*arguments, **named)

    async def commit(self) -> None:
        """End its transaction, if there is one."""
        if self._board.is_open_for(self):
            self._board.let("COMMIT")
            self._board.raw.execute("COMMIT")

    async def rollback(self) -> None:
        """Undo its transaction, if there is one; nothing can stand in the way of that."""
        self.stop()

    async def close(self) -> None:
        """The database stays for the other connections; what was open is undone."""
        await self.rollback()

    def stop(self) -> None:
        """As `close`, for a connection that is given up, perhaps long after its database."""
        if self._board.is_open_for(self):
            self._board.raw.execute("ROLLBACK")


class InlineCursor:
    """What SQLAlchemy uses of `aiosqlite.Cursor`."""

    def __init__(self, board: Switchboard, connection: InlineConnection) -> None:
        self._cursor = board.raw.cursor()
        self._board = board
        self._connection = connection

    async def __aenter__(self) -> "InlineCursor":
        return self

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

    async def execute(self, statement: str, values: Sequence[Any] = ()) -> "InlineCursor":
        """Run one statement."""
        self._board.let(statement)
        self._cursor.execute(statement, values)
        if statement.startswith("BEGIN"):
            self._board.holder = self._connection
        return self

    async def executemany(self, statement: str, rows: Sequence[Sequence[Any]]) -> "InlineCursor":
        """Run one statement for each row."""
        self._board.let(statement)
        self._cursor.executemany(statement, rows)
        return self

    async def fetchall(self) -> list[Any]:
        """Every row."""
        return self._cursor.fetchall()

    async def close(self) -> None:
        """Not to be used any more."""
        self._cursor.close()
