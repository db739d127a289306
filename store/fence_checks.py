"""Statements on the tests of fence devices."""

from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from store.rows import Row, changed
from store.schema import fence_device

SILENT, ANSWERS = "silent", "answers"


async def note(connection: AsyncConnection, check: Row) -> str | None:
    """Keep one test of a device; SILENT or ANSWERS when it is the first of many to say so.

    That it is the first is part of the statement: of two that see a device fall silent one tells.
    An identity of None leaves the last one. Repeatable.
    """
    device_id: UUID = check["id"]
    mine = fence_device.c.id == device_id
    kept = ("last_tested_at", "test_reading", "test_took_s", "test_identity")
    values = {name: check[name] for name in kept if check[name] is not None}
    await changed(connection, fence_device.update().where(mine).values(**values))
    if check["answers"]:
        back = fence_device.update().where(mine, fence_device.c.silent_since.is_not(None))
        return ANSWERS if await changed(connection, back.values(silent_since=sa.null())) else None
    gone = fence_device.update().where(mine, fence_device.c.silent_since.is_(None))
    at = check["last_tested_at"]
    return SILENT if await changed(connection, gone.values(silent_since=at)) else None
