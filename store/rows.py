"""Small helpers that every family of statements uses."""

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, TypeAlias, TypeVar, cast

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from store.prebuilt import Bound

Row: TypeAlias = dict[str, Any]
T = TypeVar("T")
Statement: TypeAlias = sa.Executable | Bound
"""One built for this run, or one that was built before with this run's values."""

CHUNK = 400
"""Values in one IN list: below what every database takes as parameters of one statement."""


def in_chunks(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """The values in parts that each fit into one IN list."""
    for start in range(0, len(values), CHUNK):
        yield values[start : start + CHUNK]


async def run(connection: AsyncConnection, statement: Statement) -> sa.CursorResult[Any]:
    """Run one statement."""
    if isinstance(statement, Bound):
        result = await connection.execute(statement.statement, statement.values)
    else:
        result = await connection.execute(statement)
    return cast("sa.CursorResult[Any]", result)


async def changed(connection: AsyncConnection, statement: Statement) -> int:
    """Run an INSERT, UPDATE or DELETE; how many rows it touched."""
    return (await run(connection, statement)).rowcount


async def inserted(connection: AsyncConnection, table: sa.Table, values: Row) -> None:
    """Insert one row."""
    await connection.execute(_insert(table), values)


@cache
def _insert(table: sa.Table) -> sa.Insert:
    return table.insert()


async def one(connection: AsyncConnection, statement: Statement) -> Row | None:
    """The first row as a dict, or None."""
    result = await run(connection, statement)
    row = result.first()
    return None if row is None else dict(zip(result.keys(), row, strict=True))


async def many(connection: AsyncConnection, statement: Statement) -> list[Row]:
    """All rows as dicts."""
    result = await run(connection, statement)
    names = tuple(result.keys())
    return [dict(zip(names, row, strict=True)) for row in result]


async def number(connection: AsyncConnection, statement: Statement) -> int:
    """One number; 0 for NULL."""
    return int((await run(connection, statement)).scalar() or 0)
