"""SQLite's connections end with their database, so that no thread calls a loop that is gone."""

import asyncio
import threading
from functools import partial
from pathlib import Path

import pytest

from domain.errors import Unavailable
from store import inventory
from store.database import Database
from tests.store.world import World

pytestmark = pytest.mark.store

SQLITE = pytest.mark.parametrize("kind", ["sqlite-file", "sqlite-memory"], indirect=True)


def threads() -> set[threading.Thread]:
    return {each for each in threading.enumerate() if "_connection_worker_thread" in each.name}


async def test_a_file_that_cannot_be_opened_leaves_no_thread_once_closed(tmp_path: Path) -> None:
    before = threads()
    database = Database(f"sqlite+aiosqlite:///{tmp_path / 'missing' / 'holdfast.db'}")
    for _ in range(20):
        with pytest.raises(Unavailable):
            await database.read(partial(inventory.listing, entity="cluster"))
    await database.close()
    assert threads() <= before


@SQLITE
async def test_a_transaction_cancelled_in_the_middle_leaves_no_thread_once_closed(
    world: World,
) -> None:
    entered, before = asyncio.Event(), threads()

    async def work(connection: object) -> None:
        entered.set()
        await asyncio.Event().wait()

    for _ in range(5):
        entered.clear()
        task = asyncio.create_task(world.database.write(work))
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await world.database.close()
    assert threads() < before


async def test_a_connection_that_was_never_given_back_ends_with_its_database(
    tmp_path: Path,
) -> None:
    before = threads()
    database = Database(f"sqlite+aiosqlite:///{tmp_path / 'holdfast.db'}")
    kept = await database._engine.connect()
    await database.close()
    assert threads() <= before
    kept.sync_connection = None  # nobody gives it back any more
