"""The SQL that a piece of work needs, and how long it takes sent by itself.

The work is done once in a transaction that is taken back, its statements being noted; then exactly
these are sent to the driver.
"""

import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeAlias

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from store.database import Database

Sent: TypeAlias = list[tuple[str, Any]]


class Undone(Exception):
    """Takes a recorded transaction back."""


async def recorded(database: Database, act: Callable[[], Awaitable[object]]) -> Sent:
    """The statements that something sends, which then has not happened."""
    sent: Sent = []

    def note(_c: Any, _cursor: Any, statement: str, values: Any, *_: Any) -> None:
        if not statement.startswith("BEGIN"):
            sent.append((statement, values))

    async def work(connection: AsyncConnection) -> None:
        sa.event.listen(connection.sync_connection, "before_cursor_execute", note)
        await act()
        raise Undone

    with suppress(Undone):
        await database.write(work)
    return sent


async def bare(database: Database, sent: Sent) -> float:
    """Seconds that the statements take alone, in one transaction."""

    async def work(connection: AsyncConnection) -> None:
        for statement, values in sent:
            result = await connection.exec_driver_sql(statement, values)
            if result.returns_rows:
                result.all()

    began = time.perf_counter()
    await database.write(work)
    return time.perf_counter() - began
