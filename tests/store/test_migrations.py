"""The migrations give exactly the tables that the code believes in."""

import asyncio
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from domain.errors import Invalid, Unavailable
from store import migrate, schema, schema_ha
from store.columns import metadata
from store.database import Database

pytestmark = pytest.mark.store

ROOT = Path(__file__).resolve().parents[2]
ON_DISK = pytest.mark.parametrize("kind", ["sqlite-file", "postgresql", "mariadb"], indirect=True)
TABLES = (schema.host, schema_ha.vm_run)  # importing the modules fills the metadata

CATALOGUES = {
    "sqlite": "SELECT name, sql FROM sqlite_master WHERE name NOT LIKE 'alembic%'"
    " AND tbl_name NOT LIKE 'alembic%' ORDER BY name",
    "postgresql": "SELECT conrelid::regclass::text || '.' || conname, pg_get_constraintdef(oid)"
    " FROM pg_constraint WHERE connamespace = 'public'::regnamespace"
    " AND conrelid <> coalesce(to_regclass('alembic_version'), 0) UNION ALL"
    " SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'"
    " AND tablename <> 'alembic_version' UNION ALL"
    " SELECT table_name || '.' || column_name, concat_ws(' ', data_type, is_nullable,"
    " column_default, character_maximum_length) FROM information_schema.columns"
    " WHERE table_schema = 'public' AND table_name <> 'alembic_version' ORDER BY 1",
    "mariadb": "SELECT table_name, 'columns' FROM information_schema.tables"
    " WHERE table_schema = database() AND table_name <> 'alembic_version' ORDER BY 1",
}


def catalogue(connection: sa.Connection) -> dict[str, set[str]]:
    """What the database itself says about every table, column, index and constraint.

    SQLite and MariaDB tell it as a CREATE, whose parts may stand in another order.
    """
    rows = connection.exec_driver_sql(CATALOGUES[connection.dialect.name]).all()
    found = {str(name): str(sql) for name, sql in rows}
    if connection.dialect.name == "mariadb":
        for name in found:
            found[name] = connection.exec_driver_sql(f"SHOW CREATE TABLE `{name}`").all()[0][1]
    return {name: parts(sql) for name, sql in found.items()}


def parts(sql: str) -> set[str]:
    """What stands between the commas of the outermost brackets, and what stands around them."""
    head, _, rest = sql.partition("(")
    body, _, tail = rest.rpartition(")")
    pieces, depth = [""], 0
    for sign in body:
        depth += (sign == "(") - (sign == ")")
        if sign == "," and depth == 0:
            pieces.append("")
        else:
            pieces[-1] += sign
    return {" ".join(piece.split()) for piece in (head, *pieces, tail)}


def other_default(
    _: Any, _i: Any, column: sa.Column[Any], found: str | None, *_more: Any
) -> bool | None:
    """Whether a default differs; None lets Alembic judge by itself.

    MariaDB says 1 and 0 for true and false, and Alembic takes an empty text for no default.
    """
    default = column.server_default
    expected = str(default.arg) if isinstance(default, sa.DefaultClause) else None
    if isinstance(column.type, sa.Boolean) and found in ("0", "1"):
        return expected != ("true" if found == "1" else "false")
    if expected == "":
        return str(found).removesuffix("::character varying").strip("()'") != ""
    return None


async def test_the_migrated_tables_are_those_of_the_metadata(database: Database) -> None:
    def compare(connection: sa.Connection) -> object:
        options = {"compare_type": True, "compare_server_default": other_default}
        context = MigrationContext.configure(connection, opts=options)
        return compare_metadata(context, metadata)

    assert await database.alone(compare) == []


@ON_DISK
async def test_the_migrated_database_keeps_every_constraint_of_the_metadata(
    database: Database, empty_url: str
) -> None:
    plain = Database(empty_url)
    await plain.create_all(metadata)
    expected = await plain.alone(catalogue)
    await plain.close()
    assert len(expected) >= len(metadata.tables)
    assert await database.alone(catalogue) == expected


