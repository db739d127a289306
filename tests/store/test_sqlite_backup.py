"""SQLite's two documented ways of a backup, and the restore of both (docs/databases.md)."""

import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from store import inventory
from store.database import Database
from tests.store.world import World

pytestmark = [pytest.mark.store, pytest.mark.parametrize("kind", ["sqlite-file"], indirect=True)]

SHELL = shutil.which("sqlite3")


def file_and_log(file: Path, backup: Path) -> None:
    """Engine stopped: what it wrote last may be in the log alone."""
    log = Path(f"{file}-wal")
    assert log.stat().st_size > 0, "the newest row is in the log alone"
    shutil.copy(file, backup)
    shutil.copy(log, f"{backup}-wal")


def dot_backup(file: Path, backup: Path) -> None:
    """Engine running: the shell's `.backup`, or the function that it calls where it is missing."""
    if SHELL is not None:
        subprocess.run([SHELL, str(file), f".backup {backup}"], check=True)
        return
    with closing(sqlite3.connect(file)) as source, closing(sqlite3.connect(backup)) as target:
        source.backup(target)


def put_back(file: Path, backup: Path) -> None:
    """Remove the log and its index, and put the backup in the place of the file."""
    for leftover in ("-wal", "-shm"):
        Path(f"{file}{leftover}").unlink(missing_ok=True)
    shutil.copy(backup, file)
    log = Path(f"{backup}-wal")
    if log.exists():
        shutil.copy(log, f"{file}-wal")


async def names(database: Database) -> list[str]:
    hosts = await database.read(lambda connection: inventory.listing(connection, "host"))
    return [host["name"] for host in hosts]


@pytest.mark.parametrize("take", [file_and_log, dot_backup])
async def test_a_restored_backup_has_what_was_committed_before_it_and_nothing_since(
    world: World, tmp_path: Path, take: Callable[[Path, Path], None]
) -> None:
    file = Path(str(sa.make_url(world.database.url).database))
    backup = tmp_path / "backup.db"
    await world.host("moved")
    await world.database.checkpoint()
    await world.host("logged")
    take(file, backup)
    await world.host("since")
    await world.database.close()
    put_back(file, backup)
    again = Database(world.database.url)
    assert await names(again) == ["logged", "moved"]
    await again.close()


async def test_the_file_without_its_log_lacks_what_was_committed_last(
    world: World, tmp_path: Path
) -> None:
    file = Path(str(sa.make_url(world.database.url).database))
    await world.database.checkpoint()
    await world.host("logged")
    shutil.copy(file, tmp_path / "alone.db")
    alone = Database(f"sqlite+aiosqlite:///{tmp_path / 'alone.db'}")
    assert await names(alone) == []
    await alone.close()
