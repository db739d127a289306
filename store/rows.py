"""Small helpers that every family of statements uses."""

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias, TypeVar, cast

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

Row: TypeAlias = dict[str, Any]
T = TypeVar("T")

CHUNK = 400
"""Values in one IN list: below what every database takes as parameters of one statement."""


def in_chunks(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """The values in parts that each fit into one IN list."""
    for start in range(0, len(values), CHUNK):
        yield values[start : start + CHUNK]


async def changed(connection: AsyncConnection, statement: sa.Executable) -> int:
    """Run an INSERT, UPDATE or DELETE; how many rows it touched."""
    result = await connection.execute(statement)
    return cast("sa.CursorResult[Any]", result).rowcount


async def one(connection: AsyncConnection, statement: sa.Select[Any]) -> Row | None:
    """The first row as a dict, or None."""
    row = (await connection.execute(statement)).mappings().first()
    return None if row is None else dict(row)


async def many(connection: AsyncConnection, statement: sa.Select[Any]) -> list[Row]:
    """All rows as dicts."""
    result = await connection.execute(statement)
    names = tuple(result.keys())
    return [dict(zip(names, row, strict=True)) for row in result]


async def number(connection: AsyncConnection, statement: sa.Select[Any]) -> int:
    """One number; 0 for NULL."""
    return int((await connection.execute(statement)).scalar() or 0)
