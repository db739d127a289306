"""Questions about operations."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from domain.next_looks import Wait, next_look
from domain.operations import OPEN_STATES, OperationState, workflow_id
from domain.profiles import Policy
from domain.waits import next_step
from engine.acceptance import Acceptance
from engine.actions.base import Action
from engine.closing import BATCH
from engine.queries.base import Query, QueryParams, missing
from engine.queries.batches import children_states, shown_children
from engine.queries.blocking import blocks
from engine.queries.pages import ID_KEY, Moment, PageParams, Text, listed
from engine.queries.progress import predicted_end, progress_of, with_progress
from engine.roles import Roles
from engine.views import OperationView, Page, StepView
from store import archive, control, operations, pages
from store.rows import Row


class GetOperation(QueryParams):
    """One operation with its steps and children."""

    operation_id: UUID


class GetOperationQuery(Query[GetOperation, OperationView]):
    """The step tree of one operation; `actions` judge anew what waits for its locks."""

    params = GetOperation

    def __init__(self, actions: Iterable[Action[Any, Any]] = ()) -> None:
        self._door = Acceptance(actions, Roles())

    async def answer(
        self, connection: AsyncConnection, params: GetOperation, now: datetime
    ) -> OperationView:
        """With children, each with its own steps; one that ended long ago from the archive."""
        row = await operations.get(connection, params.operation_id)
        row = row or await archive.get(connection, params.operation_id)
        if row is None:
            raise missing("operation", params.operation_id)
        progress = (await progress_of(connection, [row])).get(row["id"])
        view = await _tree(connection, with_progress(row, progress), now)
        if row["kind"] == BATCH:
            states = await children_states(connection, row["id"])
            view = view.model_copy(update={"children_states": states})
        if view.done:
            return view
        blocked_by = await blocks(connection, self._door, row, now)
        changes: dict[str, Any] = {
            "blocked_by": blocked_by,
            "predicted_end_at": await predicted_end(connection, row, progress, now),
        }
        if row["reason_code"] == control.LOCK_HELD:  # the row tells who was in the way at first
            changes["waiting_for"] = "; ".join(block.detail for block in blocked_by)
        return view.model_copy(update=changes)


class ListOperations(PageParams):
    """Operations, newest first; made from `since` on and before `until`."""

    state: OperationState | None = None
    kind: Text | None = None
    target_id: UUID | None = None
    parent_id: UUID | None = None
    principal: Text | None = None
    since: Moment | None = None
    until: Moment | None = None


class ListOperationsQuery(Query[ListOperations, Page[OperationView]]):
    """One page of operations without their steps."""

    params = ListOperations

    async def answer(
        self, connection: AsyncConnection, params: ListOperations, now: datetime
    ) -> Page[OperationView]:
        """Newest first."""
        filters = ("state", "kind", "target_id", "parent_id", "principal", "since", "until")
        whole = pages.operations(**params.model_dump(include=set(filters)))
        rows, cursor, total = await listed(connection, whole, params, ID_KEY)
        progress = await progress_of(connection, rows)
        items = (operation_view(with_progress(row, progress.get(row["id"])), now) for row in rows)
        return Page(items=tuple(items), next_cursor=cursor, total=total)


async def _tree(connection: AsyncConnection, root: Row, now: datetime) -> OperationView:
    """A whole tree, read level by level: the number of statements grows with its depth alone."""
    levels, children = [[root]], dict[UUID, list[Row]]()
    while levels[-1]:
        below = await _below(connection, levels[-1])
        children |= below
        levels.append([row for rows in below.values() for row in rows])
    live = [row["id"] for level in levels for row in level if "steps" not in row]
    steps = await operations.steps_of(connection, live)

    def view(row: Row) -> OperationView:
        mine = row.get("steps") or steps.get(row["id"], [])
        parts = tuple(view(child) for child in children.get(row["id"], []))
        return operation_view(row, now, tuple(_step(step) for step in mine), parts)

    return view(root)


async def _below(connection: AsyncConnection, rows: list[Row]) -> dict[UUID, list[Row]]:
    ids = [row["id"] for row in rows if row["kind"] != BATCH]
    whole = [row["id"] for row in rows if row["kind"] == BATCH]
    found = {one: await shown_children(connection, one) for one in whole}
    live = await operations.children_of(connection, ids)
    old = await archive.children_of(connection, ids)
    both = {parent: [*old.get(parent, []), *live.get(parent, [])] for parent in {*live, *old}}
    return found | {
        parent: sorted(below, key=lambda row: row["id"]) for parent, below in both.items()
    }


def operation_view(
    row: Row,
    now: datetime,
    steps: tuple[StepView, ...] = (),
    children: tuple[OperationView, ...] = (),
) -> OperationView:
    """The view of one operation's row."""
    same = set(OperationView.model_fields) & set(row) - {"steps"}
    started = workflow_id(row["id"], row["attempt"]) if row["workflow"] else None
    done = OperationState(row["state"]) not in OPEN_STATES
    return OperationView(
        **{field: row[field] for field in same},
        done=done,
        next_step=None if done else next_step(row["reason_code"], row["target_name"], row["id"]),
        next_look_at=_next_look(row, now),
        gives_up_at=None if done else row["lock_deadline_at"],
        workflow_id=started,
        steps=steps,
        children=children,
    )


def _next_look(row: Row, now: datetime) -> datetime | None:
    """By when it is looked at again; one that was archived has ended and waits for nothing."""
    if row["state"] != OperationState.WAITING or not row["reason_code"] or row["order"] is None:
        return None
    wait = Wait(
        kind=row["kind"],
        code=row["reason_code"],
        policy=Policy.model_validate(row["order"]["policy"]),
        since=row["started_at"],
        told_at=row["waiting_told_at"],
    )
    return next_look(wait, now)


def _step(row: Row) -> StepView:
    same = set(StepView.model_fields) & set(row)
    return StepView(id=row["step_id"], **{field: row[field] for field in same})
