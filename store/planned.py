"""Statements on hosts that are shut down by plan, and on the VMs that come back after it.

A host's power is switched only while it is in maintenance and no run names it: that stands in the
statement which claims it, just before the command is sent.
"""

from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.hosts import NEXT, HostEvent
from domain.inventory import HostState
from domain.operations import OPEN_STATES
from domain.planned import HostPower
from store.rows import Row, changed, inserted, many, one
from store.schema import host, operation, vm
from store.schema_ha import planned_stop, vm_run

REMEMBERED = (
    sa.select(
        planned_stop,
        vm.c.name,
        vm.c.protected,
        vm.c.priority,
        vm.c.wanted,
        vm.c.removed_at.label("vm_removed_at"),
        host.c.name.label("host_name"),
        host.c.state.label("host_state"),
        host.c.removed_at.label("host_removed_at"),
        operation.c.state.label("operation_state"),
    )
    .join(vm, vm.c.id == planned_stop.c.vm_id)
    .join(host, host.c.id == planned_stop.c.host_id)
    .outerjoin(operation, operation.c.id == planned_stop.c.operation_id)
    .order_by(vm.c.protected.desc(), vm.c.priority.desc(), vm.c.name)
)


async def remember(
    connection: AsyncConnection,
    vm_id: UUID,
    host_id: UUID,
    operation_id: UUID,
    now: datetime,
    *,
    frozen: bool,
) -> None:
    """Keep that a VM is shut down with its host and is to run again. Repeatable."""
    await forget(connection, vm_id)
    row = {"vm_id": vm_id, "host_id": host_id, "operation_id": operation_id, "frozen": frozen}
    await inserted(connection, planned_stop, row | {"start_id": None, "created_at": now})


async def forget(connection: AsyncConnection, vm_id: UUID) -> bool:
    """It runs again, or is not to: nothing is left to do for it. Repeatable."""
    query = planned_stop.delete().where(planned_stop.c.vm_id == vm_id)
    return await changed(connection, query) == 1


async def note_start(connection: AsyncConnection, vm_id: UUID, start_id: UUID) -> bool:
    """Keep which operation starts a VM again; False when one does already."""
    query = planned_stop.update().where(
        planned_stop.c.vm_id == vm_id, planned_stop.c.start_id.is_(None)
    )
    return await changed(connection, query.values(start_id=start_id)) == 1


async def remembered(
    connection: AsyncConnection,
    *,
    operation_id: UUID | None = None,
    host_id: UUID | None = None,
) -> list[Row]:
    """VMs that are to run again, in restart order: of one operation, of one host, or all."""
    query = REMEMBERED
    if operation_id is not None:
        query = query.where(planned_stop.c.operation_id == operation_id)
    if host_id is not None:
        query = query.where(planned_stop.c.host_id == host_id)
    return await many(connection, query)


async def remembered_vms(connection: AsyncConnection) -> set[UUID]:
    """Every VM that is to run again."""
    rows = await many(connection, sa.select(planned_stop.c.vm_id))
    return {row["vm_id"] for row in rows}


async def of_vm(connection: AsyncConnection, vm_id: UUID) -> Row | None:
    """What is remembered of one VM, or None."""
    return await one(connection, REMEMBERED.where(planned_stop.c.vm_id == vm_id))


def _mine(
    host_id: UUID, epoch: int, operation_id: UUID, attempt: int, *states: HostState
) -> sa.Update:
    """The host of an open operation's try, empty, in one of these states."""
    named = sa.exists().where(
        vm_run.c.active == 1,
        sa.or_(vm_run.c.host_id == host.c.id, vm_run.c.target_host_id == host.c.id),
    )
    asked = sa.exists().where(
        operation.c.id == operation_id,
        operation.c.target_id == host.c.id,
        operation.c.attempt == attempt,
        operation.c.state.in_([state.value for state in OPEN_STATES]),
    )
    return host.update().where(
        host.c.id == host_id,
        host.c.epoch == epoch,
        host.c.state.in_([state.value for state in states]),
        host.c.own_host.is_(False),
        sa.not_(named),
        asked,
    )


