"""Statements that read many closed incidents at once: three, however many there are."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.explain import Question
from domain.explain_vms import RESTART
from domain.recovery import Move
from store.rows import Row, many
from store.schema import host, vm
from store.schema_ha import decision, fence_claim, incident, vm_run

INCIDENTS_MAX = 1_000
"""How many incidents one report is made of, the newest. Higher: a report of years holds its
transaction for seconds. Lower: a large site's month does not fit."""


@dataclass(frozen=True)
class Window:
    """Closed incidents that opened at a time or later, of all clusters or one."""

    since: datetime
    cluster_id: UUID | None = None


async def closed(connection: AsyncConnection, window: Window) -> tuple[list[Row], Window]:
    """The newest closed incidents with the power cuts claimed in each, and the window they fill.

    Where there are more than `INCIDENTS_MAX` the window begins with the oldest that is given.
    """
    # A claim may outlive the operation that made it: it belongs to the incident that was open.
    cuts = (
        sa.select(sa.func.count())
        .where(
            fence_claim.c.host_id == incident.c.host_id,
            fence_claim.c.epoch == incident.c.epoch,
            fence_claim.c.claimed_at >= incident.c.opened_at,
            fence_claim.c.claimed_at <= incident.c.closed_at,
        )
        .correlate(incident)
        .scalar_subquery()
    )
    columns = ("id", "outcome", "phases", "opened_at", "closed_at")
    query = _in(window, *(incident.c[name] for name in columns), cuts.label("fences"))
    newest = query.order_by(incident.c.opened_at.desc(), incident.c.id.desc())
    rows = await many(connection, newest.limit(INCIDENTS_MAX + 1))
    if len(rows) <= INCIDENTS_MAX:
        return rows, window
    kept = rows[:INCIDENTS_MAX]
    return kept, replace(window, since=kept[-1]["opened_at"])


async def vms_back(connection: AsyncConnection, window: Window) -> list[Row]:
    """Each VM that an incident was to bring back: its budget, and when it first ran again."""
    began = sa.func.min(vm_run.c.started_at)
    again = sa.and_(
        vm_run.c.vm_id == decision.c.subject_id, vm_run.c.incident_id == decision.c.incident_id
    )
    since = sa.func.coalesce(incident.c.last_answer_at, incident.c.opened_at)
    query = (
        _in(window, since.label("since"), vm.c.budget_s, began.label("back_at"))
        .join(decision, decision.c.incident_id == incident.c.id)
        .join(vm, vm.c.id == decision.c.subject_id)
        .outerjoin(vm_run, again)
        .where(decision.c.question == Question.VM_FATE, decision.c.chosen == RESTART)
        .group_by(
            incident.c.id,
            incident.c.last_answer_at,
            incident.c.opened_at,
            decision.c.subject_id,
            vm.c.budget_s,
        )
    )
    return await many(connection, query)


async def waits(connection: AsyncConnection, window: Window) -> list[Row]:
    """Decisions to wait: of a host's power cut, or of a VM that no host had room for."""
    held = sa.and_(decision.c.question == Question.HOST_FATE, decision.c.chosen == Move.HOLD)
    placeless = sa.and_(decision.c.question == Question.VM_PLACE, decision.c.chosen == "none")
    columns = ("incident_id", "rule", "inputs", "first_at", "last_at")
    query = _in(window, *(decision.c[name] for name in columns))
    query = query.join(decision, decision.c.incident_id == incident.c.id)
    return await many(connection, query.where(sa.or_(held, placeless)))


def _in(window: Window, *columns: Any) -> sa.Select[Any]:
    query = (
        sa.select(*columns)
        .select_from(incident)
        .where(incident.c.open.is_(None), incident.c.opened_at >= window.since)
    )
    if window.cluster_id is None:
        return query
    mine = sa.select(host.c.id).where(host.c.cluster_id == window.cluster_id)
    return query.where(incident.c.host_id.in_(mine))
