"""Copy every row of one database into another, of the same or another kind.

The source is read in one transaction, which sees one moment; the target is written in one, which
is committed only when each table holds the same rows on both sides: their number, and a digest of
their contents that does not depend on the order in which a database gives them. So a copy that
fails, or is interrupted, leaves the target's tables empty. What the source's engine writes while
the copy runs is not copied: stop it first.
"""

import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pydantic_core
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.errors import Conflict, EngineError, Invalid, NotFound
from store import migrate, schema, schema_ha
from store.columns import metadata
from store.database import Database
from store.dialects import in_memory, may_idle, missing_file

TABLES = (schema.cluster, schema_ha.incident)
"""Importing the two modules is what registers their tables."""

BATCH = 500
"""Rows at a time. Higher: more memory, and MariaDB refuses packets of more than 16 MB."""

Progress = Callable[[str, int, int], None]
"""Called with a table's name, the rows copied of it and the rows that it has."""


@dataclass(frozen=True, slots=True)
class Content:
    """What a table holds: equal contents have equal digests, in whatever order."""

    rows: int = 0
    digest: int = 0

    def with_row(self, row: sa.Row[Any]) -> "Content":
        """The content with one more row."""
        found = hashlib.sha256(_canonical(row)).digest()
        return Content(self.rows + 1, (self.digest + int.from_bytes(found)) % 2**256)


async def copy(source: str, target: str, progress: Progress = lambda *_: None) -> dict[str, int]:
    """Copy all rows from the database at `source` into the empty one at `target`; rows a table.

    Creates the target's tables when it has none. Not repeatable: the second copy finds a target
    that is not empty. Conflict: COPY_REVISION, COPY_TARGET_NOT_EMPTY, COPY_DIFFERS. Invalid:
    DATABASE_IN_MEMORY, DATABASE_URL_INVALID. NotFound: DATABASE_NOT_FOUND for a file that is not
    there. Unavailable: DATABASE_UNAVAILABLE, DATABASE_BUSY.
    """
    _refuse_memory(source, target)
    _refuse_missing(source)
    await _refuse_other_revision("source", await migrate.current(source))
    if await migrate.current(target) is None:
        await migrate.upgrade(target)
    await _refuse_other_revision("target", await migrate.current(target))
    # A statement of a copy may have to read or write a whole table.
    origin, destination = (Database(url, statement_s=None) for url in (source, target))
    try:

        async def work(reading: AsyncConnection) -> dict[str, int]:
            await may_idle(reading)
            return await destination.write(partial(_copy_all, reading, progress=progress))

        return await origin.read(work)
    finally:
        await origin.close()
        await destination.close()


async def content(connection: AsyncConnection, table: sa.Table) -> Content:
    """What a table holds now."""
    found = Content()
    async for rows in _batches(connection, sa.select(table)):
        for row in rows:
            found = found.with_row(row)
    return found


async def _copy_all(
    reading: AsyncConnection, writing: AsyncConnection, *, progress: Progress
) -> dict[str, int]:
    await may_idle(writing)
    await _refuse_rows(writing)
    copied = {}
    for table in metadata.sorted_tables:
        there = await _copy_table(reading, writing, table, progress)
        here = await content(writing, table)
        if here != there:
            raise _differs(table, there, here)
        copied[table.name] = there.rows
    return copied


async def _copy_table(
    reading: AsyncConnection, writing: AsyncConnection, table: sa.Table, progress: Progress
) -> Content:
    total = await _count(reading, table)
    own = _own_references(table)
    there = Content()
    progress(table.name, 0, total)
    async for rows in _batches(reading, sa.select(table)):
        for row in rows:
            there = there.with_row(row)
        values = [dict(row._mapping) for row in rows]
        await writing.execute(table.insert(), [row | dict.fromkeys(own) for row in values])
        progress(table.name, there.rows, total)
    for name in own:
        await _refer(reading, writing, table, name)
    return there


async def _refer(
    reading: AsyncConnection, writing: AsyncConnection, table: sa.Table, name: str
) -> None:
    # A row may refer to one of its own table that comes later, so that column is filled last.
    (key,) = table.primary_key.columns
    refer = table.update().where(key == sa.bindparam("row")).values({name: sa.bindparam("other")})
    pairs = sa.select(key.label("row"), table.c[name].label("other")).where(
        table.c[name].is_not(None)
    )
    async for rows in _batches(reading, pairs):
        await writing.execute(refer, [dict(row._mapping) for row in rows])


def _own_references(table: sa.Table) -> list[str]:
    keys = (column for column in table.columns if column.foreign_keys)
    return [c.name for c in keys if any(key.column.table is table for key in c.foreign_keys)]


async def _batches(
    connection: AsyncConnection, statement: sa.Select[Any]
) -> AsyncIterator[list[sa.Row[Any]]]:
    async with connection.stream(statement) as result:
        async for rows in result.partitions(BATCH):
            yield list(rows)


async def _count(connection: AsyncConnection, table: sa.Table) -> int:
    rows = await connection.execute(sa.select(sa.func.count()).select_from(table))
    return int(rows.scalar_one())


async def _refuse_rows(connection: AsyncConnection) -> None:
    for table in metadata.sorted_tables:
        if rows := await _count(connection, table):
            raise Conflict(
                "COPY_TARGET_NOT_EMPTY",
                f"the target's table {table.name} has {rows} rows already",
                next_step="name a new database; nothing was changed in this one",
                table=table.name,
                rows=rows,
            )


def _refuse_memory(source: str, target: str) -> None:
    if in_memory(source) or in_memory(target):
        raise Invalid(
            "DATABASE_IN_MEMORY",
            "a memory database lives only as long as its connection",
            next_step="name a file",
        )


def _refuse_missing(source: str) -> None:
    if missing_file(source):
        raise NotFound(
            "DATABASE_NOT_FOUND",
            f"there is no file {sa.make_url(source).database}",
            next_step="name the engine's file, usually holdfast.db in its folder",
        )


async def _refuse_other_revision(which: str, found: str | None) -> None:
    expected = migrate.newest()
    if found == expected:
        return
    step = (
        f"upgrade the {which} first: holdfast db upgrade"
        if found is None or migrate.known(found)
        else "use the version of the engine that made it"
    )
    raise Conflict(
        "COPY_REVISION",
        f"the {which} is at revision {found or 'none'}, this engine copies {expected}",
        next_step=step,
        found=found,
        expected=expected,
    )


def _differs(table: sa.Table, there: Content, here: Content) -> EngineError:
    return Conflict(
        "COPY_DIFFERS",
        f"table {table.name}: {there.rows} rows were read, {here.rows} arrived or other contents",
        next_step="nothing was written; keep using the source, and report this",
        table=table.name,
        rows_read=there.rows,
        rows_arrived=here.rows,
    )


def _canonical(row: sa.Row[Any]) -> bytes:
    values = [value.hex() if isinstance(value, bytes) else value for value in row]
    return pydantic_core.to_json(_sorted(values))


def _sorted(value: Any) -> Any:
    # Databases may give the keys of a document in another order than they got them.
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, list) else value
