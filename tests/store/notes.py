"""A table of one column, for tests of what is written and what is not."""

from collections.abc import Awaitable, Callable
from functools import partial

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from store.database import Database

NOTE = sa.table("note", sa.column("text"))

Notes = Callable[[], Awaitable[list[str]]]
"""What stands in the table now, read past any open transaction."""


async def create_notes(database: Database) -> Notes:
    """Create the table, empty; how to look into it."""

    def create(connection: sa.Connection) -> None:
        connection.exec_driver_sql("CREATE TABLE IF NOT EXISTS note (text VARCHAR(64) PRIMARY KEY)")
        connection.exec_driver_sql("DELETE FROM note")

    await database.alone(create)

    async def found(connection: AsyncConnection) -> list[str]:
        return sorted((await connection.execute(sa.select(NOTE.c.text))).scalars())

    return lambda: database.suppress(lambda: database.read(found))


async def note(connection: AsyncConnection, text: str) -> None:
    """Write one note."""
    await connection.execute(NOTE.insert().values(text=text))


def writing(text: str) -> Callable[[AsyncConnection], Awaitable[None]]:
    """The work of a transaction that writes one note."""
    return partial(note, text=text)


async def fail(_connection: AsyncConnection) -> None:
    """The work of a transaction that fails."""
    raise LookupError("the inner part failed")
