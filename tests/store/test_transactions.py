"""Transactions inside transactions: who joins, who is refused, what outlives a rollback."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import count
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection
from structlog.testing import capture_logs

from domain.errors import Conflict, Unavailable
from store.database import TRIES, Database, Propagation
from store.unit_of_work import NoUnitOpen, UnitOfOtherTask, current_unit
from tests.store.world import World

pytestmark = pytest.mark.store

ON_SERVERS = pytest.mark.parametrize("kind", ["postgresql", "mariadb"], indirect=True)
WITH_REQUIRES_NEW = pytest.mark.parametrize(
    "kind", ["sqlite-file", "postgresql", "mariadb"], indirect=True
)
NOTE = sa.table("note", sa.column("text"))


@pytest.fixture(autouse=True)
async def notes(database: Database) -> Callable[[], Awaitable[list[str]]]:
    """A table of one column, and what stands in it."""

    def create(connection: sa.Connection) -> None:
        prefix = "CREATE TABLE IF NOT EXISTS"
        connection.exec_driver_sql(f"{prefix} note (text VARCHAR(64) PRIMARY KEY)")
        connection.exec_driver_sql("DELETE FROM note")

    await database.alone(create)

    async def found(connection: AsyncConnection) -> list[str]:
        return sorted((await connection.execute(sa.select(NOTE.c.text))).scalars())

    return lambda: database.suppress(lambda: database.read(found))


Notes = Callable[[], Awaitable[list[str]]]


async def note(connection: AsyncConnection, text: str) -> None:
    await connection.execute(NOTE.insert().values(text=text))


def writing(text: str) -> Callable[[AsyncConnection], Awaitable[None]]:
    return partial(note, text=text)


async def fail(_connection: AsyncConnection) -> None:
    raise LookupError("the inner part failed")


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


async def test_a_failed_outer_leaves_only_the_row_that_its_on_rollback_hook_writes(
    database: Database, notes: Notes
) -> None:
    """How the audit row of a failed action survives."""

    async def inner(connection: AsyncConnection) -> None:
        current_unit().on_rollback(lambda: database.write(writing("audit: it failed")))
        current_unit().on_commit(lambda: database.write(writing("never")))
        await note(connection, "inner")
        await fail(connection)

    async def outer(connection: AsyncConnection) -> None:
        await note(connection, "outer")
        await database.write(inner)

    with pytest.raises(LookupError):
        await database.write(outer)
    assert await notes() == ["audit: it failed"]


async def test_an_on_commit_hook_runs_after_the_commit_with_no_transaction_open(
    database: Database, notes: Notes
) -> None:
    seen: list[Any] = []

    async def hook() -> None:
        with pytest.raises(NoUnitOpen):
            current_unit()
        seen.append(await notes())
        await database.write(writing("hook"))

    async def outer(connection: AsyncConnection) -> None:
        current_unit().on_commit(hook)
        current_unit().on_rollback(lambda: database.write(writing("never")))
        await note(connection, "outer")
        assert seen == []

    await database.write(outer)
    assert seen == [["outer"]]
    assert await notes() == ["hook", "outer"]


async def test_hooks_of_a_lost_try_are_forgotten(database: Database, notes: Notes) -> None:
    tries = count(1)

    async def outer(connection: AsyncConnection) -> None:
        number = next(tries)
        current_unit().on_commit(lambda: database.write(writing(f"committed {number}")))
        current_unit().on_rollback(lambda: database.write(writing(f"rolled back {number}")))
        await note(connection, "outer")
        if number < 3:
            await note(connection, "outer")

    await database.write(outer)
    assert await notes() == ["committed 3", "outer"]


async def test_a_transaction_that_gives_up_runs_the_rollback_hooks_of_its_last_try_once(
    database: Database, notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("store.database.TRIES", 3)
    tries = count(1)

    async def outer(connection: AsyncConnection) -> None:
        number = next(tries)
        current_unit().on_rollback(lambda: database.write(writing(f"rolled back {number}")))
        await note(connection, "outer")
        await note(connection, "outer")

    with pytest.raises(Unavailable, match="DATABASE_BUSY"):
        await database.write(outer)
    assert await notes() == ["rolled back 3"]


async def test_a_cancelled_transaction_runs_its_rollback_hook(
    database: Database, notes: Notes
) -> None:
    inside = asyncio.Event()

    async def outer(connection: AsyncConnection) -> None:
        current_unit().on_rollback(lambda: database.write(writing("audit: cancelled")))
        await note(connection, "outer")
        inside.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(database.write(outer))
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await notes() == ["audit: cancelled"]


async def test_a_hook_that_fails_is_logged_and_neither_the_result_nor_the_next_hook_suffers(
    database: Database, notes: Notes
) -> None:
    async def broken() -> None:
        raise LookupError("no such hook")

    async def outer(connection: AsyncConnection) -> str:
        current_unit().on_commit(broken)
        current_unit().on_commit(lambda: database.write(writing("second hook")))
        await note(connection, "outer")
        return "result"

    with capture_logs() as logs:
        assert await database.write(outer) == "result"
    assert [line["event"] for line in logs] == ["transaction hook failed"]
    assert await notes() == ["outer", "second hook"]


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
