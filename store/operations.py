"""Statements on operations and their steps.

An operation is claimed by (try, run id): the first workflow run to claim a try owns it, a repeated
claim by the same run is success, any other is refused. That is what makes a workflow that Temporal
forgot, or started twice, harmless.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.operations import OPEN_STATES, OperationState, Problem, StepState
from store.bulk import insert_many, update_many
from store.prebuilt import among, like, prebuilt
from store.rows import Row, changed, in_chunks, inserted, many, one
from store.schema import operation, step

OPEN = [state.value for state in OPEN_STATES]
IS_OPEN = among(operation.c.state, OPEN)
BATCH_TURN = "BATCH_TURN"
"""The reason code of an operation that its batch has not released yet."""


async def insert_all(connection: AsyncConnection, rows: list[Row]) -> None:
    """Write accepted operations that all name the same columns."""
    await insert_many(connection, operation, rows)


async def insert(connection: AsyncConnection, values: Row) -> None:
    """Write an accepted operation."""
    await inserted(connection, operation, values)


END_UNKNOWN: Row = {
    "state": StepState.FAILED.value,
    "problem": Problem(
        code="STEP_END_UNKNOWN",
        detail="its operation has ended, and how this step ended was not recorded",
        next_step="look at what it was about: the step may have done its work, or not",
    ).model_dump(mode="json"),
}
"""A step of an operation that has ended, which never said how it ended itself."""

ACCEPT_AGAIN = (
    operation.update()
    .where(operation.c.id == sa.bindparam("key"))
    .values(
        state=OperationState.PENDING.value,
        reason_code=sa.bindparam("why", type_=operation.c.reason_code.type),
        held=sa.bindparam("hold", type_=operation.c.held.type),
        waiting_for=None,
        waiting_told_at=None,
        lock_deadline_at=None,
        problem=None,
        summary=None,
        finished_at=None,
        run_id=None,
        order=sa.bindparam("wish", type_=operation.c.order.type),
        attempt=sa.bindparam("number"),
    )
)
"""Makes operations pending with fresh orders: they got their locks, or are tried again."""


def accepted_again(operation_id: UUID, order: Row, attempt: int, *, held: bool) -> Row:
    """The values of `ACCEPT_AGAIN`; `held`: its batch releases it when its turn comes."""
    why = BATCH_TURN if held else None
    return {"key": operation_id, "wish": order, "number": attempt, "hold": held, "why": why}


async def accept_again(
    connection: AsyncConnection, operation_id: UUID, order: Row, attempt: int
) -> None:
    """Make one operation pending with a fresh order, at once."""
    values = accepted_again(operation_id, order, attempt, held=False)
    await update_many(connection, ACCEPT_AGAIN, [values])


async def belong_to(connection: AsyncConnection, operation_id: UUID, incident_id: UUID) -> None:
    """Name the incident that an operation is about from now on."""
    query = operation.update().where(operation.c.id == operation_id)
    await changed(connection, query.values(incident_id=incident_id))


@prebuilt
def _get(operation_id: UUID, /) -> sa.Select[Any]:
    return sa.select(operation).where(operation.c.id == operation_id)


async def get(connection: AsyncConnection, operation_id: UUID) -> Row | None:
    """One operation."""
    return await one(connection, _get(operation_id))


@prebuilt
def _with_parent(operation_id: UUID, /) -> sa.Select[Any]:
    parent = operation.alias("parent")
    columns = (parent.c.kind.label("parent_kind"), parent.c.state.label("parent_state"))
    joined = operation.outerjoin(parent, parent.c.id == operation.c.parent_id)
    query = sa.select(operation, *columns).select_from(joined)
    return query.where(operation.c.id == operation_id)


async def with_parent(connection: AsyncConnection, operation_id: UUID) -> Row | None:
    """One operation, with the kind and state of its parent; both None where it has none."""
    return await one(connection, _with_parent(operation_id))


async def newest_of(
    connection: AsyncConnection, kinds: Sequence[str], target_id: UUID
) -> UUID | None:
    """The newest operation of these kinds on a target."""
    query = sa.select(operation.c.id).where(
        operation.c.target_id == target_id, operation.c.kind.in_(kinds)
    )
    found = await one(connection, query.order_by(operation.c.id.desc()).limit(1))
    return None if found is None else found["id"]


@prebuilt
def _claim(operation_id: UUID, attempt: int, run_id: str, now: datetime, /) -> sa.Update:
    mine = sa.and_(operation.c.attempt == attempt, operation.c.run_id == run_id)
    free = sa.and_(operation.c.attempt == attempt, operation.c.run_id.is_(None))
    query = operation.update().where(
        operation.c.id == operation_id,
        IS_OPEN,
        sa.or_(mine, free, operation.c.attempt < attempt),
    )
    started = operation.c.started_at
    at = sa.func.coalesce(started, like(now, started), type_=started.type)
    cancelling = OperationState.CANCELLING.value  # the request goes on to the workflow
    state = sa.case((operation.c.state == cancelling, cancelling), else_="running")
    # What an earlier run of its workflow has waited for is over until this one says so again.
    told = {"reason_code": None, "waiting_for": None, "waiting_told_at": None}
    return query.values(state=state, attempt=attempt, run_id=run_id, started_at=at, **told)


async def claim(
    connection: AsyncConnection, operation_id: UUID, attempt: int, run_id: str, now: datetime
) -> bool:
    """Make one workflow run the owner of one try; repeatable by that run alone."""
    return await changed(connection, _claim(operation_id, attempt, run_id, now)) == 1


async def wait(
    connection: AsyncConnection, operation_id: UUID, code: str, detail: str, now: datetime
) -> bool:
    """Record that a running operation waits, for what, and that it goes on by itself."""
    query = operation.update().where(
        operation.c.id == operation_id, operation.c.state.in_(["running", "waiting"])
    )
    values = {"state": "waiting", "reason_code": code, "waiting_for": detail[:1024]}
    query = query.values(**values, waiting_told_at=now)
    return await changed(connection, query) == 1


async def resume(connection: AsyncConnection, operation_id: UUID) -> bool:
    """Record that a waiting operation runs again; repeatable."""
    query = operation.update().where(
        operation.c.id == operation_id, operation.c.state.in_(["running", "waiting"])
    )
    told = {"reason_code": None, "waiting_for": None, "waiting_told_at": None}
    return await changed(connection, query.values(state="running", **told)) == 1


@prebuilt
def _close(
    operation_id: UUID,
    attempt: int | None,
    state: str,
    problem: Row | None,
    summary: str,
    reason_code: str | None,
    now: datetime,
    /,
) -> sa.Update:
    same = sa.func.coalesce(like(attempt, operation.c.attempt), operation.c.attempt)
    query = operation.update().where(
        operation.c.id == operation_id, IS_OPEN, operation.c.attempt == same
    )
    return query.values(
        state=state,
        problem=problem,
        summary=summary,
        reason_code=reason_code,
        waiting_for=None,
        waiting_told_at=None,
        finished_at=now,
    )


async def close(
    connection: AsyncConnection,
    operation_id: UUID,
    state: OperationState,
    now: datetime,
    *,
    problem: Row | None = None,
    summary: str = "",
    reason_code: str | None = None,
    attempt: int | None = None,
) -> bool:
    """End an open operation; False when it has ended already, or is in another try than this."""
    given = (operation_id, attempt, state.value, problem, summary[:1024], reason_code, now)
    return await changed(connection, _close(*given)) == 1


@prebuilt
def _children(parent_id: UUID, /) -> sa.Select[Any]:
    query = sa.select(operation).where(operation.c.parent_id == parent_id)
    return query.order_by(operation.c.id)


async def children(connection: AsyncConnection, parent_id: UUID) -> list[Row]:
    """Child operations, oldest first."""
    return await many(connection, _children(parent_id))


async def children_of(
    connection: AsyncConnection, parent_ids: Sequence[UUID]
) -> dict[UUID, list[Row]]:
    """Child operations of several, oldest first; a parent without any is left out."""
    found: dict[UUID, list[Row]] = {}
    for part in in_chunks(parent_ids):
        query = sa.select(operation).where(operation.c.parent_id.in_(part))
        for row in await many(connection, query.order_by(operation.c.id)):
            found.setdefault(row["parent_id"], []).append(row)
    return found


async def counted(connection: AsyncConnection, parent_ids: Sequence[UUID], kind: str) -> list[Row]:
    """How many children of one kind some operations have, how many succeeded, and since when."""
    good = sa.case((operation.c.state == OperationState.SUCCEEDED.value, 1), else_=0)
    columns = (
        operation.c.parent_id,
        sa.func.count().label("total"),
        sa.func.sum(good).label("succeeded"),
        sa.func.min(operation.c.created_at).label("since"),
    )
    found: list[Row] = []
    for some in in_chunks(parent_ids):
        query = sa.select(*columns).where(operation.c.parent_id.in_(some), operation.c.kind == kind)
        found += await many(connection, query.group_by(operation.c.parent_id))
    return found


@prebuilt
def _note_progress(operation_id: UUID, done: int, total: int, /) -> sa.Update:
    query = operation.update().where(operation.c.id == operation_id)
    return query.values(progress_done=done, progress_total=total)


async def note_progress(
    connection: AsyncConnection, operation_id: UUID, done: int, total: int
) -> None:
    """Write down how much was done of how much."""
    await changed(connection, _note_progress(operation_id, done, total))


async def steps_of(connection: AsyncConnection, ids: Sequence[UUID]) -> dict[UUID, list[Row]]:
    """Steps of several operations, each in the order they began."""
    found: dict[UUID, list[Row]] = {}
    for some in in_chunks(ids):
        query = sa.select(step).where(step.c.operation_id.in_(some))
        for row in await many(connection, query.order_by(step.c.attempt, step.c.started_at)):
            found.setdefault(row["operation_id"], []).append(row)
    return found


async def steps(connection: AsyncConnection, operation_id: UUID) -> list[Row]:
    """Steps in the order they began."""
    query = sa.select(step).where(step.c.operation_id == operation_id)
    return await many(connection, query.order_by(step.c.attempt, step.c.started_at))


@prebuilt
def _state_and_step(operation_id: UUID, attempt: int, step_id: str, /) -> sa.Select[Any]:
    """An operation's state, and whether it has this step: `known` is NULL when it has not."""
    mine = sa.and_(
        step.c.operation_id == operation.c.id,
        step.c.attempt == attempt,
        step.c.step_id == step_id,
    )
    joined = operation.outerjoin(step, mine)
    columns = (operation.c.state, step.c.step_id.label("known"))
    return sa.select(*columns).select_from(joined).where(operation.c.id == operation_id)


