"""Rows that a transaction writes together at its end: one statement a table, for any number.

The order of the tables follows their references: operations first, then what names them. Locks are
written in the order in which everybody takes them, whatever the order in which they were asked for.
"""

from datetime import datetime, timedelta
from typing import Any, TypeAlias
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.operations import OperationState
from store import locks, operations, plumbing
from store.bulk import update_many
from store.ids import new_id
from store.rows import Row

DIRECT_START_S = 2.0
"""How long after the commit a posting is left to the process that wrote it."""

Mark: TypeAlias = tuple[tuple[int, ...], dict[int, int], int]


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

    def parent(self, row: Row) -> None:
        """An accepted operation that others collected before it name as their parent."""
        self._operations.insert(0, row)

    def let_go(self, most: int, now: datetime, *, urgent_first: bool) -> None:
        """Release the first of the collected operations that are held, and have them started.

        Most urgent first and within a class in the order of their acceptance, or in that alone;
        one that waits for its locks has no turn yet.
        """
        rows = [
            row
            for row in self._operations
            if row["held"] and row["state"] == OperationState.PENDING
        ]
        if urgent_first:
            rows.sort(key=lambda row: row["priority"])
        for row in rows[:most]:
            row |= {"held": False, "reason_code": None}
            self.post_soon(row["id"], now)

    def lock(self, row: Row) -> None:
        """A lock that was seen to be free."""
        self._locks.append(row)

    def post(self, row: Row) -> None:
        """Something that Temporal is to be told of an operation."""
        self._outbox.append(row)
        self.to_tell[row["operation_id"]] = None

    def post_soon(
        self,
        operation_id: UUID,
        now: datetime,
        kind: str = plumbing.START,
        signal: str | None = None,
    ) -> None:
        """The same, told by this process right after its commit; what it leaves, by the relay."""
        due_at = now + timedelta(seconds=DIRECT_START_S)
        self.post(plumbing.posting(new_id(), operation_id, due_at, kind, signal))

    def event(self, row: Row) -> None:
        """What is to be remembered."""
        self._events.append(row)

    def update(self, statement: sa.Update, values: dict[str, Any]) -> None:
        """A change of one row by a prepared statement; the same statement's changes go together."""
        self._updates.setdefault(id(statement), (statement, []))[1].append(values)

    def mark(self) -> Mark:
        """Where the collection stands, for `back_to`."""
        updates = {key: len(rows) for key, (_statement, rows) in self._updates.items()}
        return (
            (len(self._operations), len(self._locks), len(self._outbox), len(self._events)),
            updates,
            len(self.to_tell),
        )

    def back_to(self, mark: Mark) -> None:
        """Forget what was collected since; nothing may have been flushed meanwhile."""
        lengths, updates, told = mark
        lists = (self._operations, self._locks, self._outbox, self._events)
        for rows, length in zip(lists, lengths, strict=True):
            del rows[length:]
        for key, (_statement, rows) in self._updates.items():
            del rows[updates.get(key, 0) :]
        for operation_id in list(self.to_tell)[told:]:
            del self.to_tell[operation_id]

    async def flush(self) -> None:
        """Write everything collected so far."""
        connection = self._connection
        await operations.insert_all(connection, self._operations)
        await locks.take(connection, sorted(self._locks, key=_entity))
        await plumbing.post_all(connection, self._outbox)
        await plumbing.append_events(connection, self._events)
        for statement, rows in self._updates.values():
            await update_many(connection, statement, rows)
        self._forget()


def _entity(row: Row) -> tuple[str, int]:
    # A UUID compares as its number, which is much quicker to compare.
    return row["entity_type"], row["entity_id"].int
