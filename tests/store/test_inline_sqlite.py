"""The driver of simulations: the store's own transactions, with nothing left to the machine."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Iterator

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.errors import OutcomeUnknown, Unavailable
from store.database import Database
from store.inline_sqlite import URL, InlineConnection, SharedMemory, Switchboard

pytestmark = pytest.mark.store

INSERT = sa.text("INSERT INTO word (text) VALUES (:text)")
COUNT = sa.text("SELECT count(*) FROM word")


@pytest.fixture
def memory() -> Iterator[SharedMemory]:
    made = SharedMemory()
    made.raw.execute("CREATE TABLE word (text TEXT UNIQUE)")
    yield made
    made.close()


@pytest.fixture
def board(memory: SharedMemory) -> Switchboard:
    made = Switchboard()
    made.plug_in(memory, lambda _statement: None)
    return made


def database(board: Switchboard) -> Database:
    return Database(URL, board.engine)


async def write(to: Database, text: str) -> None:
    async def work(connection: AsyncConnection) -> None:
        await connection.execute(INSERT, {"text": text})

    await to.write(work)


async def count(of: Database) -> int:
    async def work(connection: AsyncConnection) -> int:
        return int((await connection.execute(COUNT)).scalar_one())

    return await of.read(work)


async def test_two_databases_of_one_board_share_what_is_plugged_in(board: Switchboard) -> None:
    await write(database(board), "one")
    assert await count(database(board)) == 1


async def test_a_transaction_that_fails_leaves_nothing(board: Switchboard) -> None:
    one = database(board)

    async def work(connection: AsyncConnection) -> None:
        await connection.execute(INSERT, {"text": "one"})
        raise LookupError

    with pytest.raises(LookupError):
        await one.write(work)
    assert await count(one) == 0


async def test_transactions_begun_together_run_one_after_the_other(board: Switchboard) -> None:
    seen: list[str] = []

    def work_of(name: str) -> Awaitable[None]:
        async def work(connection: AsyncConnection) -> None:
            for number in range(3):
                await connection.execute(INSERT, {"text": f"{name}{number}"})
                seen.append(name)

        return database(board).write(work)

    await asyncio.gather(*(work_of(name) for name in "abc"))
    assert seen == [*"aaa", *"bbb", *"ccc"]


async def test_another_memory_can_be_plugged_in_under_the_same_engine(board: Switchboard) -> None:
    one = database(board)
    await write(one, "one")
    other = SharedMemory()
    other.raw.execute("CREATE TABLE word (text TEXT)")
    board.plug_in(other, lambda _statement: None)
    assert await count(one) == 0
    other.close()


async def test_a_copy_holds_the_rows_and_goes_its_own_way(
    board: Switchboard, memory: SharedMemory
) -> None:
    await write(database(board), "one")
    copied = SharedMemory(memory.raw)
    await write(database(board), "two")
    assert copied.raw.execute("SELECT text FROM word").fetchall() == [("one",)]
    assert copied.raw.execute("PRAGMA foreign_keys").fetchone() == (1,)
    copied.close()


async def test_a_gate_that_lets_nothing_through_is_a_database_that_is_away(
    board: Switchboard, memory: SharedMemory
) -> None:
    def shut(_statement: str) -> None:
        raise sqlite3.OperationalError("unable to open database file")

    board.plug_in(memory, shut)
    with pytest.raises(Unavailable) as refused:
        await write(database(board), "one")
    assert refused.value.code == "DATABASE_UNAVAILABLE"


async def test_a_gate_that_shuts_at_the_commit_leaves_the_outcome_unknown(
    board: Switchboard, memory: SharedMemory
) -> None:
    def shut(statement: str) -> None:
        if statement == "COMMIT":
            raise sqlite3.OperationalError("unable to open database file")

    board.plug_in(memory, shut)
    with pytest.raises(OutcomeUnknown):
        await write(database(board), "one")
    board.plug_in(memory, lambda _statement: None)
    assert await count(database(board)) == 0


async def test_a_connection_that_is_given_up_ends_no_transaction_of_another(
    board: Switchboard,
) -> None:
    given_up = InlineConnection(board)

    async def work(connection: AsyncConnection) -> None:
        await connection.execute(INSERT, {"text": "one"})
        given_up.stop()

    one = database(board)
    await one.write(work)
    assert await count(one) == 1


async def test_nothing_is_reached_when_nothing_is_plugged_in(board: Switchboard) -> None:
    board.pull_out()
    with pytest.raises(Unavailable):
        await count(database(board))
