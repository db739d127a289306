"""Statements on idempotency keys, the outbox and events.

The outbox holds what Temporal is to be told of an operation: start its workflow, cancel it, signal
it, raise its priority. A row is done when Temporal has taken it; telling it twice is harmless.
"""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.operations import OPEN_STATES
from store.bulk import insert_many, update_many
from store.prebuilt import prebuilt
from store.rows import Row, changed, inserted, many, number, one
from store.schema import event, idempotency_key, operation, outbox

START, CANCEL, SIGNAL, PRIORITY = "start", "cancel", "signal", "priority"
PUT_OFF_MOST_S = 15.0
"""Longer than anything in the outbox is ever put off. Higher: what a clock that was ahead posted is
told later. Lower: a row that another process has taken is told twice."""
OPEN = [state.value for state in OPEN_STATES]


@prebuilt
def _find_key(principal: str, key: str, /) -> sa.Select[Any]:
    return sa.select(idempotency_key).where(
        idempotency_key.c.principal == principal, idempotency_key.c.key == key
    )


async def find_key(connection: AsyncConnection, principal: str, key: str) -> Row | None:
    """What an idempotency key stands for, or None."""
    return await one(connection, _find_key(principal, key))


async def keep_key(connection: AsyncConnection, values: Row) -> None:
    """Bind an idempotency key to an operation."""
    await inserted(connection, idempotency_key, values)


async def post_all(connection: AsyncConnection, rows: list[Row]) -> None:
    """Note what Temporal is to be told."""
    await insert_many(connection, outbox, rows)


def posting(
    row_id: UUID, operation_id: UUID, now: datetime, kind: str = START, signal: str | None = None
) -> Row:
    """One row of the outbox, due at a time."""
    row: Row = {"id": row_id, "operation_id": operation_id, "kind": kind, "signal": signal}
    return row | {"due_at": now}


async def post(
    connection: AsyncConnection,
    row_id: UUID,
    operation_id: UUID,
    now: datetime,
    kind: str = START,
    signal: str | None = None,
) -> None:
    """Note one thing that Temporal is to be told."""
    await post_all(connection, [posting(row_id, operation_id, now, kind, signal)])


async def is_posted(
    connection: AsyncConnection, operation_id: UUID, kind: str, signal: str | None = None
) -> bool:
    """Whether such a row waits already: told once is told."""
    query = sa.select(outbox.c.id).where(
        outbox.c.operation_id == operation_id,
        outbox.c.kind == kind,
        outbox.c.done_at.is_(None),
        outbox.c.signal.is_(None) if signal is None else outbox.c.signal == signal,
    )
    return await one(connection, query) is not None


async def position(connection: AsyncConnection, operation_id: UUID) -> int | None:
    """How many starts go before an operation's own, or None when none of it waits."""
    mine = await posted(connection, operation_id)
    if mine is None:
        return None
    earlier = sa.or_(
        operation.c.priority < mine["priority"],
        sa.and_(operation.c.priority == mine["priority"], outbox.c.id < mine["id"]),
    )
    joined = sa.select(sa.func.count()).select_from(
        outbox.join(operation, operation.c.id == outbox.c.operation_id)
    )
    query = joined.where(outbox.c.done_at.is_(None), outbox.c.kind == START, earlier)
    return await number(connection, query)


def _waiting() -> sa.Select[Any]:
    columns = (
        operation.c.state,
        operation.c.workflow,
        operation.c.order,
        operation.c.attempt,
        operation.c.priority,
        operation.c.cluster_id,
        operation.c.kind.label("operation_kind"),
        operation.c.target_name,
    )
    joined = sa.select(outbox, *columns).join(operation, operation.c.id == outbox.c.operation_id)
    # What is told of a workflow that does not exist yet would be lost.
    first = outbox.alias("first")
    unstarted = sa.exists().where(
        first.c.operation_id == outbox.c.operation_id,
        first.c.kind == START,
        first.c.done_at.is_(None),
    )
    return joined.where(outbox.c.done_at.is_(None), sa.or_(outbox.c.kind == START, ~unstarted))


def _by_a_wrong_clock(rows: Any, latest: datetime) -> sa.ColumnElement[bool]:
    """Posted by a clock that was ahead; whoever takes a row puts it off by a clock of their own."""
    ahead: sa.ColumnElement[bool] = sa.and_(rows.c.tries == 0, rows.c.due_at > latest)
    return ahead


@prebuilt
def _due(now: datetime, latest: datetime, limit: int, /) -> sa.Select[Any]:
    earlier = outbox.alias("earlier")
    overtakes = sa.exists().where(
        earlier.c.operation_id == outbox.c.operation_id,
        earlier.c.id < outbox.c.id,
        earlier.c.done_at.is_(None),
        earlier.c.due_at > now,
        ~_by_a_wrong_clock(earlier, latest),
    )
    is_due = sa.or_(outbox.c.due_at <= now, _by_a_wrong_clock(outbox, latest))
    query = _waiting().where(is_due, sa.or_(outbox.c.kind == START, ~overtakes))
    return query.order_by(operation.c.priority, outbox.c.id).limit(limit)