def _step(operation_id: UUID, attempt: int, step_id: str) -> sa.Update:
    return step.update().where(
        step.c.operation_id == operation_id, step.c.attempt == attempt, step.c.step_id == step_id
    )


@prebuilt
def _put_into_step(
    operation_id: UUID, attempt: int, step_id: str, /, *values: object, columns: tuple[str, ...]
) -> sa.Update:
    query = _step(operation_id, attempt, step_id)
    return query.values(dict(zip(columns, values, strict=True)))


async def begin_step(connection: AsyncConnection, values: Row) -> None:
    """Write a step's start, or its next try; repeatable.

    An operation that has ended gets no open step: a new one is shown as one whose end is unknown,
    until that is written, and of a known one only the deadline moves.
    """
    key = (values["operation_id"], values["attempt"], values["step_id"])
    found = await one(connection, _state_and_step(*key))
    again: Row
    if found is not None and found["state"] not in OPEN:
        values = values | END_UNKNOWN | {"finished_at": values["started_at"]}
        again = {"deadline_at": values["deadline_at"]}
    else:
        again = {k: values[k] for k in ("state", "tries", "deadline_at")} | {"finished_at": None}
        if values["tries"] == 1:
            # A workflow that continued as new counts its steps from one again: the newer one shows.
            again |= {"name": values["name"], "started_at": values["started_at"], "detail": None}
    if found is None or found["known"] is None:
        await inserted(connection, step, values)
    else:
        known = _put_into_step(*key, *again.values(), columns=tuple(again))
        await changed(connection, known)


