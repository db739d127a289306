"""Questions about what happened: the stream of events in order, and the audit trail by filters.

The stream is for those who follow: by number, without gaps, only what the sequencer has numbered.
The trail is for those who ask who did what: newest first, everything that is committed.
"""

from datetime import datetime
from uuid import UUID

from pydantic import Field
from sqlalchemy.ext.asyncio import AsyncConnection

from engine.queries.base import Query, QueryParams
from engine.queries.pages import LIMIT, LIMIT_MAX, TIME_KEY, Moment, PageParams, Text, shown
from engine.views import EventView, Page
from store import pages, plumbing
from store.rows import Row


class ListEvents(QueryParams):
    """Events after a number, oldest first."""

    after: int = Field(default=0, ge=0, lt=2**63)
    limit: int = Field(default=LIMIT, ge=1, le=LIMIT_MAX)


class ListEventsQuery(Query[ListEvents, Page[EventView]]):
    """One page of the stream."""

    params = ListEvents

    async def answer(
        self, connection: AsyncConnection, params: ListEvents, now: datetime
    ) -> Page[EventView]:
        """Oldest first; the cursor of the last one continues without a gap, also much later."""
        rows = await plumbing.events_after(connection, params.after, params.limit)
        return Page(
            items=tuple(event_view(row) for row in rows),
            next_cursor=str(rows[-1]["seq"]) if rows else None,
        )


class AuditEvents(PageParams):
    """Who did what to which object and why, from `since` on and before `until`."""

    entity_type: Text | None = None
    entity_id: UUID | None = None
    type: Text | None = None
    principal: Text | None = None
    correlation_id: Text | None = None
    operation_id: UUID | None = None
    since: Moment | None = None
    until: Moment | None = None


class AuditEventsQuery(Query[AuditEvents, Page[EventView]]):
    """One page of the audit trail."""

    params = AuditEvents

    async def answer(
        self, connection: AsyncConnection, params: AuditEvents, now: datetime
    ) -> Page[EventView]:
        """Newest first."""
        whole = pages.events(
            since=params.since,
            until=params.until,
            subject_type=params.entity_type,
            subject_id=params.entity_id,
            type=params.type,
            principal=params.principal,
            correlation_id=params.correlation_id,
            operation_id=params.operation_id,
        )
        return await shown(connection, whole, params, TIME_KEY, event_view)


def event_view(row: Row) -> EventView:
    """The view of one event's row."""
    return EventView(**{field: row[field] for field in EventView.model_fields})
