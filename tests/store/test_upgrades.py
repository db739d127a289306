"""Every released revision, with rows in every table, can be upgraded and can be gone back to."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.script import ScriptDirectory

from store import migrate
from store.columns import metadata
from store.database import Database
from tests.store import mariadb as maria
from tests.store.filled import contents, fill
from tests.store.postgres import Cluster, programs

pytestmark = pytest.mark.store

ON_DISK = pytest.mark.parametrize("kind", ["sqlite-file", "postgresql", "mariadb"], indirect=True)
ON_ALL = pytest.mark.parametrize(
    "kind", ["sqlite-file", "sqlite-memory", "postgresql", "mariadb"], indirect=True
)
REVISIONS = sorted(
    script.revision for script in ScriptDirectory.from_config(migrate.config()).walk_revisions()
)
EACH_REVISION = pytest.mark.parametrize("revision", REVISIONS)


@pytest.fixture
async def old(kind: str, empty_url: str) -> Any:
    """A database without tables, of each kind."""
    database = Database("sqlite+aiosqlite:///:memory:" if kind == "sqlite-memory" else empty_url)
    yield database
    await database.close()


def upgrade_to(revision: str) -> Callable[[sa.Connection], None]:
    return lambda connection: command.upgrade(migrate.config(connection), revision)


@ON_ALL
@EACH_REVISION
async def test_an_upgrade_from_each_revision_keeps_every_row(old: Database, revision: str) -> None:
    await old.alone(upgrade_to(revision))
    rows = await old.alone(fill)
    await migrate.upgrade_database(old)
    moved = rows.pop("lock", [])
    assert await old.alone(lambda connection: contents(connection, rows)) == rows
    if moved:
        locks = {"entity_lock": moved}
        assert await old.alone(lambda connection: contents(connection, locks)) == locks


@ON_ALL
async def test_an_upgraded_old_database_takes_rows_in_every_table(old: Database) -> None:
    await old.alone(upgrade_to(REVISIONS[0]))
    await migrate.upgrade_database(old)
    rows = await old.alone(fill)
    assert {name: len(found) for name, found in rows.items()} == dict.fromkeys(metadata.tables, 2)


@ON_ALL
async def test_runs_of_before_hold_the_vcpus_of_their_vms_on_each_host_that_they_name(
    old: Database,
) -> None:
    await old.alone(upgrade_to("0020"))
    rows = await old.alone(fill)
    first, second = (row["id"] for row in rows["host"])
    (run, lost), (vm, other) = rows["vm_run"], rows["vm"]
    table = {name: metadata.tables[name] for name in ("vm", "vm_run", "host")}

    def moving(connection: sa.Connection) -> None:
        ids = {"target_host_id": second, "moved_by": run["operation_id"]}
        numbers = {"target_epoch": 1, "target_generation": 2}
        moved = table["vm_run"].update().where(table["vm_run"].c.id == run["id"])
        connection.execute(moved.values(state="migrating", **ids, **numbers))
        for each, vcpus in ((vm, 7), (other, 5)):
            wide = table["vm"].update().where(table["vm"].c.id == each["id"])
            connection.execute(wide.values(vcpus=vcpus))

    await old.alone(moving)
    await migrate.upgrade_database(old)

    def found(connection: sa.Connection) -> tuple[dict[Any, int], dict[Any, int]]:
        taken, held = table["vm_run"].c, table["host"].c
        runs = connection.execute(sa.select(taken.id, taken.vcpus)).all()
        hosts = connection.execute(sa.select(held.id, held.vcpus_reserved)).all()
        return {row[0]: row[1] for row in runs}, {row[0]: row[1] for row in hosts}

    assert await old.alone(found) == ({run["id"]: 7, lost["id"]: 5}, {first: 7, second: 7})


@ON_DISK
@pytest.mark.parametrize("revision", REVISIONS[:-1])
async def test_going_back_is_restoring_the_backup_of_before_the_upgrade(
    old: Database, revision: str, kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    await old.alone(upgrade_to(revision))
    rows = await old.alone(fill)
    await old.checkpoint()
    backup, restore = BACKUPS[kind]
    backup(request, old.url, tmp_path / "backup")
    await migrate.upgrade_database(old)
    assert await migrate.current(old.url) == migrate.newest()
    await old.close()
    url = restore(request, old.url, tmp_path / "backup")
    assert await migrate.current(url) == revision
    again = Database(url)
    assert await again.alone(lambda connection: contents(connection, rows)) == rows
    await again.close()


def _copy_file(_request: pytest.FixtureRequest, url: str, backup: Path) -> None:
    shutil.copy(_file(url), backup)


def _put_file_back(_request: pytest.FixtureRequest, url: str, backup: Path) -> str:
    for leftover in ("-wal", "-shm"):
        Path(f"{_file(url)}{leftover}").unlink(missing_ok=True)
    shutil.copy(backup, _file(url))
    return url


def _file(url: str) -> str:
    return str(sa.make_url(url).database)


def _pg_dump(request: pytest.FixtureRequest, url: str, backup: Path) -> None:
    command_line = [*_pg_tool(request, "pg_dump"), "--no-owner", f"--file={backup}"]
    _run([*command_line, str(sa.make_url(url).database)])


def _psql(request: pytest.FixtureRequest, url: str, backup: Path) -> str:
    name = f"{sa.make_url(url).database}_restored"
    _run([*_pg_tool(request, "createdb"), name])
    options = ["--quiet", "--set=ON_ERROR_STOP=1", "--single-transaction", f"--file={backup}"]
    _run([*_pg_tool(request, "psql"), *options, name])
    cluster: Cluster = request.getfixturevalue("postgres")
    return cluster.url(name)


def _pg_tool(request: pytest.FixtureRequest, name: str) -> list[str]:
    cluster: Cluster = request.getfixturevalue("postgres")
    folder = programs()
    assert folder is not None
    return [str(folder / name), "-h", "127.0.0.1", "-p", str(cluster.port), "-U", "holdfast"]


def _mariadb_dump(request: pytest.FixtureRequest, url: str, backup: Path) -> None:
    server: maria.Server = request.getfixturevalue("mariadb")
    database = str(sa.make_url(url).database)
    options = ["--single-transaction", "--hex-blob", f"--result-file={backup}"]
    _run(server.client("mariadb-dump", *options, "--databases", database))


def _mariadb(request: pytest.FixtureRequest, url: str, backup: Path) -> str:
    server: maria.Server = request.getfixturevalue("mariadb")
    name = str(sa.make_url(url).database)
    _run(server.client("mariadb", "-e", f"DROP DATABASE {name}"))
    with backup.open("rb") as statements:
        _run(server.client("mariadb"), stdin=statements)
    return url


def _run(command_line: list[str], stdin: Any = subprocess.DEVNULL) -> None:
    done = subprocess.run(
        command_line, stdin=stdin, capture_output=True, check=False, env=dict(os.environ)
    )
    assert done.returncode == 0, done.stderr.decode()


BACKUPS = {
    "sqlite-file": (_copy_file, _put_file_back),
    "postgresql": (_pg_dump, _psql),
    "mariadb": (_mariadb_dump, _mariadb),
}
