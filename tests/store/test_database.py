"""Transactions: all or nothing, repeated when they lost a race, honest without a database."""

import asyncio
from datetime import datetime
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.errors import Conflict, OutcomeUnknown, Unavailable
from store import inventory, migrate
from store.database import TRIES, Database
from store.failures import KEY_TRIES
from store.ids import new_id
from store.schema import host
from store.types import UtcDateTime
from store.unit_of_work import current_unit
from tests.store.mariadb import Server as MariaServer
from tests.store.postgres import Cluster
from tests.store.world import World

pytestmark = pytest.mark.store

POSTGRES = pytest.mark.parametrize("kind", ["postgresql"], indirect=True)
ON_SERVERS = pytest.mark.parametrize("kind", ["postgresql", "mariadb"], indirect=True)


Server = Cluster | MariaServer


@pytest.fixture(params=["postgresql", "mariadb"])
async def server(request: pytest.FixtureRequest) -> Server:
    """A running server of the test's own, to be stopped as it likes."""
    short = "postgres" if request.param == "postgresql" else request.param
    found: Server = request.getfixturevalue(f"{short}_apart")
    found.start()
    return found


async def new_database(server: Server) -> Database:
    url = server.url("postgres") if isinstance(server, Cluster) else await server.create("apart")
    await migrate.upgrade(url)
    return Database(url)


async def names(database: Database) -> list[str]:
    rows = await database.read(partial(inventory.listing, entity="cluster"))
    return [row["name"] for row in rows]


async def test_a_transaction_that_fails_writes_nothing(world: World) -> None:
    async def work(connection: AsyncConnection) -> None:
        await inventory.arm_cluster(connection, world.cluster_id, armed=False)
        raise LookupError

    with pytest.raises(LookupError):
        await world.database.write(work)
    assert (await world.get("cluster", world.cluster_id))["armed"] is True


async def test_a_cancelled_transaction_writes_nothing_and_the_next_one_works(world: World) -> None:
    inside = asyncio.Event()

    async def work(connection: AsyncConnection) -> None:
        await inventory.arm_cluster(connection, world.cluster_id, armed=False)
        inside.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(world.database.write(work))
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await world.get("cluster", world.cluster_id))["armed"] is True


async def test_concurrent_read_modify_write_loses_no_update(world: World) -> None:
    machine = await world.host()

    async def add_one(connection: AsyncConnection) -> None:
        row = await inventory.get(connection, "host", machine)
        assert row is not None
        more = host.update().where(host.c.id == machine).values(cpus=row["cpus"] + 1)
        await connection.execute(more)

    await world.together(*[add_one] * 8)
    assert (await world.get("host", machine))["cpus"] == 8


@pytest.mark.parametrize("kind", ["sqlite-file", "sqlite-memory"], indirect=True)
async def test_writers_wait_for_each_other_on_sqlite_instead_of_failing_in_the_middle(
    world: World,
) -> None:
    machine, runs = await world.host(), count()

    async def read_then_write(connection: AsyncConnection) -> None:
        next(runs)
        await inventory.get(connection, "host", machine)
        await connection.execute(host.update().values(cpus=host.c.cpus + 1))

    await world.together(*[read_then_write] * 8)
    assert next(runs) == 8


async def test_each_of_many_concurrent_transactions_is_atomic(world: World) -> None:
    """Half of them fail: on a shared connection their writes would ride on the others' commits."""
    machine = await world.host()

    async def work(connection: AsyncConnection, fails: bool) -> None:
        more = host.update().where(host.c.id == machine).values(cpus=host.c.cpus + 1)
        await connection.execute(more)
        await connection.execute(sa.select(host))
        if fails:
            raise LookupError

    tasks = (world.database.write(partial(work, fails=n % 2 == 0)) for n in range(10))
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(end) for end in ends] == [LookupError, type(None)] * 5
    assert (await world.get("host", machine))["cpus"] == 5


async def test_a_reader_sees_one_moment_whatever_others_write_meanwhile(world: World) -> None:
    if world.database.url.endswith(":memory:"):
        return  # Its transactions take turns, so there is no meanwhile.

    async def look_twice(connection: AsyncConnection) -> list[bool]:
        seen = []
        for armed in (False, True):
            row = await inventory.get(connection, "cluster", world.cluster_id)
            assert row is not None
            seen.append(row["armed"])
            change = partial(world.do, inventory.arm_cluster, world.cluster_id, armed=armed)
            await world.database.suppress(change)
        return seen

    assert await world.database.read(look_twice) == [True, True]


