"""The short way around a statement's run: what it finds, refuses and dooms is what SQLAlchemy's
own way does.
"""

import sqlite3
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.errors import Unavailable
from simulator import sql
from simulator.direct import Direct
from simulator.seeds import simulate
from simulator.sql import Board
from store.bulk import insert_many
from store.database import Database
from store.inline_sqlite import URL, SharedMemory
from store.prebuilt import prebuilt
from store.rows import changed, inserted, many, number, one

pytestmark = pytest.mark.unit

TABLE = sa.Table(
    "thing",
    sa.MetaData(),
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("name", sa.String, unique=True),
    sa.Column("kind", sa.String, nullable=False),
    sa.Column("facts", sa.JSON),
)
IDS = [uuid.UUID(int=number) for number in range(1, 5)]
SEEDS = (2, 3, 5, 12, 19, 1053)
"""Six patterns of faults, the database's own among them, in little time."""


@prebuilt
def _named(name: str, /) -> sa.Select[Any]:
    return sa.select(TABLE).where(TABLE.c.name == name, TABLE.c.kind == "shape")


@prebuilt
def _among(ids: list[uuid.UUID], /) -> sa.Select[Any]:
    return sa.select(TABLE.c.id, TABLE.c.name.label("called")).where(TABLE.c.id.in_(ids))


@prebuilt
def _counted() -> sa.Select[Any]:
    return sa.select(sa.func.count()).select_from(TABLE)


@prebuilt
def _rename(thing_id: uuid.UUID, name: str | None, /) -> sa.Update:
    return TABLE.update().where(TABLE.c.id == thing_id).values(name=name)


@pytest.fixture(params=[True, False], ids=["direct", "through SQLAlchemy"])
def board(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Board]:
    if not request.param:
        through_sqlalchemy(monkeypatch)
    memory = SharedMemory()
    memory.raw.execute(
        "CREATE TABLE thing (id CHAR(32) PRIMARY KEY, name TEXT UNIQUE, kind TEXT NOT NULL,"
        " facts JSON)"
    )
    made = Board()
    made.plug_in(memory, lambda _statement: None)
    yield made
    memory.close()


def through_sqlalchemy(monkeypatch: pytest.MonkeyPatch) -> None:
    def many_rows(connection: sa.Connection, text: str, rows: Any) -> None:
        connection.exec_driver_sql(text, rows)

    monkeypatch.setattr(Direct, "ready", lambda *_: None)
    monkeypatch.setattr(sql, "run_many", many_rows)


async def fill(connection: AsyncConnection) -> None:
    rows = [
        {"id": each, "name": f"thing {each.int}", "kind": "shape", "facts": {"n": each.int}}
        for each in IDS[:3]
    ]
    await insert_many(connection, TABLE, rows[:2])
    await inserted(connection, TABLE, rows[2])


async def test_rows_come_back_as_they_went_in(board: Board) -> None:
    async def work(connection: AsyncConnection) -> None:
        await fill(connection)
        whole = {"id": IDS[2], "name": "thing 3", "kind": "shape", "facts": {"n": 3}}
        assert await one(connection, _named("thing 3")) == whole
        assert await one(connection, _named("nothing")) is None
        assert await number(connection, _counted()) == 3
        assert await changed(connection, _rename(IDS[0], None)) == 1
        assert await changed(connection, _rename(IDS[3], "none of ours")) == 0

    await Database(URL, board.engine).write(work)


async def test_a_list_of_any_length_is_asked_for_with_the_same_statement(board: Board) -> None:
    async def work(connection: AsyncConnection) -> None:
        await fill(connection)
        for ids in ([], IDS[:1], IDS, IDS[1:3], [IDS[3]]):
            found = await many(connection, _among(ids))
            known = [each for each in ids if each != IDS[3]]
            assert found == [{"id": each, "called": f"thing {each.int}"} for each in known]

    await Database(URL, board.engine).write(work)


async def test_a_broken_rule_is_told_as_one_and_dooms_the_transaction(board: Board) -> None:
    database = Database(URL, board.engine)
    await database.write(fill)

    async def work(connection: AsyncConnection) -> None:
        with pytest.raises(IntegrityError) as refused:
            await changed(connection, _rename(IDS[0], "thing 2"))
        assert isinstance(refused.value.orig, sqlite3.IntegrityError)

    # A key that was taken is a race that was lost: it is tried again before it is given up.
    with pytest.raises(Unavailable, match="lost 3 races"):
        await database.write(work)


async def test_a_reading_transaction_refuses_to_change_anything(board: Board) -> None:
    async def work(connection: AsyncConnection) -> None:
        await changed(connection, _rename(IDS[0], "other"))

    with pytest.raises(Exception, match="read"):
        await Database(URL, board.engine).read(work)


async def test_a_statement_that_the_database_does_not_let_through_is_its_error(
    board: Board,
) -> None:
    def shut(statement: str) -> None:
        if "thing" in statement:
            raise sqlite3.OperationalError("disk I/O error")

    async def work(connection: AsyncConnection) -> None:
        with pytest.raises(OperationalError, match="disk I/O error"):
            await one(connection, _named("thing 1"))

    board.plug_in(board._memory, shut)  # type: ignore[arg-type]
    with pytest.raises(Exception, match="an inner part had failed"):
        await Database(URL, board.engine).write(work)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_seed_gives_the_same_trace_either_way(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    direct = simulate(seed)
    through_sqlalchemy(monkeypatch)
    assert simulate(seed).digest == direct.digest
