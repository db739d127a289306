"""A database server that stands still is not waited for without end, and used once it goes on."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.errors import OutcomeUnknown, Unavailable
from engine.actions.clusters import CreateCluster, CreateClusterAction
from engine.backend import Backend
from store.database import Database
from store.server_links import CLOSE_S, CONNECT_S
from tests.store.mariadb import Server
from tests.store.notes import create_notes, note, writing
from tests.store.own_servers import KINDS, migrated_on, own_server
from tests.store.postgres import Cluster
from tests.store.test_database_away import names
from tests.store.world import PERSON

pytestmark = pytest.mark.store

LIMIT_S = 3.0
SLACK_S = 20.0
"""What a busy machine may add."""

SLEEP = {"postgresql": "SELECT pg_sleep({})", "mariadb": "SELECT sleep({})"}


@pytest.fixture(scope="module", params=KINDS)
def server(request: pytest.FixtureRequest) -> Iterator[Cluster | Server]:
    """A server of these tests' own."""
    with own_server(request.param) as made:
        yield made


@pytest.fixture
async def database(server: Cluster | Server) -> AsyncIterator[Database]:
    """A migrated database whose statements are given `LIMIT_S`; its server goes on afterwards."""
    async with AsyncExitStack() as stack:
        url = await migrated_on(server, stack)
        made = Database(url, statement_s=LIMIT_S)
        stack.push_async_callback(made.close)
        stack.callback(server.resume)
        yield made


async def test_a_statement_under_way_ends_and_the_next_one_works_once_the_server_goes_on(
    database: Database, server: Cluster | Server
) -> None:
    notes = await create_notes(database)
    dropped = []

    async def halfway(connection: AsyncConnection) -> None:
        await note(connection, "mine")
        server.pause()
        try:
            await note(connection, "yours")
        finally:
            dropped.append(connection.invalidated)

    async with asyncio.timeout(LIMIT_S + CLOSE_S + SLACK_S):
        with pytest.raises(Unavailable) as caught:
            await database.write(halfway)
    assert caught.value.code == "DATABASE_UNAVAILABLE"
    assert "nothing was changed" in caught.value.next_step
    assert "in time" in caught.value.detail
    assert dropped == [True], "before a rollback on it is waited for as long again"
    server.resume()
    assert await notes() == []
    await database.write(writing("mine"))
    assert await notes() == ["mine"]


async def test_the_outcome_of_a_commit_under_way_is_unknown_and_asking_again_acts_once(
    database: Database, server: Cluster | Server
) -> None:
    backend = Backend(database, [CreateClusterAction()], [])
    wanted = CreateCluster(name="c1")

    def stands_still(_connection: sa.Connection) -> None:
        server.pause()

    sa.event.listen(database._engine.sync_engine, "commit", stands_still, once=True)
    async with asyncio.timeout(LIMIT_S + CLOSE_S + SLACK_S):
        with pytest.raises(OutcomeUnknown, match="COMMIT_OUTCOME_UNKNOWN"):
            await backend.run_action(wanted, PERSON, "key-1")
    server.resume()
    first = await backend.run_action(wanted, PERSON, "key-1")
    again = await backend.run_action(wanted, PERSON, "key-1")
    assert (again.operation_id, again.replayed) == (first.operation_id, True)
    assert await names(database) == ["c1"]


async def many(database: Database, count: int) -> None:
    """Have so many connections in the pool."""
    all_there = asyncio.Barrier(count)

    async def look(connection: AsyncConnection) -> None:
        await connection.execute(sa.text("SELECT 1"))
        await all_there.wait()

    await asyncio.gather(*(database.read(look) for _ in range(count)))


async def test_a_connection_of_the_pool_is_tried_shortly_and_the_others_are_not_tried_at_all(
    database: Database, server: Cluster | Server
) -> None:
    patient = Database(database.url, statement_s=None)

    async def asked_in_vain() -> float:
        began = time.monotonic()
        async with asyncio.timeout(2 * CONNECT_S + CLOSE_S + SLACK_S):
            with pytest.raises(Unavailable, match="DATABASE_UNAVAILABLE"):
                await many(patient, 1)
        return time.monotonic() - began

    try:
        await many(patient, 5)
        server.pause()
        first = await asked_in_vain()
        assert await asked_in_vain() < first - CONNECT_S / 2, "it tries a new one only"
        server.resume()
        await many(patient, 5)
    finally:
        server.resume()
        await patient.close()


async def test_the_connections_of_a_server_that_stands_still_are_all_closed_in_time(
    database: Database, server: Cluster | Server
) -> None:
    await many(database, 8)
    server.pause()
    began = time.monotonic()
    await database.close()
    assert time.monotonic() - began < 4 * CLOSE_S, "not one after the other"


async def test_a_request_that_is_cancelled_while_the_server_stands_still_ends(
    database: Database, server: Cluster | Server
) -> None:
    patient = Database(database.url, statement_s=None)
    asked = asyncio.Event()

    async def waits(connection: AsyncConnection) -> None:
        await connection.execute(sa.text("SELECT 1"))
        server.pause()
        asked.set()
        await connection.execute(sa.text("SELECT 2"))

    task = asyncio.create_task(patient.read(waits))
    try:
        await asked.wait()
        task.cancel()
        async with asyncio.timeout(CLOSE_S + SLACK_S):
            with pytest.raises(asyncio.CancelledError):
                await task
    finally:
        server.resume()
        await patient.close()


async def test_a_statement_that_takes_too_long_is_given_up_but_not_that_of_a_migration(
    database: Database,
) -> None:
    slow = sa.text(SLEEP[database.dialect].format(2 * LIMIT_S))
    with pytest.raises(Unavailable, match="DATABASE_UNAVAILABLE"):
        await database.read(lambda connection: connection.execute(slow))
    await database.alone(lambda connection: connection.execute(slow).close())
    patient = Database(database.url, statement_s=None)
    try:
        await patient.read(lambda connection: connection.execute(slow))
    finally:
        await patient.close()