CLAIMED_FROM = {
    HostPower.GOING_OFF: (HostPower.GOING_OFF, HostPower.OFF),
    HostPower.COMING_ON: (HostPower.OFF, HostPower.COMING_ON, HostPower.ON),
    HostPower.OFF: (HostPower.GOING_OFF, HostPower.OFF),
    HostPower.ON: (HostPower.COMING_ON, HostPower.ON),
}
"""Which stages may stand before each one. Off may also be claimed where nobody has switched yet."""


def _stage(power: HostPower) -> sa.ColumnElement[bool]:
    """A worker that stood still must not cut a host that is being switched on already."""
    among = host.c.power.in_([stage.value for stage in CLAIMED_FROM[power]])
    return sa.or_(among, host.c.power.is_(None)) if power is HostPower.GOING_OFF else among


async def claim_power(
    connection: AsyncConnection,
    host_id: UUID,
    epoch: int,
    operation_id: UUID,
    attempt: int,
    power: HostPower,
) -> bool:
    """Claim the switching of a host's power; False unless it is in maintenance and empty.

    Nor is it claimed out of order: off once on was claimed, on before off was read. Nor is the
    machine switched that the engine runs on. Repeatable.
    """
    query = _mine(host_id, epoch, operation_id, attempt, HostState.MAINTENANCE)
    query = query.where(_stage(power))
    return await changed(connection, query.values(power=power.value)) == 1


async def note_power(
    connection: AsyncConnection,
    host_id: UUID,
    epoch: int,
    power: HostPower,
    why: str,
    now: datetime,
) -> bool:
    """Keep what was read back; False once the host has left maintenance, or that stage."""
    query = host.update().where(
        host.c.id == host_id,
        host.c.epoch == epoch,
        host.c.state == HostState.MAINTENANCE.value,
        _stage(power),
    )
    values: dict[str, Any] = {"power": power.value, "state_reason": why[:1024], "state_since": now}
    return await changed(connection, query.values(**values)) == 1


async def begin_anew(connection: AsyncConnection, host_id: UUID) -> bool:
    """Let a new try switch a host off that an earlier one has switched on. Repeatable."""
    on = [HostPower.COMING_ON.value, HostPower.ON.value]
    query = host.update().where(
        host.c.id == host_id, host.c.state == HostState.MAINTENANCE.value, host.c.power.in_(on)
    )
    return await changed(connection, query.values(power=None)) == 1


async def leave_out(
    connection: AsyncConnection,
    host_id: UUID,
    epoch: int,
    operation_id: UUID,
    why: str,
    now: datetime,
    *,
    since_try: int = 1,
) -> bool:
    """Leave a host out of service whose reboot was lost while it was reconciled. Repeatable.

    False unless it is reconciled at this epoch and that reboot is open, in this try or a later one.
    """
    asked = sa.exists().where(
        operation.c.id == operation_id,
        operation.c.target_id == host.c.id,
        operation.c.kind == "host.reboot",
        operation.c.attempt >= since_try,
        operation.c.state.in_([state.value for state in OPEN_STATES]),
    )
    query = host.update().where(
        host.c.id == host_id,
        host.c.epoch == epoch,
        host.c.state == HostState.RECONCILING.value,
        asked,
    )
    state = NEXT[HostState.RECONCILING][HostEvent.FAILED].value
    values = {"state": state, "state_reason": why[:1024], "state_since": now}
    return await changed(connection, query.values(**values)) == 1


async def begin_return(
    connection: AsyncConnection,
    host_id: UUID,
    epoch: int,
    operation_id: UUID,
    attempt: int,
    why: str,
    now: datetime,
) -> bool:
    """Let a host that has rebooted by plan be reconciled. Repeatable."""
    states = (HostState.MAINTENANCE, HostState.RECONCILING)
    query = _mine(host_id, epoch, operation_id, attempt, *states)
    values: dict[str, Any] = {"state": HostState.RECONCILING.value, "power": None}
    return await changed(connection, query.values(**values, state_reason=why, state_since=now)) == 1