@ON_DISK
async def test_an_upgrade_reaches_the_newest_revision_and_may_be_repeated(empty_url: str) -> None:
    assert await migrate.current(empty_url) is None
    await migrate.upgrade(empty_url)
    await migrate.upgrade(empty_url)
    assert await migrate.current(empty_url) == migrate.newest() is not None


@ON_DISK
async def test_two_processes_may_upgrade_one_database_at_once(empty_url: str) -> None:
    code = f"import asyncio; from store.migrate import upgrade; asyncio.run(upgrade({empty_url!r}))"
    command_line = (sys.executable, "-c", code)
    one = await asyncio.create_subprocess_exec(*command_line, cwd=ROOT, stderr=subprocess.PIPE)
    other = await asyncio.create_subprocess_exec(*command_line, cwd=ROOT, stderr=subprocess.PIPE)
    ends = await asyncio.gather(one.communicate(), other.communicate())
    assert (one.returncode, other.returncode) == (0, 0), ends
    assert await migrate.current(empty_url) == migrate.newest()


@ON_DISK
async def test_many_upgrades_at_once_all_succeed(empty_url: str) -> None:
    await asyncio.gather(*(migrate.upgrade(empty_url) for _ in range(5)))
    assert await migrate.current(empty_url) == migrate.newest()


@pytest.fixture
def broken_folder(tmp_path: Path) -> Path:
    """Our migrations and one more, which fails after it has created a table."""
    folder = tmp_path / "migrations"
    shutil.copytree(migrate.FOLDER, folder)
    (folder / "versions" / "9999_broken.py").write_text(
        "import sqlalchemy as sa\nfrom alembic import op\n"
        f"revision, down_revision = '9999', '{migrate.newest()}'\n"
        "def upgrade():\n"
        "    op.create_table('half', sa.Column('id', sa.Integer))\n"
        "    op.execute('no SQL at all')\n"
    )
    return folder


@pytest.mark.parametrize("kind", ["sqlite-file", "postgresql"], indirect=True)
async def test_a_migration_that_fails_leaves_nothing_half_changed(
    empty_url: str, broken_folder: Path
) -> None:
    database = Database(empty_url)
    with pytest.raises((sa.exc.DBAPIError, Unavailable)):
        await database.alone(lambda c: command.upgrade(migrate.config(c, broken_folder), "head"))
    assert await database.alone(catalogue) == {}
    await database.close()


@pytest.mark.parametrize("kind", ["mariadb"], indirect=True)
async def test_on_mariadb_a_migration_that_fails_is_half_done_but_not_recorded_as_done(
    empty_url: str, broken_folder: Path
) -> None:
    """As the documentation says: restore the backup."""
    database = Database(empty_url)
    with pytest.raises((sa.exc.DBAPIError, Unavailable)):
        await database.alone(lambda c: command.upgrade(migrate.config(c, broken_folder), "head"))
    assert "half" in await database.alone(catalogue)
    await database.close()
    assert await migrate.current(empty_url) == migrate.newest()


async def test_the_template_gives_a_revision_that_runs(database: Database, tmp_path: Path) -> None:
    folder = tmp_path / "migrations"
    shutil.copytree(migrate.FOLDER, folder)

    def draft(connection: sa.Connection) -> None:
        config = migrate.config(connection, folder)
        command.revision(config, "Nothing new", autogenerate=True, rev_id="9999")
        command.upgrade(config, "head")

    await database.alone(draft)
    revision = await database.alone(lambda c: MigrationContext.configure(c).get_current_revision())
    # The next test may get the same database.
    newest = str(migrate.newest())
    await database.alone(lambda c: command.stamp(migrate.config(c, folder), newest))
    assert revision == "9999"


async def test_an_open_memory_database_is_migrated_in_place() -> None:
    database = Database("sqlite+aiosqlite:///:memory:")
    for _ in range(2):
        await migrate.upgrade_database(database)
    tables = await database.alone(lambda c: set(sa.inspect(c).get_table_names()))
    await database.close()
    assert tables == set(metadata.tables) | {"alembic_version"}


async def test_a_memory_database_is_not_upgraded_by_its_address() -> None:
    with pytest.raises(Invalid, match="DATABASE_IN_MEMORY"):
        await migrate.upgrade("sqlite+aiosqlite:///:memory:")
