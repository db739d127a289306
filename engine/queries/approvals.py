"""Questions about approvals: which fences wait for one, and what was given."""

from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from domain.storm import APPROVABLE
from engine.queries.base import Query, QueryParams
from engine.views_explained import ApprovalView, WaitingFenceView
from store import approvals, incidents
from store.rows import Row


class ListApprovals(QueryParams):
    """Open incidents whose fence a person may approve, or has approved."""


class ListApprovalsQuery(Query[ListApprovals, tuple[WaitingFenceView, ...]]):
    """What waits for a person, oldest incident first."""

    params = ListApprovals

    async def answer(
        self, connection: AsyncConnection, params: ListApprovals, now: datetime
    ) -> tuple[WaitingFenceView, ...]:
        """Each with its reasons, and every approval that was given for it."""
        judged = await incidents.judged(connection)
        given: dict[object, list[Row]] = {}
        for row in await approvals.of_incidents(connection, [one["id"] for one in judged]):
            given.setdefault(row["incident_id"], []).append(row)
        views = (_view(incident, given.get(incident["id"], [])) for incident in judged)
        return tuple(view for view in views if view.approvals or view.approvable)


def _view(incident: Row, given: list[Row]) -> WaitingFenceView:
    held = (incident["decision"] or {}).get("held") or []
    reasons = [one["reason"] for one in held]
    return WaitingFenceView(
        incident_id=incident["id"],
        host_id=incident["host_id"],
        host_name=incident["host_name"],
        opened_at=incident["opened_at"],
        reasons=tuple(reasons),
        why="; ".join(one["detail"] for one in held),
        approvable=any(reason in APPROVABLE for reason in reasons),
        approvals=tuple(
            ApprovalView(**{field: row[field] for field in ApprovalView.model_fields})
            for row in given
        ),
    )
