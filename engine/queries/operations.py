"""Questions about operations, incidents and events."""

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import Field
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.operations import OPEN_STATES, OperationState, workflow_id
from engine.queries.base import Query, QueryParams, missing
from engine.views import EventView, OperationView, Page, StepView
from store import operations, plumbing
from store.rows import Row


class GetOperation(QueryParams):
    """One operation with its steps and children."""

    operation_id: UUID


class GetOperationQuery(Query[GetOperation, OperationView]):
    """The step tree of one operation."""

    params = GetOperation

    async def answer(
        self, connection: AsyncConnection, params: GetOperation, now: datetime
    ) -> OperationView:
        """With children, each with its own steps."""
        row = await operations.get(connection, params.operation_id)
        if row is None:
            raise missing("operation", params.operation_id)
        return await self._tree(connection, row)

    async def _tree(self, connection: AsyncConnection, row: Row) -> OperationView:
        steps = await operations.steps(connection, row["id"])
        children = await operations.children(connection, row["id"])
        views = [await self._tree(connection, child) for child in children]
        return operation_view(row, tuple(_step(step) for step in steps), tuple(views))


class ListOperations(QueryParams):
    """Operations, newest first."""

    state: OperationState | None = None
    kind: str | None = Field(default=None, max_length=32)
    target_id: UUID | None = None
    before: UUID | None = None
    limit: int = Field(default=50, ge=1, le=500)


class ListOperationsQuery(Query[ListOperations, Page]):
    """One page of operations without their steps."""

    params = ListOperations

    async def answer(
        self, connection: AsyncConnection, params: ListOperations, now: datetime
    ) -> Page:
        """Newest first."""
        filters: dict[str, Any] = params.model_dump(
            include={"state", "kind", "target_id"}, exclude_none=True
        )
        rows = await operations.listing(
            connection, limit=params.limit, before=params.before, filters=filters
        )
        full = len(rows) == params.limit
        return Page(
            items=tuple(operation_view(row) for row in rows),
            next_cursor=str(rows[-1]["id"]) if full else None,
        )


class ListEvents(QueryParams):
    """Events after a cursor, oldest first."""

    after: int = Field(default=0, ge=0)
    limit: int = Field(default=100, ge=1, le=500)


class ListEventsQuery(Query[ListEvents, Page]):
    """One page of events."""

    params = ListEvents

    async def answer(self, connection: AsyncConnection, params: ListEvents, now: datetime) -> Page:
        """Oldest first; the cursor of the last one continues without a gap."""
        rows = await plumbing.events_after(connection, params.after, params.limit)
        fields = tuple(EventView.model_fields)
        return Page(
            items=tuple(EventView(**{f: row[f] for f in fields}) for row in rows),
            next_cursor=str(rows[-1]["seq"]) if rows else None,
        )


def operation_view(
    row: Row, steps: tuple[StepView, ...] = (), children: tuple[OperationView, ...] = ()
) -> OperationView:
    """The view of one operation's row."""
    same = set(OperationView.model_fields) & set(row)
    started = workflow_id(row["id"], row["attempt"]) if row["workflow"] else None
    return OperationView(
        **{field: row[field] for field in same},
        done=OperationState(row["state"]) not in OPEN_STATES,
        workflow_id=started,
        steps=steps,
        children=children,
    )


def _step(row: Row) -> StepView:
    same = set(StepView.model_fields) & set(row)
    return StepView(id=row["step_id"], **{field: row[field] for field in same})
