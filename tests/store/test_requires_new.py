"""Transactions of their own inside suspended ones: committed alone, or refused at once."""

import asyncio
from collections.abc import Awaitable
from functools import partial
from itertools import count

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.errors import Conflict
from store.database import TRIES, Database, Propagation
from store.unit_of_work import NoUnitOpen, current_unit
from tests.store.notes import NOTE, Notes, fail, note, writing

pytestmark = [pytest.mark.store, pytest.mark.usefixtures("notes")]

ON_SERVERS = pytest.mark.parametrize("kind", ["postgresql", "mariadb"], indirect=True)
WITH_REQUIRES_NEW = pytest.mark.parametrize(
    "kind", ["sqlite-file", "postgresql", "mariadb"], indirect=True
)


@WITH_REQUIRES_NEW
async def test_a_requires_new_write_outlives_the_rollback_of_its_outer(
    database: Database, notes: Notes
) -> None:
    async def outer(connection: AsyncConnection) -> None:
        unit = current_unit()
        await database.write(writing("inner"), Propagation.REQUIRES_NEW)
        assert current_unit() is unit
        await note(connection, "outer")
        await fail(connection)

    with pytest.raises(LookupError):
        await database.write(outer)
    assert await notes() == ["inner"]


@WITH_REQUIRES_NEW
async def test_a_requires_new_write_that_fails_spoils_only_itself(
    database: Database, notes: Notes
) -> None:
    async def inner(connection: AsyncConnection) -> None:
        await note(connection, "inner")
        await fail(connection)

    async def outer(connection: AsyncConnection) -> None:
        with pytest.raises(LookupError):
            await database.write(inner, Propagation.REQUIRES_NEW)
        await note(connection, "outer")

    await database.write(outer)
    assert await notes() == ["outer"]


@WITH_REQUIRES_NEW
async def test_a_requires_new_write_inside_a_read_is_committed(
    database: Database, notes: Notes
) -> None:
    async def outer(connection: AsyncConnection) -> int:
        await database.write(writing("inner"), Propagation.REQUIRES_NEW)
        rows = await connection.execute(sa.select(sa.func.count()).select_from(NOTE))
        return int(rows.scalar_one())

    await database.read(outer)
    assert await notes() == ["inner"]


@WITH_REQUIRES_NEW
async def test_a_lost_race_of_a_requires_new_write_repeats_it_alone(
    database: Database, notes: Notes
) -> None:
    outers, inners = count(1), count(1)

    async def inner(connection: AsyncConnection) -> None:
        number = next(inners)
        await note(connection, f"inner {number}")
        if number == 1:
            await note(connection, f"inner {number}")

    async def outer(connection: AsyncConnection) -> None:
        next(outers)
        await database.write(inner, Propagation.REQUIRES_NEW)
        await note(connection, "outer")

    await database.write(outer)
    assert await notes() == ["inner 2", "outer"]
    assert (next(outers), next(inners)) == (2, 3)


@ON_SERVERS
async def test_outers_that_hold_every_connection_do_not_starve_their_inners(
    database: Database, notes: Notes
) -> None:
    outers = 20
    met = asyncio.Barrier(outers)

    async def outer(connection: AsyncConnection, number: int) -> None:
        await connection.exec_driver_sql("SELECT 1")
        await met.wait()
        await database.write(writing(f"inner {number:02}"), Propagation.REQUIRES_NEW)

    tasks = (database.write(partial(outer, number=number)) for number in range(outers))
    async with asyncio.timeout(60):
        await asyncio.gather(*tasks)
    assert len(await notes()) == outers


@ON_SERVERS
async def test_an_inner_that_waits_for_its_own_outer_is_told_so_and_changes_nothing(
    database: Database, notes: Notes
) -> None:
    inners = count(1)

    async def rename(connection: AsyncConnection) -> None:
        next(inners)
        await connection.execute(NOTE.update().values(text="inner"))

    async def outer(connection: AsyncConnection) -> None:
        await connection.execute(NOTE.update().values(text="outer"))
        with pytest.raises(Conflict, match="TRANSACTION_WAITS_FOR_ITSELF"):
            await database.write(rename, Propagation.REQUIRES_NEW)
        await database.write(writing("after"))

    await database.write(writing("before"))
    await database.write(outer)
    assert await notes() == ["after", "outer"]
    assert next(inners) <= TRIES


@pytest.mark.parametrize("kind", ["sqlite-file"], indirect=True)
@pytest.mark.parametrize("suppressed", [False, True])
async def test_on_sqlite_a_second_transaction_is_refused_once_the_outer_has_sent_a_statement(
    database: Database, notes: Notes, suppressed: bool
) -> None:
    def second(text: str) -> Awaitable[None]:
        if suppressed:
            return database.suppress(lambda: database.write(writing(text)))
        return database.write(writing(text), Propagation.REQUIRES_NEW)

    async def outer(connection: AsyncConnection) -> None:
        await second("before")
        await connection.execute(sa.select(NOTE))
        with pytest.raises(Conflict, match="REQUIRES_NEW_REFUSED") as refusal:
            await second("after")
        assert "on-rollback" in refusal.value.next_step
        await note(connection, "outer")

    await database.write(outer)
    assert await notes() == ["before", "outer"]


@pytest.mark.parametrize("kind", ["sqlite-memory"], indirect=True)
async def test_a_memory_database_always_refuses_a_second_transaction(
    database: Database, notes: Notes
) -> None:
    async def outer(_connection: AsyncConnection) -> None:
        with pytest.raises(Conflict, match="REQUIRES_NEW_REFUSED"):
            await database.write(writing("inner"), Propagation.REQUIRES_NEW)
        with pytest.raises(Conflict, match="REQUIRES_NEW_REFUSED"):
            await notes()
        await database.write(writing("joined"))

    await database.write(outer)
    assert await notes() == ["joined"]


@WITH_REQUIRES_NEW
async def test_suppress_hides_the_open_transaction_and_brings_it_back(
    database: Database, notes: Notes
) -> None:
    async def beside() -> None:
        with pytest.raises(NoUnitOpen):
            current_unit()
        with pytest.raises(Conflict, match="TRANSACTION_REQUIRED"):
            await database.write(writing("never"), Propagation.MANDATORY)
        await database.write(writing("beside"))

    async def outer(connection: AsyncConnection) -> None:
        await database.suppress(beside)
        assert current_unit().connection is connection
        await fail(connection)

    with pytest.raises(LookupError):
        await database.write(outer)
    assert await notes() == ["beside"]