async def due(connection: AsyncConnection, now: datetime, limit: int) -> list[Row]:
    """What is due, most urgent first, each with what telling it needs.

    What comes after something that is still to be told of the same operation waits with it. What
    would be due later than anything is ever put off was written by a clock that was wrong, and is
    due: a recovery must not wait for the time of day.
    """
    latest = now + timedelta(seconds=PUT_OFF_MOST_S)
    return await many(connection, _due(now, latest, limit))


@prebuilt
def _waiting_of(operation_id: UUID, /) -> sa.Select[Any]:
    return _waiting().where(outbox.c.operation_id == operation_id).order_by(outbox.c.id)


async def waiting_of(connection: AsyncConnection, operation_id: UUID) -> list[Row]:
    """What Temporal has not been told of one operation yet, oldest first."""
    return await many(connection, _waiting_of(operation_id))


async def posted(connection: AsyncConnection, operation_id: UUID) -> Row | None:
    """The pending start of one operation, with what the start needs."""
    query = _waiting().where(outbox.c.operation_id == operation_id, outbox.c.kind == START)
    return await one(connection, query)


@prebuilt
def _delivered(row_id: UUID, now: datetime, /) -> sa.Update:
    return outbox.update().where(outbox.c.id == row_id).values(done_at=now)


async def delivered(connection: AsyncConnection, row_id: UUID, now: datetime) -> None:
    """Mark a start as done; repeatable."""
    await changed(connection, _delivered(row_id, now))


@prebuilt
def _take(row_id: UUID, tries: int, until: datetime, /) -> sa.Update:
    query = outbox.update().where(
        outbox.c.id == row_id, outbox.c.done_at.is_(None), outbox.c.tries == tries
    )
    return query.values(due_at=until, tries=outbox.c.tries + 1)


async def take(connection: AsyncConnection, row: Row, until: datetime) -> bool:
    """Keep others from telling this row until a time; False when one has it, or it is done."""
    return await changed(connection, _take(row["id"], row["tries"], until)) == 1


async def postpone(
    connection: AsyncConnection, row_id: UUID, due_at: datetime, error: str, tries: int = 1
) -> None:
    """Tell it again later, keeping why it failed and how often it was tried."""
    values = {"due_at": due_at, "last_error": error[:1024], "tries": tries}
    await changed(connection, outbox.update().where(outbox.c.id == row_id).values(**values))


EVENT_DEFAULTS: Row = {"reason": "", "before": None, "after": None}


async def append_events(connection: AsyncConnection, rows: list[Row]) -> None:
    """Write events; they have no number until the sequencer gives them one."""
    await insert_many(connection, event, [EVENT_DEFAULTS | row for row in rows])


async def append_event(connection: AsyncConnection, values: Row) -> None:
    """Write one event."""
    await append_events(connection, [values])


async def has_event(connection: AsyncConnection, event_id: UUID) -> bool:
    """Whether an event was written."""
    return await one(connection, sa.select(event.c.id).where(event.c.id == event_id)) is not None


@prebuilt
def _any_unnumbered() -> sa.Select[Any]:
    return sa.select(event.c.id).where(event.c.seq.is_(None)).limit(1)


async def unnumbered_events(connection: AsyncConnection) -> bool:
    """Whether any committed event waits for its number."""
    return await one(connection, _any_unnumbered()) is not None


@prebuilt
def _unnumbered(limit: int, /) -> sa.Select[Any]:
    """Events without a number, each with the last number that was given."""
    last = sa.select(sa.func.max(event.c.seq)).scalar_subquery().label("last")
    query = sa.select(event.c.id, last).where(event.c.seq.is_(None))
    return query.order_by(event.c.id).limit(limit)


GIVE_NUMBER = (
    event.update().where(event.c.id == sa.bindparam("key")).values(seq=sa.bindparam("number"))
)
"""Numbers events."""


async def number_events(connection: AsyncConnection, limit: int) -> int:
    """Give committed events without a number the next ones; how many. One sequencer runs this."""
    fresh = await many(connection, _unnumbered(limit))
    numbered = [
        {"key": row["id"], "number": (row["last"] or 0) + offset}
        for offset, row in enumerate(fresh, start=1)
    ]
    await update_many(connection, GIVE_NUMBER, numbered)
    return len(fresh)


async def events_after(connection: AsyncConnection, seq: int, limit: int) -> list[Row]:
    """Numbered events past a cursor, oldest first."""
    query = sa.select(event).where(event.c.seq > seq).order_by(event.c.seq).limit(limit)
    return await many(connection, query)
