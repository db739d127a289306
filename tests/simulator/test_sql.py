"""The database of a simulation: the store's own transactions, with nothing left to the machine."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Iterator

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.errors import OutcomeUnknown, Unavailable
from simulator.sql import Board, Plain
from store.columns import metadata
from store.database import Database
from store.inline_sqlite import URL, SharedMemory

pytestmark = pytest.mark.unit

INSERT = sa.text("INSERT INTO word (text) VALUES (:text)")
COUNT = sa.text("SELECT count(*) FROM word")


@pytest.fixture
def memory() -> Iterator[SharedMemory]:
    made = SharedMemory()
    made.raw.execute("CREATE TABLE word (text TEXT UNIQUE)")
    yield made
    made.close()


@pytest.fixture
def board(memory: SharedMemory) -> Board:
    made = Board()
    made.plug_in(memory, lambda _statement: None)
    return made


def database(board: Board) -> Database:
    return Database(URL, board.engine)


async def write(to: Database, text: str) -> None:
    async def work(connection: AsyncConnection) -> None:
        await connection.execute(INSERT, {"text": text})

    await to.write(work)


async def count(of: Database) -> int:
    async def work(connection: AsyncConnection) -> int:
        return int((await connection.execute(COUNT)).scalar_one())

    return await of.read(work)


async def test_two_databases_of_one_board_share_what_is_plugged_in(board: Board) -> None:
    await write(database(board), "one")
    assert await count(database(board)) == 1


async def test_a_transaction_that_fails_leaves_nothing(board: Board) -> None:
    one = database(board)

    async def work(connection: AsyncConnection) -> None:
        await connection.execute(INSERT, {"text": "one"})
        raise LookupError

    with pytest.raises(LookupError):
        await one.write(work)
    assert await count(one) == 0


async def test_transactions_begun_together_run_one_after_the_other(board: Board) -> None:
    seen: list[str] = []

    def work_of(name: str) -> Awaitable[None]:
        async def work(connection: AsyncConnection) -> None:
            for number in range(3):
                await connection.execute(INSERT, {"text": f"{name}{number}"})
                seen.append(name)

        return database(board).write(work)

    await asyncio.gather(*(work_of(name) for name in "abc"))
    assert seen == [*"aaa", *"bbb", *"ccc"]


async def test_another_memory_can_be_plugged_in_under_the_same_engine(board: Board) -> None:
    one = database(board)
    await write(one, "one")
    other = SharedMemory()
    other.raw.execute("CREATE TABLE word (text TEXT)")
    board.plug_in(other, lambda _statement: None)
    assert await count(one) == 0
    other.close()


async def test_a_copy_holds_the_rows_and_goes_its_own_way(
    board: Board, memory: SharedMemory
) -> None:
    await write(database(board), "one")
    copied = SharedMemory(memory.raw)
    await write(database(board), "two")
    assert copied.raw.execute("SELECT text FROM word").fetchall() == [("one",)]
    assert copied.raw.execute("PRAGMA foreign_keys").fetchone() == (1,)
    copied.close()


async def test_a_gate_that_lets_nothing_through_is_a_database_that_is_away(
    board: Board, memory: SharedMemory
) -> None:
    def shut(_statement: str) -> None:
        raise sqlite3.OperationalError("unable to open database file")

    board.plug_in(memory, shut)
    with pytest.raises(Unavailable) as refused:
        await write(database(board), "one")
    assert refused.value.code == "DATABASE_UNAVAILABLE"


async def test_a_gate_that_shuts_at_the_commit_leaves_the_outcome_unknown(
    board: Board, memory: SharedMemory
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
    board: Board,
) -> None:
    given_up = Plain(board)

    async def work(connection: AsyncConnection) -> None:
        await connection.execute(INSERT, {"text": "one"})
        given_up.close()

    one = database(board)
    await one.write(work)
    assert await count(one) == 1


async def test_nothing_is_reached_when_nothing_is_plugged_in(board: Board) -> None:
    board.pull_out()
    with pytest.raises(Unavailable):
        await count(database(board))


async def test_a_savepoint_that_is_rolled_back_leaves_the_rest(board: Board) -> None:
    async def work(connection: AsyncConnection) -> None:
        await connection.execute(INSERT, {"text": "kept"})
        savepoint = await connection.begin_nested()
        await connection.execute(INSERT, {"text": "dropped"})
        await savepoint.rollback()

    one = database(board)
    await one.write(work)
    assert await count(one) == 1


async def test_who_was_told_of_a_commit_was_told_after_others_had_their_turn(board: Board) -> None:
    seen: list[str] = []

    async def first() -> None:
        await write(database(board), "one")
        seen.append("told")

    async def other() -> None:
        seen.append("other")

    await asyncio.gather(first(), other())
    assert seen == ["other", "told"]


async def test_each_writing_statement_is_counted_for_its_table_and_no_reading_one(
    board: Board,
) -> None:
    before = board.changes(("word", "other"))
    await write(database(board), "one")
    await count(database(board))
    assert (before, board.changes(("word", "other"))) == ((0, 0), (1, 0))
    assert board.any("SELECT 1 FROM word")


def test_no_rule_of_the_schema_changes_another_table_along() -> None:
    keys = (key for table in metadata.tables.values() for key in table.foreign_keys)
    assert not [str(key) for key in keys if key.ondelete or key.onupdate]
