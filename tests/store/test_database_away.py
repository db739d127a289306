"""The database goes away in the middle of an action, and comes back: nothing half done."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.errors import OutcomeUnknown, Unavailable
from engine.actions.base import Plan, Problems, Tx
from engine.actions.clusters import CreateCluster, CreateClusterAction
from engine.backend import Backend
from engine.queries.operations import ListOperations, ListOperationsQuery
from store import inventory
from store.database import Database
from store.migrate import upgrade
from tests.store.conftest import new_cluster, new_server
from tests.store.mariadb import Server
from tests.store.world import PERSON

pytestmark = pytest.mark.store


@dataclass
class Away:
    """A database server that a test may stop and start."""

    database: Database
    stop: Callable[[], None]
    start: Callable[[], None]

    async def leave(self) -> None:
        """Gone."""
        await asyncio.to_thread(self.stop)

    async def come_back(self) -> None:
        """There again, with its data."""
        await asyncio.to_thread(self.start)


@pytest.fixture(params=["postgresql", "mariadb"])
async def away(request: pytest.FixtureRequest) -> AsyncIterator[Away]:
    """A migrated database on a server of the test's own."""
    server = new_cluster() if request.param == "postgresql" else new_server()
    database: Database | None = None
    try:
        await asyncio.to_thread(server.start)
        if isinstance(server, Server):
            url = await server.create("holdfast")
        else:
            url = server.url("postgres")
        await upgrade(url)
        database = Database(url)
        yield Away(database, server.stop, server.start)
    finally:
        if database is not None:
            await database.close()
        await asyncio.to_thread(server.remove)


class Halfway(CreateClusterAction):
    """Creates a cluster, and lets the test act between its reading and its writing."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.go_on = asyncio.Event()

    async def plan(self, tx: Tx, params: CreateCluster, problems: Problems) -> Plan[None]:
        """Read, then wait."""
        plan = await super().plan(tx, params, problems)
        self.reached.set()
        await self.go_on.wait()
        return plan


async def names(database: Database) -> list[str]:
    async def read(connection: AsyncConnection) -> list[str]:
        return [row["name"] for row in await inventory.listing(connection, "cluster")]

    return await database.read(read)


async def test_a_server_that_dies_in_the_middle_of_an_action_leaves_nothing_of_it(
    away: Away,
) -> None:
    action = Halfway()
    backend = Backend(away.database, [action], [ListOperationsQuery()])
    request = asyncio.create_task(backend.run_action(CreateCluster(name="c1"), PERSON, "key-1"))
    await action.reached.wait()
    await away.leave()
    action.go_on.set()
    with pytest.raises((Unavailable, OutcomeUnknown)) as caught:
        await request
    assert caught.value.code == "DATABASE_UNAVAILABLE"
    assert "nothing was changed" in caught.value.next_step
    with pytest.raises(Unavailable, match="DATABASE_UNAVAILABLE"):
        await backend.run_query(ListOperations())
    await away.come_back()
    assert await names(away.database) == []
    assert (await backend.run_query(ListOperations())).items == ()
    receipt = await backend.run_action(CreateCluster(name="c1"), PERSON, "key-1")
    assert not receipt.replayed
    assert await names(away.database) == ["c1"]


async def test_an_action_asked_for_while_the_server_is_away_works_once_it_is_back(
    away: Away,
) -> None:
    backend = Backend(away.database, [CreateClusterAction()], [])
    await away.leave()
    with pytest.raises(Unavailable, match="DATABASE_UNAVAILABLE"):
        await backend.run_action(CreateCluster(name="c1"), PERSON)
    await away.come_back()
    await backend.run_action(CreateCluster(name="c1"), PERSON)
    assert await names(away.database) == ["c1"]
