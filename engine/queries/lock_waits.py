"""Who holds what an operation waits for, and who gets it first.

Judged anew, as it is when the locks are granted: what a request wants may be on anything, not only
on its target, and who held it when it was asked for has often been followed by somebody else.
"""

from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from domain.errors import Refused
from domain.locks import Held, Lock, in_the_way
from engine.acceptance import Acceptance
from engine.actions.base import Tx
from engine.rows import context_of
from engine.views import BlockView
from engine.waiters import as_taken, transactions
from store import control
from store.rows import Row

LOOKED_AT = 1000
"""Earlier waiters that one question judges; behind more, a position is the least that it can be.
Higher: a question far back in a long line takes longer."""


async def lock_waits(
    connection: AsyncConnection, door: Acceptance, row: Row, now: datetime
) -> tuple[BlockView, ...]:
    """What keeps one waiter from its locks; never nothing."""
    first = door.transaction(connection, now, context_of(row))
    (tx,) = await transactions(first, [row])
    try:
        judged = await door.plan_again(tx, row)
    except Refused as error:
        return (_says(f"it ends at the next look at it: {error.detail}"),)
    found = [await _holder(tx, held, row) for held in judged.blocked_by]
    before = await control.lock_waiters_before(connection, row, LOOKED_AT + 1)
    ahead = await _ahead(first, door, before[:LOOKED_AT])
    position = len({held.operation_id for held in in_the_way(judged.plan.locks, ahead)})
    if position:
        least = "at least " if len(before) > LOOKED_AT else ""
        detail = f"{least}{position} others wait for the same and get it first"
        found.append(BlockView(what="lock", detail=detail, position=position))
    return tuple(found) or (_says("its locks are free: it goes on at the next look at it"),)


async def _ahead(first: Tx, door: Acceptance, rows: list[Row]) -> list[Held]:
    """What earlier waiters want; one that is refused when it is looked at wants nothing."""
    wanted: list[Held] = []
    for row, tx in zip(rows, await transactions(first, rows), strict=True):
        wanted += as_taken(row, await _wanted(tx, door, row))
    return wanted


async def _wanted(tx: Tx, door: Acceptance, row: Row) -> tuple[Lock, ...]:
    try:
        return (await door.plan_again(tx, row)).plan.locks
    except Refused:
        return ()


async def _holder(tx: Tx, held: Held, row: Row) -> BlockView:
    return BlockView(
        what="lock",
        detail=f"{held.kind} ({held.state}) holds {await _named(tx, held.lock, row)}",
        operation_id=held.operation_id,
        kind=held.kind,
    )


async def _named(tx: Tx, lock: Lock, row: Row) -> str:
    word = lock.entity_type.replace("_", " ")
    if lock.entity == (row["target_type"], row["target_id"]):
        return f"this {word}"
    entity = await tx.facts.get(*lock.entity)
    return f"{word} {lock.entity_id if entity is None else entity['name']}"


def _says(detail: str) -> BlockView:
    return BlockView(what="reason", detail=detail)
