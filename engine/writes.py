"""Rows that a transaction writes together at its end: one statement a table, for any number.

The order of the tables follows their references: operations first, then what names them.
"""

from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from store import locks, operations, plumbing
from store.bulk import update_many
from store.rows import Row


class Writes:
    """Collected rows; `flush` writes them. `to_tell` keeps which operations the outbox names."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self.to_tell: dict[UUID, None] = {}
        self._forget()

    def _forget(self) -> None:
        self._operations: list[Row] = []
        self._locks: list[Row] = []
        self._outbox: list[Row] = []
        self._events: list[Row] = []
        self._updates: dict[int, tuple[sa.Update, list[Row]]] = {}

    def operation(self, row: Row) -> None:
        """An accepted operation."""
        self._operations.append(row)

    def lock(self, row: Row) -> None:
        """A lock that was seen to be free."""
        self._locks.append(row)

    def post(self, row: Row) -> None:
        """Something that Temporal is to be told of an operation."""
        self._outbox.append(row)
        self.to_tell[row["operation_id"]] = None

    def event(self, row: Row) -> None:
        """What is to be remembered."""
        self._events.append(row)

    def update(self, statement: sa.Update, values: dict[str, Any]) -> None:
        """A change of one row by a prepared statement; the same statement's changes go together."""
        self._updates.setdefault(id(statement), (statement, []))[1].append(values)

    async def flush(self) -> None:
        """Write everything collected so far."""
        connection = self._connection
        await operations.insert_all(connection, self._operations)
        await locks.take(connection, self._locks)
        await plumbing.post_all(connection, self._outbox)
        await plumbing.append_events(connection, self._events)
        for statement, rows in self._updates.values():
            await update_many(connection, statement, rows)
        self._forget()
