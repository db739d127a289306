"""Statements that were built once, run in a simulation straight on its connection.

SQLAlchemy compiles them, says how their values are made ready and what their columns are; all this
is kept, since it is the same at each run. Its own way around a run (an execution context, events, a
result with all that one may ask of it) takes several times as long as SQLite does, and a simulation
does little else. Errors are SQLAlchemy's, and doom the transaction as they do there.

Invariants  The same seed gives the same trace with and without this way: `tests/simulator/
            test_direct.py` plays both.
"""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Dialect

from store import dialects

Process = Callable[[Any], Any]
Values = dict[str, Any]
Found = tuple[Any, ...]
Key = tuple[sa.Executable, tuple[str, ...] | None, tuple[int, ...]]

UUIDS = 65_536
"""How many texts are remembered as the UUID that they are: the rows of one simulation have a few
thousand, each read hundreds of times."""


class Place(NamedTuple):
    """One parameter: whose value, which of a list's, what makes it ready; or a value of its own."""

    name: str
    item: int | None
    process: Process | None
    given: Any


class Ready(NamedTuple):
    """A statement as the connection takes it, and what its rows are made of."""

    text: str
    places: tuple[Place, ...]
    names: tuple[str, ...]
    converted: tuple[tuple[int, Process], ...]
    changes: bool


class Direct:
    """Keeps what is ready: by statement, the columns of an INSERT, and the lengths of lists."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._ready: dict[Key, Ready | None] = {}

    def ready(self, statement: Any, values: Values) -> Ready | None:
        """How to run it; None where SQLAlchemy itself has to add values, or knows no columns."""
        columns = tuple(values) if statement.is_insert else None
        lengths = tuple([len(v) for v in values.values() if isinstance(v, (list, tuple))])
        key = (statement, columns, () if columns else lengths)
        if key not in self._ready:
            self._ready[key] = self._compiled(statement, columns, values)
        return self._ready[key]

    def _compiled(
        self, statement: Any, columns: tuple[str, ...] | None, values: Values
    ) -> Ready | None:
        if not isinstance(statement, sa.sql.selectable.ReturnsRows):
            return None
        compiled = statement.compile(
            dialect=self._dialect, column_keys=None if columns is None else list(columns)
        )
        if compiled.insert_prefetch or compiled.update_prefetch:
            return None
        found = list(statement.exported_columns)
        results = [self._result(column.type) for column in found]
        text, places = self._places(compiled, values)
        return Ready(
            text,
            places,
            tuple(column.name for column in found),
            tuple((at, process) for at, process in enumerate(results) if process is not None),
            bool(compiled.isinsert or compiled.isupdate or compiled.isdelete),
        )

    def _result(self, kind: sa.types.TypeEngine[Any]) -> Process | None:
        made: Process | None = kind.dialect_impl(self._dialect).result_processor(
            self._dialect, None
        )
        return lru_cache(UUIDS)(made) if made is not None and isinstance(kind, sa.Uuid) else made

    def _places(self, compiled: Any, values: Values) -> tuple[str, tuple[Place, ...]]:
        # What is not given at each run has its value in the statement.
        given = {name: bind.value for name, bind in compiled.binds.items() if name not in values}
        listed = compiled.construct_expanded_state(values)
        item = {
            name: (source, at)
            for source, names in listed.parameter_expansion.items()
            for at, name in enumerate(names)
        }
        places = []
        for name in listed.positiontup:
            source, at = item.get(name, (name, None))
            kind = compiled.binds[source].type.dialect_impl(self._dialect)
            process = kind.bind_processor(self._dialect)
            places.append(Place(source, at, process, given.get(source)))
        return listed.statement, tuple(places)


class Result:
    """What the store asks of a result."""

    __slots__ = ("_names", "_rows", "rowcount")

    def __init__(self, names: tuple[str, ...], rows: list[Found], rowcount: int) -> None:
        self._names, self._rows, self.rowcount = names, rows, rowcount

    def keys(self) -> tuple[str, ...]:
        """The names of the columns."""
        return self._names

    def first(self) -> Found | None:
        """The first row."""
        return self._rows[0] if self._rows else None

    def scalar(self) -> Any:
        """The first value of the first row; None without rows."""
        return self._rows[0][0] if self._rows else None

    def __iter__(self) -> Iterator[Found]:
        return iter(self._rows)


def run(connection: sa.Connection, ready: Ready, values: Values) -> Result:
    """Run it in the connection's transaction, begun here if this is its first statement."""
    sent = []
    for name, item, process, given in ready.places:
        value = values.get(name, given)
        value = value if item is None else value[item]
        sent.append(value if process is None else process(value))
    with _cursor(connection, ready.text, sent, changes=ready.changes) as cursor:
        cursor.execute(ready.text, sent)
        rows = cursor.fetchall() if ready.names else []
    if ready.converted:
        rows = [_converted(row, ready.converted) for row in rows]
    return Result(ready.names, rows, cursor.rowcount)


def run_many(connection: sa.Connection, text: str, rows: Sequence[Sequence[Any]]) -> None:
    """Run an INSERT or UPDATE for each row of values that are ready."""
    with _cursor(connection, text, rows, changes=True) as cursor:
        cursor.executemany(text, rows)


def _converted(row: Found, processes: tuple[tuple[int, Process], ...]) -> Found:
    values = list(row)
    for at, process in processes:
        values[at] = process(values[at])
    return tuple(values)


@contextmanager
def _cursor(connection: sa.Connection, text: str, sent: Any, *, changes: bool) -> Iterator[Any]:
    unit = dialects.unit_on(connection)
    begins = unit is not None and dialects.begins(unit, text, changes=changes)
    cursor: Any = connection.connection.cursor()
    try:
        if unit is not None and begins:
            cursor.execute("BEGIN IMMEDIATE")
            unit.begun = True
        yield cursor
    except sqlite3.Error as error:
        dialect = connection.dialect
        meant = sa.exc.DBAPIError.instance(text, sent, error, sqlite3.Error, dialect=dialect)
        if unit is not None and not connection.in_nested_transaction():
            unit.doom(meant)
        raise meant from error
