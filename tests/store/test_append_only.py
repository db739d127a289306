"""The audit trail: rows are added, numbered once, and never change or go."""

from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from store import plumbing
from store.append_only import REFUSAL
from store.columns import metadata
from store.database import Database
from store.ids import new_id
from store.rows import Row, many
from store.schema import event
from store.types import UtcDateTime
from tests.store.world import START, World

pytestmark = pytest.mark.store

ON_DISK = pytest.mark.parametrize("kind", ["sqlite-file", "postgresql", "mariadb"], indirect=True)
SQLITE = pytest.mark.parametrize("kind", ["sqlite-file", "sqlite-memory"], indirect=True)
FIXED = [column.name for column in event.columns if column.name != "seq"]
CATALOGUES = {
    "sqlite": "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' ORDER BY name",
    "postgresql": "SELECT tgname, pg_get_triggerdef(oid) FROM pg_trigger"
    " WHERE NOT tgisinternal ORDER BY tgname",
    "mariadb": "SELECT trigger_name, concat_ws(' ', action_timing, event_manipulation,"
    " action_statement) FROM information_schema.triggers"
    " WHERE trigger_schema = database() ORDER BY trigger_name",
}


async def written(world: World, *, numbered: bool) -> Row:
    """One event as it stands in the table."""
    row: Row = {"id": new_id(), "type": "vm.start.accepted", "subject_type": "vm"}
    row |= {"subject_id": new_id(), "principal": "ann", "correlation_id": "c-1"}
    row |= {"operation_id": new_id(), "reason": "spring", "before": {"a": 1}, "after": {"a": 2}}
    await world.do(plumbing.append_event, row | {"data": {"name": "db"}, "at": START})
    if numbered:
        assert await world.do(plumbing.number_events, 10) == 1
    (found,) = await world.do(many, sa.select(event))
    return found


def other(column: sa.Column[Any]) -> Any:
    """A value that the column may hold and that the event does not have."""
    values: dict[type[Any], Any] = {
        sa.Uuid: new_id(),
        sa.String: "other",
        sa.JSON: {"other": True},
        UtcDateTime: START.replace(year=2030),
    }
    return next(value for kind, value in values.items() if isinstance(column.type, kind))


async def refused(world: World, statement: sa.Executable) -> None:
    """The statement is refused by the database, and the event stays as it was."""
    before = await world.do(many, sa.select(event))

    async def execute(connection: Any) -> None:
        await connection.execute(statement)

    with pytest.raises(DBAPIError, match=REFUSAL):
        await world.database.write(execute)
    assert await world.do(many, sa.select(event)) == before


@pytest.mark.parametrize("numbered", [False, True], ids=["unnumbered", "numbered"])
async def test_no_event_can_be_deleted(world: World, numbered: bool) -> None:
    row = await written(world, numbered=numbered)
    await refused(world, event.delete())
    await refused(world, event.delete().where(event.c.id == row["id"]))


@pytest.mark.parametrize("column", FIXED)
async def test_no_column_of_an_event_can_be_changed(world: World, column: str) -> None:
    await written(world, numbered=False)
    await refused(world, event.update().values({column: other(event.c[column])}))
    await refused(world, event.update().values({column: other(event.c[column]), "seq": 1}))


async def test_an_event_is_numbered_once_and_keeps_its_number(world: World) -> None:
    row = await written(world, numbered=True)
    assert row["seq"] == 1
    await refused(world, event.update().values(seq=2))
    await refused(world, event.update().values(seq=None))


def swapped(dialect: str, columns: str, values: str) -> str:
    """A statement that would put a new event in the place of one with the same key."""
    if dialect == "postgresql":
        keys = columns.split(",")[0]
        new = f"INSERT INTO event ({columns}) SELECT {values} FROM event LIMIT 1"
        return f"{new} ON CONFLICT ({keys}) DO UPDATE SET principal = excluded.principal"
    return f"REPLACE INTO event ({columns}) SELECT {values} FROM event LIMIT 1"


def as_of(dialect: str, row: Row, key: str) -> str:
    """Replace an event by one of mallory's that has its id, or only its number."""
    quote = "`" if dialect == "mariadb" else '"'
    names = [key, *(name for name in row if name != key)]
    new = {"principal": "'mallory'"}
    if key == "seq":
        new["id"] = f"'{uuid4().hex}'" + ("::uuid" if dialect == "postgresql" else "")
    quoted = {name: f"{quote}{name}{quote}" for name in names}
    values = [new.get(name, quoted[name]) for name in names]
    return swapped(dialect, ", ".join(quoted.values()), ", ".join(values))


@pytest.mark.parametrize("key", ["id", "seq"])
async def test_no_event_can_be_replaced_by_a_new_one_with_its_key(world: World, key: str) -> None:
    row = await written(world, numbered=key == "seq")
    await refused(world, sa.text(as_of(world.database.dialect, row, key)))


@SQLITE
async def test_no_event_can_be_replaced_by_way_of_its_row_id(world: World) -> None:
    await written(world, numbered=True)
    names = ", ".join(f'"{name}"' for name in ("rowid", *FIXED))
    values = ", ".join(f"'{uuid4().hex}'" if name == "id" else f'"{name}"' for name in FIXED)
    swap = f"REPLACE INTO event ({names}) SELECT rowid, {values} FROM event"
    await refused(world, sa.text(swap))


@SQLITE
@pytest.mark.parametrize("column", ["seq", "rowid"])
async def test_no_event_can_push_another_out_of_its_place(world: World, column: str) -> None:
    first = await written(world, numbered=True)
    await world.do(plumbing.append_event, first | {"id": new_id(), "seq": None})
    place = f"(SELECT {column} FROM event WHERE seq = 1)"
    await refused(
        world, sa.text(f"UPDATE OR REPLACE event SET {column} = {place} WHERE seq IS NULL")
    )


@SQLITE
async def test_looking_for_an_event_in_the_way_reads_no_whole_table(database: Database) -> None:
    def plans(connection: sa.Connection) -> list[str]:
        lookups = [f"SELECT 1 FROM event WHERE {name} = 1" for name in ("id", "seq", "rowid")]
        rows = [
            row
            for lookup in lookups
            for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {lookup}").all()
        ]
        return [str(row[-1]) for row in rows]

    found = await database.alone(plans)
    assert len(found) == 3
    assert all(plan.startswith("SEARCH") for plan in found)


@pytest.mark.parametrize("kind", ["postgresql"], indirect=True)
async def test_the_table_of_events_cannot_be_emptied_at_once(world: World) -> None:
    await written(world, numbered=True)
    await refused(world, sa.text("TRUNCATE event"))


def triggers(connection: sa.Connection) -> dict[str, str]:
    rows = connection.exec_driver_sql(CATALOGUES[connection.dialect.name]).all()
    return {str(name): str(text) for name, text in rows}


@ON_DISK
async def test_the_migration_and_the_metadata_make_the_same_guards(
    database: Database, empty_url: str
) -> None:
    plain = Database(empty_url)
    await plain.create_all(metadata)
    expected = await plain.alone(triggers)
    await plain.close()
    assert len(expected) >= 2
    assert await database.alone(triggers) == expected
