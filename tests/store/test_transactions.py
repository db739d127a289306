"""Transactions inside transactions: who joins, who is refused, who must not."""

import asyncio
from itertools import count

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.errors import Conflict
from store.database import Database, Propagation
from store.unit_of_work import NoUnitOpen, UnitOfOtherTask, current_unit
from tests.store.notes import NOTE, Notes, fail, note, writing
from tests.store.world import World

pytestmark = [pytest.mark.store, pytest.mark.usefixtures("notes")]


async def test_a_write_inside_a_write_joins_it_on_the_same_connection(
    database: Database, notes: Notes
) -> None:
    async def outer(connection: AsyncConnection) -> None:
        await note(connection, "outer")
        unit = current_unit()

        async def inner(same: AsyncConnection) -> None:
            assert same is connection
            assert current_unit() is unit
            await note(same, "inner")

        await database.write(inner)
        await database.write(inner_again, Propagation.MANDATORY)

    await database.write(outer)
    assert await notes() == ["again", "inner", "outer"]


async def inner_again(connection: AsyncConnection) -> None:
    await note(connection, "again")


async def test_a_joined_write_is_rolled_back_with_its_outer(
    database: Database, notes: Notes
) -> None:
    async def outer(connection: AsyncConnection) -> None:
        await database.write(writing("inner"))
        await fail(connection)

    with pytest.raises(LookupError):
        await database.write(outer)
    assert await notes() == []


async def test_a_read_inside_a_write_sees_what_was_not_committed_yet(database: Database) -> None:
    async def texts(connection: AsyncConnection) -> list[str]:
        return list((await connection.execute(sa.select(NOTE.c.text))).scalars())

    async def outer(connection: AsyncConnection) -> list[str]:
        await note(connection, "mine")
        return await database.read(texts)

    assert await database.write(outer) == ["mine"]


async def test_an_outer_that_swallows_a_failed_inner_part_commits_nothing(
    database: Database, notes: Notes
) -> None:
    async def outer(connection: AsyncConnection) -> None:
        await note(connection, "outer")
        with pytest.raises(LookupError):
            await database.write(fail)

    with pytest.raises(Conflict, match=r"TRANSACTION_ROLLED_BACK.*the inner part failed"):
        await database.write(outer)
    assert await notes() == []


async def test_an_outer_that_swallows_a_failed_statement_commits_nothing(
    database: Database, notes: Notes
) -> None:
    async def outer(connection: AsyncConnection) -> None:
        await note(connection, "outer")
        with pytest.raises(sa.exc.DBAPIError):
            await connection.exec_driver_sql("SELECT no_such_column FROM note")

    with pytest.raises(Conflict, match="TRANSACTION_ROLLED_BACK"):
        await database.write(outer)
    assert await notes() == []


async def test_a_statement_that_failed_under_a_savepoint_spoils_nothing_else(
    database: Database, notes: Notes
) -> None:
    async def outer(connection: AsyncConnection) -> None:
        await note(connection, "outer")
        with pytest.raises(sa.exc.IntegrityError):
            async with connection.begin_nested():
                await note(connection, "outer")

    await database.write(outer)
    assert await notes() == ["outer"]


async def test_a_race_lost_by_an_inner_part_repeats_the_whole_outermost_transaction(
    database: Database, notes: Notes
) -> None:
    tries = count(1)

    async def outer(connection: AsyncConnection) -> int:
        number = next(tries)
        await note(connection, f"try {number}")
        if number == 1:
            with pytest.raises(sa.exc.IntegrityError):
                await database.write(writing("try 1"))
        return number

    assert await database.write(outer) == 2
    assert await notes() == ["try 2"]


async def test_a_write_inside_a_read_is_refused_by_name(database: Database, notes: Notes) -> None:
    async def outer(_connection: AsyncConnection) -> None:
        await database.write(writing("never"))

    with pytest.raises(Conflict, match="TRANSACTION_READ_ONLY"):
        await database.read(outer)
    assert await notes() == []


async def test_a_statement_that_writes_is_refused_in_a_read_by_name(
    database: Database, notes: Notes
) -> None:
    with pytest.raises(Conflict, match=r"TRANSACTION_READ_ONLY.*INSERT"):
        await database.read(writing("never"))
    assert await notes() == []


async def test_a_mandatory_write_without_a_transaction_is_refused(
    database: Database, notes: Notes
) -> None:
    with pytest.raises(Conflict, match="TRANSACTION_REQUIRED"):
        await database.write(writing("never"), Propagation.MANDATORY)
    with pytest.raises(NoUnitOpen):
        current_unit()
    assert await notes() == []


async def test_a_task_must_not_use_the_open_transaction_of_its_parent(
    database: Database, notes: Notes
) -> None:
    async def outer(_connection: AsyncConnection) -> None:
        with pytest.raises(UnitOfOtherTask, match="suppress"):
            await asyncio.create_task(database.write(writing("child")))

    await database.write(outer)
    assert await notes() == []


async def test_a_task_that_outlives_the_transaction_it_was_started_in_opens_its_own(
    database: Database, notes: Notes
) -> None:
    over = asyncio.Event()

    async def child() -> None:
        await over.wait()
        with pytest.raises(NoUnitOpen):
            current_unit()
        await database.write(writing("child"))

    async def outer(_connection: AsyncConnection) -> asyncio.Task[None]:
        return asyncio.create_task(child())

    task = await database.write(outer)
    over.set()
    await task
    assert await notes() == ["child"]


async def test_two_databases_have_transactions_of_their_own(
    database: Database, notes: Notes
) -> None:
    other = Database("sqlite+aiosqlite:///:memory:")
    await other.alone(lambda c: c.exec_driver_sql("CREATE TABLE note (text VARCHAR(64))"))

    async def outer(connection: AsyncConnection) -> None:
        await note(connection, "here")
        await other.write(writing("there"))
        await fail(connection)

    with pytest.raises(LookupError):
        await database.write(outer)
    rows = await other.read(lambda c: c.execute(sa.select(NOTE.c.text)))
    await other.close()
    assert (list(rows.scalars()), await notes()) == (["there"], [])


async def test_a_connection_serves_the_next_transaction_after_any_end(
    world: World, notes: Notes
) -> None:
    """Thirty ends of each kind would empty a pool that lost one connection each time."""
    database = world.database
    for number in range(30):
        with pytest.raises(LookupError):
            await database.write(fail)
        with pytest.raises(Conflict):
            await database.read(writing("never"))
        await database.write(writing(f"{number:02}"))
    assert len(await notes()) == 30
