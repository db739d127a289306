"""A migrated database file of each test's own, and the app over it."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from store.database import Database
from store.migrate import upgrade
from tests.unit.api.desk import Desk, open_desk


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file to copy."""
    path = tmp_path_factory.mktemp("api") / "template.db"
    with ThreadPoolExecutor(1) as thread:  # this thread's event loop belongs to the tests
        thread.submit(asyncio.run, upgrade(f"sqlite+aiosqlite:///{path}")).result()
    return path


@pytest.fixture
def database_file(template: Path, tmp_path: Path) -> Path:
    """A migrated database file."""
    return Path(shutil.copy(template, tmp_path / "holdfast.db"))


@pytest.fixture
async def database(database_file: Path) -> AsyncIterator[Database]:
    made = Database(f"sqlite+aiosqlite:///{database_file}")
    yield made
    await made.close()


@pytest.fixture
async def desk(database: Database) -> AsyncIterator[Desk]:
    """The app over a world with one cluster."""
    async with open_desk(database) as made:
        await made.world.build()
        yield made
