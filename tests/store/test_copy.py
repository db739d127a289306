"""Moving to another database loses nothing, or changes nothing."""

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.errors import Conflict, Invalid
from store import copy as copying
from store import migrate
from store.columns import metadata
from store.copy import copy
from store.database import Database
from tests.store.filled import contents, fill

pytestmark = pytest.mark.store

ON_DISK = pytest.mark.parametrize("kind", ["sqlite-file", "postgresql", "mariadb"], indirect=True)
Rows = dict[str, list[dict[str, Any]]]


@pytest.fixture
async def filled_file(tmp_path: Path) -> tuple[str, Rows]:
    """An SQLite file with rows in every table, and what they are."""
    url = f"sqlite+aiosqlite:///{tmp_path / 'filled.db'}"
    await migrate.upgrade(url)
    return url, await in_one(url, fill)


async def in_one(url: str, work: Any, *arguments: Any) -> Any:
    database = Database(url)
    try:
        return await database.alone(lambda connection: work(connection, *arguments))
    finally:
        await database.close()


def number_of_rows(connection: sa.Connection) -> int:
    count = sa.func.count()
    tables = metadata.sorted_tables
    return sum(connection.scalar(sa.select(count).select_from(table)) or 0 for table in tables)


@ON_DISK
async def test_a_copy_of_sqlite_has_every_row_of_every_table_unchanged(
    filled_file: tuple[str, Rows], empty_url: str
) -> None:
    source, rows = filled_file
    copied = await copy(source, empty_url)
    assert copied == {table.name: 2 for table in metadata.sorted_tables}
    assert await in_one(empty_url, contents, rows) == rows
    assert await migrate.current(empty_url) == migrate.newest()


@ON_DISK
async def test_a_copy_back_to_sqlite_has_every_row_of_every_table_unchanged(
    empty_url: str, tmp_path: Path
) -> None:
    await migrate.upgrade(empty_url)
    rows = await in_one(empty_url, fill)
    target = f"sqlite+aiosqlite:///{tmp_path / 'back.db'}"
    await copy(empty_url, target)
    assert await in_one(target, contents, rows) == rows


@ON_DISK
async def test_a_row_may_refer_to_a_later_one_of_its_table_in_another_batch(
    filled_file: tuple[str, Rows], empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "BATCH", 1)
    source, rows = filled_file
    table = metadata.tables["operation"]
    first, second = (row["id"] for row in rows["operation"])

    def turn_round(connection: sa.Connection) -> None:
        connection.execute(table.update().where(table.c.id == second).values(parent_id=None))
        connection.execute(table.update().where(table.c.id == first).values(parent_id=second))

    await in_one(source, turn_round)
    await copy(source, empty_url)
    parents = await in_one(empty_url, lambda c: c.execute(sa.select(table.c.id, table.c.parent_id)))
    assert dict(parents.all()) == {first: second, second: None}


async def test_progress_is_told_for_every_table_up_to_its_last_row(
    filled_file: tuple[str, Rows], tmp_path: Path
) -> None:
    told: list[tuple[str, int, int]] = []
    target = f"sqlite+aiosqlite:///{tmp_path / 'target.db'}"
    await copy(filled_file[0], target, lambda *step: told.append(step))
    assert {step for step in told if step[1] == step[2]} == {
        (table.name, 2, 2) for table in metadata.sorted_tables
    }


@ON_DISK
async def test_a_target_with_a_row_is_refused_and_keeps_what_it_has(
    filled_file: tuple[str, Rows], empty_url: str
) -> None:
    await copy(filled_file[0], empty_url)
    with pytest.raises(Conflict, match="COPY_TARGET_NOT_EMPTY") as refusal:
        await copy(filled_file[0], empty_url)
    assert refusal.value.context["rows"] == 2
    assert await in_one(empty_url, contents, filled_file[1]) == filled_file[1]


@ON_DISK
async def test_a_copy_that_breaks_off_leaves_the_target_empty_and_may_be_repeated(
    filled_file: tuple[str, Rows], empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = metadata.sorted_tables[-1].name

    def break_off(table: str, _done: int, _total: int) -> None:
        if table == last:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await copy(filled_file[0], empty_url, break_off)
    assert await in_one(empty_url, number_of_rows) == 0
    await copy(filled_file[0], empty_url)
    assert await in_one(empty_url, number_of_rows) == 2 * len(metadata.sorted_tables)


@ON_DISK
async def test_a_row_that_arrives_changed_fails_the_copy_and_nothing_is_kept(
    filled_file: tuple[str, Rows], empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    faithful = copying._copy_table

    async def spoil(
        reading: AsyncConnection, writing: AsyncConnection, table: sa.Table, progress: Any
    ) -> copying.Content:
        there = await faithful(reading, writing, table, progress)
        if table.name == "host":
            await writing.execute(table.update().values(state_reason="another"))
        return there

    monkeypatch.setattr(copying, "_copy_table", spoil)
    with pytest.raises(Conflict, match=r"COPY_DIFFERS.*host"):
        await copy(filled_file[0], empty_url)
    assert await in_one(empty_url, number_of_rows) == 0


@pytest.mark.parametrize(
    ("revision", "step"), [("0001", "db upgrade"), ("9999", "version of the engine")]
)
async def test_a_source_of_another_revision_is_refused_with_the_way_out(
    filled_file: tuple[str, Rows], tmp_path: Path, revision: str, step: str
) -> None:
    change = f"UPDATE alembic_version SET version_num = '{revision}'"
    await in_one(filled_file[0], lambda connection: connection.exec_driver_sql(change))
    with pytest.raises(Conflict, match="COPY_REVISION") as refusal:
        await copy(filled_file[0], f"sqlite+aiosqlite:///{tmp_path / 'target.db'}")
    assert step in refusal.value.next_step
    assert not (tmp_path / "target.db").exists()


async def test_a_memory_database_cannot_be_copied_by_its_address(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="DATABASE_IN_MEMORY"):
        await copy("sqlite+aiosqlite:///:memory:", f"sqlite+aiosqlite:///{tmp_path / 'target.db'}")
