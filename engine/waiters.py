"""Requests that wait for their locks, judged anew: what they want, and what reading that takes."""

from collections.abc import Iterable, Sequence
from typing import Any

from domain.locks import Held, Lock
from engine.actions.base import Tx
from engine.cancelling import of_operation
from store.rows import Row


async def transactions(first: Tx, rows: Sequence[Row]) -> list[Tx]:
    """The same transaction on behalf of each, their VMs and hosts having been read at once."""
    for entity in ("vm", "host"):
        ids = [row["target_id"] for row in rows if row["target_type"] == entity]
        if ids:
            await first.facts.warm(entity, ids)
    return [of_operation(first, row) for row in rows]


def as_taken(row: Row, locks: Iterable[Lock]) -> list[Held]:
    """What a waiter wants, as whoever comes after it has to see it: as good as taken."""
    same: dict[str, Any] = {"operation_id": row["id"], "kind": row["kind"], "state": row["state"]}
    return [Held(lock=lock, **same) for lock in locks]