async def test_a_reading_transaction_cannot_write(world: World) -> None:
    with pytest.raises(Conflict, match="TRANSACTION_READ_ONLY"):
        await world.database.read(lambda c: inventory.arm_cluster(c, world.cluster_id, armed=False))
    await world.do(inventory.arm_cluster, world.cluster_id, armed=False)


@POSTGRES
async def test_a_deadlock_is_resolved_by_trying_again(world: World) -> None:
    pair = [await world.host("h1"), await world.host("h2")]
    met = asyncio.Barrier(2)

    def crossing(order: list[Any]) -> Any:
        tries = count()

        async def work(connection: AsyncConnection) -> None:
            for step, machine in enumerate(order):
                more = host.update().where(host.c.id == machine).values(cpus=host.c.cpus + 1)
                await connection.execute(more)
                if step == 0 and next(tries) == 0:
                    await met.wait()

        return world.database.write(work)

    await asyncio.gather(crossing(pair), crossing(pair[::-1]))
    assert [(await world.get("host", machine))["cpus"] for machine in pair] == [2, 2]


@ON_SERVERS
async def test_a_deadlock_inside_a_savepoint_is_run_again(world: World) -> None:
    """Of MariaDB's deadlock the savepoint knows nothing: it is gone, and says only that."""
    pair = [await world.host("a"), await world.host("b")]
    met, tries = asyncio.Barrier(2), count(1)

    def crossing(first: UUID, second: UUID) -> Any:
        mine = count()

        async def work(connection: AsyncConnection) -> None:
            next(tries)
            await connection.execute(_raised(first))
            if next(mine) == 0:
                await met.wait()
            async with connection.begin_nested():
                await connection.execute(_raised(second))

        return world.database.write(work)

    await asyncio.gather(crossing(*pair), crossing(*pair[::-1]))
    assert [(await world.get("host", machine))["cpus"] for machine in pair] == [2, 2]
    assert next(tries) > 3, "they never met"


def _raised(machine: UUID) -> sa.Update:
    return host.update().where(host.c.id == machine).values(cpus=host.c.cpus + 1)


async def test_a_unique_key_that_is_broken_each_time_is_not_tried_for_long(world: World) -> None:
    tries = count(1)

    async def work(connection: AsyncConnection) -> None:
        next(tries)
        for name in ("same", "same"):
            row = {"id": new_id(), "cluster_id": world.cluster_id, "name": name, "state": "up"}
            row |= {"uri": "qemu+tcp://x/system", "state_reason": "", "state_since": world.now}
            await inventory.insert(connection, "host", row | {"created_at": world.now})

    with pytest.raises(Unavailable) as refusal:
        await world.database.write(work)
    assert (refusal.value.code, refusal.value.context["tries"]) == ("DATABASE_BUSY", KEY_TRIES)
    assert next(tries) == KEY_TRIES + 1


@POSTGRES
async def test_a_transaction_that_always_loses_gives_up_as_busy(world: World) -> None:
    tries = count(1)

    async def lose(connection: AsyncConnection) -> None:
        next(tries)
        lost = "DO $$ BEGIN RAISE EXCEPTION SQLSTATE '40001'; END $$"
        await connection.exec_driver_sql(lost)

    with pytest.raises(Unavailable) as refusal:
        await world.database.write(lose)
    assert (refusal.value.code, refusal.value.retryable) == ("DATABASE_BUSY", True)
    assert next(tries) == TRIES + 1


async def test_a_broken_rule_is_not_mistaken_for_a_lost_race(world: World) -> None:
    tries = count(1)

    async def work(connection: AsyncConnection) -> None:
        next(tries)
        await connection.execute(host.update().values(memory_reserved_mib=-1))

    await world.host()
    with pytest.raises(sa.exc.IntegrityError):
        await world.database.write(work)
    assert next(tries) == 2


async def test_texts_that_differ_in_case_accent_or_blanks_are_different(world: World) -> None:
    texts = ["vm", "Vm", "vḿ", "vm ", "ｖm"]
    for text in texts:
        await world.host(text)

    async def found(connection: AsyncConnection, text: str) -> list[str]:
        rows = await connection.execute(sa.select(host.c.name).where(host.c.name == text))
        return list(rows.scalars())

    for text in texts:
        assert await world.database.read(partial(found, text=text)) == [text]