@prebuilt
def _end_steps(operation_id: UUID, now: datetime, /) -> sa.Update:
    query = step.update().where(
        step.c.operation_id == operation_id, step.c.state == StepState.RUNNING.value
    )
    return query.values(**END_UNKNOWN, finished_at=now)


async def end_steps(connection: AsyncConnection, operation_id: UUID, now: datetime) -> None:
    """Show no step of an operation as running; those that were may say later how they ended.

    They keep their deadlines: until then they may still be at work.
    """
    await changed(connection, _end_steps(operation_id, now))


@prebuilt
def _finish_step(
    operation_id: UUID,
    attempt: int,
    step_id: str,
    state: str,
    now: datetime,
    problem: Row | None,
    detail: str | None,
    tries: int,
    /,
) -> sa.Update:
    ended = sa.exists().where(operation.c.id == operation_id, ~IS_OPEN)
    stays = sa.and_(step.c.state == StepState.SUCCEEDED.value, ended)
    query = _step(operation_id, attempt, step_id).where(~stays, step.c.tries <= tries)
    told = sa.func.coalesce(like(detail, step.c.detail), step.c.detail)
    return query.values(
        state=state, finished_at=now, problem=problem, deadline_at=None, detail=told
    )


@prebuilt
def _free_step(operation_id: UUID, attempt: int, step_id: str, tries: int, /) -> sa.Update:
    query = _step(operation_id, attempt, step_id).where(step.c.tries <= tries)
    return query.values(deadline_at=None)


class StepEnd(NamedTuple):
    """How a try of a step ended."""

    state: StepState
    at: datetime
    tries: int
    detail: str | None = None
    problem: Row | None = None


async def finish_step(
    connection: AsyncConnection, operation_id: UUID, attempt: int, step_id: str, end: StepEnd
) -> None:
    """Write how a try of a step ended, so that it has no deadline any more; repeatable.

    An earlier try than the latest changes nothing: that one may be at work. Nor does one that ends
    after its operation, of a step that has succeeded before.
    """
    key = (operation_id, attempt, step_id)
    told = None if end.detail is None else end.detail[:1024]
    query = _finish_step(*key, end.state.value, end.at, end.problem, told, end.tries)
    if not await changed(connection, query):
        await changed(connection, _free_step(*key, end.tries))
