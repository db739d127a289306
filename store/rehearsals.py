"""Statements on rehearsals of fence devices.

A try marks, cuts and brings back its levels one after the other, and its step tree tells how far it
is: each step is written down as begun before it does anything. So a step that was held up finds
that its level's turn is over, also while nothing of the level's end is written yet.
"""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.fence_checks import Identity
from domain.inventory import HostState
from domain.rehearsal import Rehearsed
from store.operations import OPEN
from store.rows import changed, many, number
from store.schema import fence_device, host, operation, step
from store.schema_ha import vm_run


def _is_under_way(operation_id: UUID, attempt: int) -> sa.Exists:
    return sa.exists().where(
        operation.c.id == operation_id,
        operation.c.attempt == attempt,
        operation.c.state.in_(OPEN),
    )


CUT_STEP, BACK_STEP = "rehearsal.cut", "rehearsal.bring_back"


async def _levels_below(connection: AsyncConnection, host_id: UUID, level: int) -> int:
    """How many levels are tried before one."""
    query = sa.select(sa.func.count(fence_device.c.level.distinct()))
    return await number(
        connection, query.where(fence_device.c.host_id == host_id, fence_device.c.level < level)
    )


def _begun(name: str, operation_id: UUID, attempt: int) -> sa.ScalarSelect[int]:
    """How many steps of a name this try has begun, however often each was tried."""
    mine = (step.c.operation_id == operation_id, step.c.attempt == attempt, step.c.name == name)
    return sa.select(sa.func.count()).select_from(step).where(*mine).scalar_subquery()


async def forget(
    connection: AsyncConnection,
    host_id: UUID,
    level: int,
    operation_id: UUID,
    attempt: int,
) -> None:
    """Forget what an earlier rehearsal of a level has shown, as this try begins with it.

    One that is not known to be back stays so, and so does what this very try has shown: nothing is
    forgotten once its cut has begun. Repeatable.
    """
    below = await _levels_below(connection, host_id, level)
    query = fence_device.update().where(
        fence_device.c.host_id == host_id,
        fence_device.c.level == level,
        fence_device.c.rehearsal != Rehearsed.CUT.value,
        _is_under_way(operation_id, attempt),
        _begun(CUT_STEP, operation_id, attempt) <= below,
    )
    await changed(connection, query.values(rehearsal=None, rehearsed_at=None))


async def cut_levels(connection: AsyncConnection, host_id: UUID) -> tuple[int, ...]:
    """The levels of a host that were cut and are not known to be back, in order."""
    cut = fence_device.c.rehearsal == Rehearsed.CUT.value
    query = sa.select(fence_device.c.level).where(fence_device.c.host_id == host_id, cut)
    rows = await many(connection, query.distinct().order_by(fence_device.c.level))
    return tuple(row["level"] for row in rows)


async def claim_cut(
    connection: AsyncConnection,
    host_id: UUID,
    epoch: int,
    operation_id: UUID,
    attempt: int,
    level: int,
    devices: Sequence[UUID],
    at: datetime,
) -> bool:
    """The last word before the devices of a host in maintenance are told to cut its power.

    One statement holds every condition: the host is in maintenance at this epoch, the engine does
    not run on it, no run of a VM stands there, no device was last known to manage another machine,
    this very try of the operation is under way, and it has not begun to bring this level back, so
    that a step that was held up cuts nothing then.
    Repeatable; what is cut is written by it, so that it is known whatever becomes of the operation.
    """
    below = await _levels_below(connection, host_id, level)
    fit = sa.exists().where(
        host.c.id == host_id,
        host.c.epoch == epoch,
        host.c.state == HostState.MAINTENANCE.value,
        host.c.own_host.is_(False),
    )
    runs_there = sa.exists().where(vm_run.c.host_id == host_id, vm_run.c.active == 1)
    shown, managed = fence_device.c.rehearsal, fence_device.c.test_identity
    query = fence_device.update().where(
        fence_device.c.host_id == host_id,
        fence_device.c.id.in_(devices),
        sa.or_(shown.is_(None), shown == Rehearsed.CUT.value),
        sa.or_(managed.is_(None), managed != Identity.OTHER.value),
        fit,
        ~runs_there,
        _is_under_way(operation_id, attempt),
        _begun(BACK_STEP, operation_id, attempt) <= below,
    )
    values = {"rehearsal": Rehearsed.CUT.value, "rehearsed_at": at}
    return await changed(connection, query.values(**values)) == len(devices)


async def note_back(
    connection: AsyncConnection,
    host_id: UUID,
    level: int,
    operation_id: UUID,
    attempt: int,
    shown: Rehearsed,
    at: datetime,
) -> None:
    """Keep what the devices of a level have shown; repeatable.

    Only of the try that is under way: what a late step of an earlier one has seen says nothing of
    a cut that came after it.
    """
    mine = (
        fence_device.c.host_id == host_id,
        fence_device.c.level == level,
        _is_under_way(operation_id, attempt),
    )
    values = {"rehearsal": shown.value, "rehearsed_at": at}
    await changed(connection, fence_device.update().where(*mine).values(**values))
