"""The database goes away in the middle of an action, and comes back: nothing half done."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.errors import OutcomeUnknown, Unavailable
from engine.actions.base import Params, Plan, Problems, Tx
from engine.actions.clusters import CreateCluster, CreateClusterAction
from engine.actions.vms import StartVm
from engine.backend import Backend
from engine.batches import BatchReceipt
from engine.queries.operations import ListOperations, ListOperationsQuery
from store import inventory
from store.database import Database
from tests.store.engine_room import Engine
from tests.store.mariadb import Server
from tests.store.own_servers import KINDS, migrated_on, own_server
from tests.store.postgres import Cluster
from tests.store.scenes import Scene, params_of
from tests.store.server import PrivateServer
from tests.store.world import PERSON, World

pytestmark = pytest.mark.store


@dataclass
class Away:
    """A database on a server that a test may stop and start."""

    database: Database
    server: PrivateServer

    async def leave(self) -> None:
        """Gone."""
        await asyncio.to_thread(self.server.stop)

    async def come_back(self) -> None:
        """There again, with its data; nothing where it never left."""
        if not self.server.running:
            self.server.start()  # by this thread: it ends with the one that started it


@pytest.fixture(scope="module", params=KINDS)
def server(request: pytest.FixtureRequest) -> Iterator[Cluster | Server]:
    """A server of these tests' own."""
    with own_server(request.param) as made:
        yield made


@pytest.fixture
async def away(server: Cluster | Server) -> AsyncIterator[Away]:
    """A migrated database on a server that may be stopped; started again for the next test."""
    async with AsyncExitStack() as stack:
        there = Away(Database(await migrated_on(server, stack)), server)
        stack.push_async_callback(there.come_back)
        stack.push_async_callback(there.database.close)
        yield there


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


ASKED = {
    "vm.create": "",
    "vm.start": "down",
    "vm.stop": "up",
    "host.recover": "non_responsive",
    "fence.add": "",
    "operation.cancel": "pending",
}
"""Actions of every make, each with the state of its entity: done at once or with a workflow,
written by statements of their own or collected, about an operation, with a secret."""


@pytest.fixture
async def engine(away: Away) -> Engine:
    """The whole engine on that database."""
    return Engine(await World(away.database).build())


async def asked(engine: Engine, kind: str) -> Params:
    """A request that succeeds, what it is about being there."""
    state = ASKED[kind]
    scene = await Scene(engine).build(kind.partition(".")[0] if state else "", state)
    return params_of(await scene.prepare(kind, state), kind)


def goes_before_the_write(engine: Engine, kind: str, away: Away) -> None:
    """The server dies once, when the action was judged and nothing of it is written."""
    action: Any = engine.backend.acceptance.by_kind[kind]
    execute = action.execute

    async def dying(*args: Any) -> Any:
        action.execute = execute
        await away.leave()
        return await execute(*args)

    action.execute = dying


def goes_at_the_commit(away: Away) -> None:
    """The server dies once, when everything is written and the next commit is about to be told."""
    database = away.database._engine.sync_engine

    def dying(_connection: sa.Connection) -> None:
        away.server.stop()

    sa.event.listen(database, "commit", dying, once=True)


async def unavailable(attempt: Awaitable[Any], *codes: str) -> Unavailable:
    """The refusal of a request that the database did not live to see the end of."""
    with pytest.raises(Unavailable) as caught:
        await attempt
    assert (caught.value.status, caught.value.retryable) == (503, True)
    assert caught.value.code in codes
    assert caught.value.detail
    assert caught.value.next_step
    return caught.value


@pytest.mark.parametrize("kind", ASKED)
async def test_whatever_was_asked_for_is_done_as_a_whole_or_not_when_the_server_dies_under_it(
    away: Away, engine: Engine, kind: str
) -> None:
    params = await asked(engine, kind)
    before = await engine.everything()
    goes_before_the_write(engine, kind, away)
    await unavailable(engine.act(params, "key-1"), "DATABASE_UNAVAILABLE")
    await unavailable(engine.act(params, "key-1"), "DATABASE_UNAVAILABLE")
    await away.come_back()
    assert await engine.everything() == before
    goes_at_the_commit(away)
    await unavailable(engine.act(params, "key-1"), "COMMIT_OUTCOME_UNKNOWN")
    await away.come_back()
    assert await engine.everything() == before, "a commit that the server never heard of"
    assert engine.deliverer.delivered == [], "Temporal was told of what is not there"
    receipt = await engine.act(params, "key-1")
    assert not receipt.replayed
    assert (await engine.act(params, "key-1")).operation_id == receipt.operation_id
    await engine.backend.close()
    after = await engine.everything()
    assert len(after["operation"]) == len(before["operation"]) + 1
    assert [row["operation_id"] for row in after["idempotency_key"]] == [receipt.operation_id]


async def test_a_batch_is_accepted_as_a_whole_or_not_when_the_server_dies_under_it(
    away: Away, engine: Engine
) -> None:
    await engine.world.host()
    items = [StartVm(vm_id=await engine.world.vm(f"vm-{number}")) for number in range(3)]
    before = await engine.everything()

    async def ask() -> BatchReceipt:
        return await engine.backend.run_multiple_actions(items, PERSON, idempotency_key="key-1")

    goes_before_the_write(engine, "vm.start", away)
    await unavailable(ask(), "DATABASE_UNAVAILABLE")
    await away.come_back()
    goes_at_the_commit(away)
    await unavailable(ask(), "COMMIT_OUTCOME_UNKNOWN")
    await away.come_back()
    assert await engine.everything() == before
    assert (await ask()).accepted == 3
    await engine.backend.close()
    assert len(await engine.rows("operation")) == 1 + 3