async def test_many_may_open_one_new_file_at_once(tmp_path: Path) -> None:
    """While one switches the file to its log, SQLite tells some of the others "locked" at once.

    It takes a few files to meet that moment.
    """

    async def opened(file: Path) -> None:
        database = Database(f"sqlite+aiosqlite:///{file}")
        await database.alone(lambda connection: connection.exec_driver_sql("SELECT 1"))
        await database.close()

    for number in range(40):
        await asyncio.gather(*(opened(tmp_path / f"{number}.db") for _ in range(5)))


async def test_times_come_back_aware_and_to_the_microsecond(world: World) -> None:
    row = await world.get("cluster", world.cluster_id)
    assert row["created_at"] == world.now
    assert row["created_at"].tzinfo is not None


def test_a_time_without_a_zone_is_refused_rather_than_guessed() -> None:
    naive = datetime(2026, 1, 1)  # noqa: DTZ001 - that is the point
    with pytest.raises(ValueError, match="zone"):
        UtcDateTime().process_bind_param(naive, sa.create_mock_engine("sqlite://", print).dialect)


async def test_a_database_that_was_stopped_is_reported_and_works_again_when_it_is_back(
    server: Server,
) -> None:
    database = await new_database(server)
    world = await World(database).build()
    for _ in range(2):
        server.stop()
        for work in (database.write, database.read):
            with pytest.raises(Unavailable) as refusal:
                await work(partial(inventory.listing, entity="cluster"))
            assert refusal.value.code == "DATABASE_UNAVAILABLE"
            assert refusal.value.retryable
        server.start()
        await world.do(inventory.arm_cluster, world.cluster_id, armed=True)
        assert await names(database) == ["c1"]
    await database.close()


async def test_a_server_that_goes_away_in_the_middle_leaves_no_half_transaction(
    server: Server,
) -> None:
    world = await World(await new_database(server)).build()

    async def work(connection: AsyncConnection) -> None:
        await inventory.arm_cluster(connection, world.cluster_id, armed=False)
        await asyncio.to_thread(server.stop)
        await inventory.arm_cluster(connection, world.cluster_id, armed=False)

    with pytest.raises(Unavailable, match="DATABASE_UNAVAILABLE"):
        await world.database.write(work)
    server.start()
    assert (await world.get("cluster", world.cluster_id))["armed"] is True
    await world.database.close()


async def test_a_server_that_goes_away_at_the_commit_leaves_the_outcome_unknown_and_runs_no_hook(
    server: Server,
) -> None:
    world = await World(await new_database(server)).build()
    hooks: list[str] = []

    async def hook(name: str) -> None:
        hooks.append(name)

    async def work(connection: AsyncConnection) -> None:
        current_unit().on_commit(partial(hook, "commit"))
        current_unit().on_rollback(partial(hook, "rollback"))
        await inventory.arm_cluster(connection, world.cluster_id, armed=False)
        await asyncio.to_thread(server.stop)

    with pytest.raises(OutcomeUnknown, match="COMMIT_OUTCOME_UNKNOWN") as refusal:
        await world.database.write(work)
    assert "look" in refusal.value.next_step
    assert hooks == []
    await world.database.close()


async def test_an_address_where_nobody_listens_is_reported_as_unavailable(
    postgres_apart: Cluster,
) -> None:
    url = postgres_apart.url("postgres")
    with pytest.raises(Unavailable, match="DATABASE_UNAVAILABLE"):
        await migrate.upgrade(url)
    with pytest.raises(Unavailable, match="DATABASE_UNAVAILABLE"):
        await migrate.current(url)


async def test_a_database_that_does_not_exist_is_reported_with_its_name(postgres: Cluster) -> None:
    database = Database(postgres.url("nowhere"))
    with pytest.raises(Unavailable, match="nowhere"):
        await names(database)
    await database.close()


async def test_a_file_that_cannot_be_opened_is_reported_as_unavailable(tmp_path: Path) -> None:
    database = Database(f"sqlite+aiosqlite:///{tmp_path}/missing/x.db")
    with pytest.raises(Unavailable, match="DATABASE_UNAVAILABLE"):
        await names(database)
    await database.close()
