"""Small helpers that every family of statements uses."""

from typing import Any, TypeAlias, cast

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

Row: TypeAlias = dict[str, Any]


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
