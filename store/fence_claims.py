"""The right to cut a host's power, claimed by one statement that holds every condition."""

from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.hosts import HostEvent, sources
from store import control, hosts
from store.approvals import approved
from store.disarming import acts_on_known
from store.fence_budgets import has_room
from store.ids import new_id
from store.judged import Judged, heard_since, pairs, still_silent
from store.rows import changed, inserted, one
from store.schema import cluster, host, operation
from store.schema_ha import fence_age, fence_claim


async def claim_fence(
    connection: AsyncConnection,
    host_id: UUID,
    epoch: int,
    operation_id: UUID,
    *,
    known: Judged,
    now: datetime,
) -> bool:
    """The last word before a power controller is told to cut power (I5, I8).

    One statement holds every condition: the host stands at this epoch in a state that may be
    fenced, its cluster is armed (or was when this incident began), the engine does not run on it,
    neither this operation nor its recovery has ended or is to be cancelled, no monitor has heard it
    again since the fence was decided on, each live monitor that it rests on (at least one) still
    does not hear it and sees another host (`known`), and the budgets of its cluster, rack and site
    have room, or a person has approved of this incident's fence.
    Repeatable: the same operation's claim counts once.
    """
    leave = approved(_incident_of(operation_id))
    allowed = sa.exists().where(
        cluster.c.id == host.c.cluster_id, acts_on_known(), sa.or_(has_room(), leave)
    )
    query = host.update().where(
        host.c.id == host_id,
        host.c.epoch == epoch,
        host.c.state.in_([state.value for state in sources(HostEvent.FENCE)]),
        host.c.own_host.is_(False),
        control.goes_on(operation_id),
        ~heard_since(host.c.id, *pairs(known.heard)),
        still_silent(known.eyes, leave),
        allowed.correlate(host),
    )
    values = {
        "state": hosts.state_after(HostEvent.FENCE),
        "state_reason": "its power is being cut",
        "state_since": now,
    }
    if await changed(connection, query.values(**values)) != 1:
        return False
    await _count_fence(connection, host_id, epoch, operation_id, now)
    return True


def _incident_of(operation_id: UUID) -> sa.ScalarSelect[Any]:
    query = sa.select(operation.c.incident_id).where(operation.c.id == operation_id)
    return query.scalar_subquery()


async def _count_fence(
    connection: AsyncConnection, host_id: UUID, epoch: int, operation_id: UUID, now: datetime
) -> None:
    # A claim that is repeated later is a fence now: the window has to count it where it happens.
    mine = sa.and_(
        fence_claim.c.host_id == host_id,
        fence_claim.c.epoch == epoch,
        fence_claim.c.operation_id == operation_id,
    )
    if await changed(connection, fence_claim.update().where(mine).values(claimed_at=now)):
        claims = sa.select(fence_claim.c.id).where(mine)
        await changed(connection, fence_age.delete().where(fence_age.c.claim_id.in_(claims)))
        return
    found = await one(connection, sa.select(host.c.cluster_id).where(host.c.id == host_id))
    row = {"id": new_id(), "host_id": host_id, "epoch": epoch, "operation_id": operation_id}
    cluster_id = found["cluster_id"] if found else None
    await inserted(connection, fence_claim, row | {"cluster_id": cluster_id, "claimed_at": now})
