"""Announcements: heard with the commit, never before, and not for ever waited for."""

import asyncio

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from store.database import Database
from store.migrate import upgrade
from store.notify import announce, changes
from store.unit_of_work import NoUnitOpen
from tests.store.postgres import Cluster

pytestmark = pytest.mark.store

SOON_S = 0.05
LONG_S = 60.0


async def announcing(connection: AsyncConnection) -> None:
    await announce(connection, "outbox")
    await announce(connection, "outbox")


async def test_a_waiter_hears_what_was_announced_once_it_is_committed(database: Database) -> None:
    async with changes(database, "outbox") as waiter:

        async def work(connection: AsyncConnection) -> bool:
            await announcing(connection)
            return await waiter.wait(SOON_S)

        assert await database.write(work) is False
        assert await waiter.wait(LONG_S) is True
        assert await waiter.wait(SOON_S) is False


async def test_an_announcement_before_the_wait_is_not_missed(database: Database) -> None:
    async with changes(database, "outbox") as waiter:
        await database.write(announcing)
        await database.write(announcing)
        assert await waiter.wait(LONG_S) is True


async def test_an_announcement_that_was_rolled_back_wakes_nobody(database: Database) -> None:
    async def work(connection: AsyncConnection) -> None:
        await announcing(connection)
        raise LookupError

    async with changes(database, "outbox") as waiter:
        with pytest.raises(LookupError):
            await database.write(work)
        assert await waiter.wait(SOON_S) is False


async def test_every_waiter_of_the_channel_is_woken_and_none_of_another(
    database: Database,
) -> None:
    async with (
        changes(database, "outbox") as one,
        changes(database, "outbox") as two,
        changes(database, "events") as other,
    ):
        await database.write(announcing)
        assert all(await asyncio.gather(one.wait(LONG_S), two.wait(LONG_S)))
        assert await other.wait(SOON_S) is False


async def test_announcing_outside_of_a_transaction_is_a_defect(database: Database) -> None:
    async def kept(connection: AsyncConnection) -> AsyncConnection:
        return connection

    connection = await database.write(kept)
    with pytest.raises(NoUnitOpen):
        await announce(connection, "outbox")


@pytest.mark.parametrize("kind", ["sqlite-file", "postgresql"], indirect=True)
async def test_two_connections_of_one_process_to_the_same_database_hear_each_other(
    database: Database,
) -> None:
    other = Database(database.url)
    async with changes(other, "outbox") as waiter:
        await database.write(announcing)
        assert await waiter.wait(LONG_S) is True
    await other.close()


async def test_a_waiter_survives_a_restart_of_the_server_and_looks_again(
    postgres_apart: Cluster,
) -> None:
    postgres_apart.start()
    url = postgres_apart.url("postgres")
    await upgrade(url)
    database = Database(url)
    async with changes(database, "outbox") as waiter:
        await asyncio.to_thread(postgres_apart.stop)
        assert await waiter.wait(SOON_S) is False
        await asyncio.to_thread(postgres_apart.start)
        assert await waiter.wait(LONG_S) is True, "it may have missed something"
        await database.write(announcing)
        assert await waiter.wait(LONG_S) is True
    await database.close()


async def test_waiting_for_a_database_that_is_away_only_times_out(postgres_apart: Cluster) -> None:
    database = Database(postgres_apart.url("postgres"))
    async with changes(database, "outbox") as waiter:
        assert await waiter.wait(SOON_S) is False
    await database.close()
