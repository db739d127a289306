"""Statements on the tests of fence devices."""

from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.fence_checks import Identity
from store.rows import Row, changed
from store.schema import fence_device

SILENT, ANSWERS, OTHER = "silent", "answers", "other"


async def note(connection: AsyncConnection, check: Row) -> tuple[str, ...]:
    """Keep one test of a device; what it is the first of many to say, of SILENT, ANSWERS and OTHER.

    That it is the first is part of the statement: of two that see a device fall silent one tells.
    An identity of None leaves the last one, and one that is not told leaves it that the device
    manages another machine. Repeatable.
    """
    device_id: UUID = check["id"]
    mine = fence_device.c.id == device_id
    return (*await _compared(connection, mine, check), *await _kept(connection, mine, check))


async def _compared(
    connection: AsyncConnection, mine: sa.ColumnElement[bool], check: Row
) -> tuple[str, ...]:
    """OTHER when it manages another machine than its host, and nobody has said so before."""
    if check["test_identity"] != OTHER:
        return ()
    known = fence_device.c.test_identity
    query = fence_device.update().where(mine, sa.or_(known.is_(None), known != OTHER))
    return (OTHER,) if await changed(connection, query.values(test_identity=OTHER)) else ()


async def _kept(
    connection: AsyncConnection, mine: sa.ColumnElement[bool], check: Row
) -> tuple[str, ...]:
    kept = ("last_tested_at", "test_reading", "test_took_s", "test_identity")
    values = {name: check[name] for name in kept if check[name] is not None}
    if check["test_identity"] == Identity.UNTOLD:
        known, untold = fence_device.c.test_identity, Identity.UNTOLD.value
        values["test_identity"] = sa.case((known == OTHER, OTHER), else_=untold)
    await changed(connection, fence_device.update().where(mine).values(**values))
    if check["answers"]:
        back = fence_device.update().where(mine, fence_device.c.silent_since.is_not(None))
        told = await changed(connection, back.values(silent_since=sa.null()))
        return (ANSWERS,) if told else ()
    gone = fence_device.update().where(mine, fence_device.c.silent_since.is_(None))
    at = check["last_tested_at"]
    return (SILENT,) if await changed(connection, gone.values(silent_since=at)) else ()
