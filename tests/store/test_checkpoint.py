"""SQLite's log is moved by `Database.checkpoint` alone, never by SQLite itself."""

from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.errors import Unavailable
from store.database import Database

pytestmark = pytest.mark.store

PAGES_BY_DEFAULT = 1000
"""After so many pages SQLite would begin a checkpoint of its own."""


@pytest.fixture
async def database(tmp_path: Path):  # type: ignore[no-untyped-def]
    found = Database(f"sqlite+aiosqlite:///{tmp_path}/one.db")
    yield found
    await found.close()


async def fill(database: Database) -> None:
    """Write three times as many pages as SQLite would wait for."""

    async def work(connection: AsyncConnection) -> None:
        await connection.execute(sa.text("CREATE TABLE IF NOT EXISTS filler (x BLOB)"))
        row = "INSERT INTO filler VALUES (zeroblob(:size))"
        await connection.execute(sa.text(row), {"size": 4096 * PAGES_BY_DEFAULT})

    for _ in range(3):
        await database.write(work)


def log_bytes(tmp_path: Path) -> int:
    return (tmp_path / "one.db-wal").stat().st_size


async def test_a_long_log_is_not_moved_by_a_commit(database: Database, tmp_path: Path) -> None:
    await fill(database)
    assert log_bytes(tmp_path) > 3 * 4096 * PAGES_BY_DEFAULT


async def test_a_checkpoint_empties_the_log_and_loses_nothing(
    database: Database, tmp_path: Path
) -> None:
    await fill(database)
    await database.checkpoint()
    assert log_bytes(tmp_path) == 0

    async def rows(connection: AsyncConnection) -> int:
        return int((await connection.execute(sa.text("SELECT count(*) FROM filler"))).scalar_one())

    assert await database.read(rows) == 3


async def test_a_reader_in_the_way_puts_a_checkpoint_off_without_blocking_writers(
    database: Database, tmp_path: Path
) -> None:
    await fill(database)

    async def long_read(connection: AsyncConnection) -> None:
        await connection.execute(sa.text("SELECT count(*) FROM filler"))
        await database.suppress(lambda: fill(database))
        with pytest.raises(Unavailable, match="not emptied"):
            await database.checkpoint()
        assert log_bytes(tmp_path) > 0
        await database.suppress(lambda: fill(database))

    await database.read(long_read)
    await database.checkpoint()
    assert log_bytes(tmp_path) == 0


async def test_a_writer_in_the_way_puts_a_checkpoint_off(
    database: Database, tmp_path: Path
) -> None:
    await fill(database)

    async def long_write(connection: AsyncConnection) -> None:
        await connection.execute(sa.text("DELETE FROM filler"))
        with pytest.raises(Unavailable, match="not emptied"):
            await database.suppress(database.checkpoint)

    await database.write(long_write)
    await database.checkpoint()
    assert log_bytes(tmp_path) == 0
