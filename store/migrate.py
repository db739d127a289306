"""Bring a database to the tables that this version of the engine expects.

Everything happens on one connection in one transaction, which excludes every other migration: by an
advisory lock on the servers, by the one writer on SQLite. So processes that start together may all
call `upgrade`; the first one works and the others find nothing left to do. MariaDB commits with
each change of a table: a migration that fails there is half done, and the way out is the backup.
"""

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.errors import Invalid
from store.database import Database, in_memory
from store.dialects import missing_file

FOLDER = Path(__file__).parent / "migrations"


async def upgrade(url: str) -> None:
    """Bring the database at `url` to the newest revision; repeatable, safe from many processes.

    Unavailable when it cannot be reached; Invalid for a memory database, which would be gone
    before anyone could use it (`upgrade_database` serves those).
    """
    if in_memory(url):
        raise Invalid(
            "DATABASE_IN_MEMORY",
            "a memory database lives only as long as its connection",
            next_step="use a file, or upgrade the open database",
        )
    database = Database(url)
    try:
        await upgrade_database(database)
    finally:
        await database.close()


async def upgrade_database(database: Database) -> None:
    """Bring an open database to the newest revision; repeatable, safe from many processes."""
    await database.alone(lambda connection: command.upgrade(config(connection), "head"))


async def current(url: str) -> str | None:
    """The revision that the database at `url` stands at; None without tables, or without a file."""
    database = Database(url)
    if missing_file(url):
        return None
    try:
        return await database.alone(
            lambda connection: MigrationContext.configure(connection).get_current_revision()
        )
    finally:
        await database.close()


async def revision(connection: AsyncConnection) -> str | None:
    """The revision of the database that an open transaction reads, or None without tables."""
    return await connection.run_sync(
        lambda plain: MigrationContext.configure(plain).get_current_revision()
    )


def newest() -> str | None:
    """The revision that this version of the engine expects."""
    return _scripts().get_current_head()


def known(revision: str) -> bool:
    """Whether this version of the engine can upgrade from `revision`."""
    return revision in {script.revision for script in _scripts().walk_revisions()}


def config(connection: sa.Connection | None = None, folder: Path = FOLDER) -> Config:
    """Alembic's settings for one connection; there is no alembic.ini."""
    made = Config()
    made.set_main_option("script_location", str(folder).replace("%", "%%"))
    made.set_main_option("path_separator", "os")
    made.attributes["connection"] = connection
    return made


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(config())
