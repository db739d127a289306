"""Statements on guests whose agents are listened to: each has its conditions in itself."""

from datetime import datetime
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.inventory import RunState
from store.rows import changed
from store.schema import entity_lock
from store.schema_ha import vm_run


async def note_silent(
    connection: AsyncConnection, run_id: UUID, epoch: int, since: datetime
) -> bool:
    """Keep since when the agent of a running guest is silent; False if it is known, or moved on.

    Nobody is at work on the VM, so that no stop or move explains it. Of several monitors that hear
    nothing the first one gets through.
    """
    busy = sa.exists().where(
        entity_lock.c.entity_type == "vm", entity_lock.c.entity_id == vm_run.c.vm_id
    )
    query = _running(run_id, epoch).where(vm_run.c.agent_silent_since.is_(None), ~busy)
    return await changed(connection, query.values(agent_silent_since=since)) == 1


async def note_heard(connection: AsyncConnection, run_id: UUID, epoch: int) -> bool:
    """Keep that the agent of a running guest answers; False if that is known, or it moved on."""
    news = sa.or_(vm_run.c.agent_heard.is_(False), vm_run.c.agent_silent_since.is_not(None))
    query = _running(run_id, epoch).where(news)
    values = {"agent_heard": True, "agent_silent_since": None}
    return await changed(connection, query.values(**values)) == 1


def _running(run_id: UUID, epoch: int) -> sa.Update:
    return vm_run.update().where(
        vm_run.c.id == run_id,
        vm_run.c.active == 1,
        vm_run.c.state == RunState.RUNNING,
        vm_run.c.epoch == epoch,
    )
