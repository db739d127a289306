"""The databases that are measured: an SQLite file, and a private PostgreSQL as the tests have it.

The private server keeps its files in memory and syncs nothing, so figures of the two kinds are not
to be compared with each other: what is compared is always measured on one of them in one run.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from store.database import Database
from store.migrate import upgrade
from tests.store.postgres import Cluster, programs

KINDS = ("SQLite", "PostgreSQL")


@asynccontextmanager
async def measured(kind: str, file: Path) -> AsyncIterator[Database | None]:
    """A migrated database without rows; None where its server is not installed."""
    if kind == "SQLite":
        async with _opened(await asyncio.to_thread(url_of_new, file)) as database:
            yield database
        return
    where = programs()
    if where is None:
        yield None
        return
    cluster = await asyncio.to_thread(Cluster, where)
    try:
        await asyncio.to_thread(cluster.start)
        async with _opened(cluster.url("postgres")) as database:
            yield database
    finally:
        await asyncio.to_thread(cluster.remove)


@asynccontextmanager
async def _opened(url: str) -> AsyncIterator[Database]:
    await upgrade(url)
    database = Database(url)
    try:
        yield database
    finally:
        await database.close()


def url_of_new(file: Path) -> str:
    """The address of an SQLite file that is not there any more."""
    file.parent.mkdir(parents=True, exist_ok=True)
    for old in file.parent.glob(f"{file.name}*"):
        old.unlink()
    return f"sqlite+aiosqlite:///{file.absolute()}"


async def settle(database: Database) -> None:
    """Let the server count what was written, as its autovacuum (off here) would have done."""

    async def analyse(connection: AsyncConnection) -> None:
        await connection.execute(sa.text("ANALYZE"))

    if database.dialect == "postgresql":
        await database.write(analyse)
    await database.checkpoint()
