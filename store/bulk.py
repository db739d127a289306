"""Many rows in one statement."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from store.rows import Row


async def insert_many(connection: AsyncConnection, table: sa.Table, rows: Sequence[Row]) -> None:
    """Insert rows that all name the same columns; none is fine."""
    if rows:
        await connection.execute(table.insert(), list(rows))


async def update_many(
    connection: AsyncConnection, statement: sa.Update, values: Sequence[dict[str, Any]]
) -> None:
    """Run one prepared UPDATE for each set of bound values; none is fine."""
    if values:
        await connection.execute(statement, list(values))
