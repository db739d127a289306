"""Statements on runs whose guests ended by themselves, and on what should run on a host.

Closing one is a compare-and-set on the run that was looked at: still `running`, in the epoch whose
boot was read. A run that was stopped, moved, lost or carried into another epoch meanwhile is none
of it.
"""

from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.ended_guests import FAILURES
from domain.inventory import HostState, OnHang, OnIoError, RunState
from store import hosts
from store.prebuilt import prebuilt
from store.rows import Row, changed, in_chunks, many, one
from store.schema import entity_lock, host, vm
from store.schema_ha import vm_run


class Running(NamedTuple):
    """An active run; a poll of its host should show it once it is `settled` as running."""

    run_id: UUID
    vm_id: UUID
    generation: int
    settled: bool = True
    paused: bool = False  # by QEMU, as far as is known
    resumes: bool = True  # whether the engine sees to a pause
    on_hang: OnHang = OnHang.OFF
    hang_after_s: int = 0
    agent_heard: bool = False  # in this run
    agent_silent: bool = False  # it is held to be hung
    protected: bool = False

    @property
    def restarts_hung(self) -> bool:
        """Whether the engine ends it, and starts it again, when it hangs."""
        return self.protected and self.on_hang is OnHang.RESTART


@prebuilt
def _running_on(host_id: UUID, epoch: int, /) -> sa.Select[Any]:
    return (
        sa.select(vm_run, vm.c.on_io_error, vm.c.on_hang, vm.c.hang_after_s, vm.c.protected)
        .join(vm, vm.c.id == vm_run.c.vm_id)
        .where(vm_run.c.host_id == host_id, vm_run.c.epoch == epoch, vm_run.c.active == 1)
    )


async def running_on(connection: AsyncConnection, host_id: UUID, epoch: int) -> list[Running]:
    """The active runs of a host in this epoch."""
    return [
        Running(
            run_id=row["id"],
            vm_id=row["vm_id"],
            generation=row["generation"],
            settled=row["state"] == RunState.RUNNING,
            paused=row["paused_reason"] is not None,
            resumes=row["on_io_error"] != OnIoError.LEAVE_PAUSED,
            on_hang=OnHang(row["on_hang"]),
            hang_after_s=row["hang_after_s"],
            agent_heard=row["agent_heard"],
            agent_silent=row["agent_silent_since"] is not None,
            protected=row["protected"],
        )
        for row in await many(connection, _running_on(host_id, epoch))
    ]


async def strays(connection: AsyncConnection, host_id: UUID, vm_ids: list[UUID]) -> list[Row]:
    """Those of these VMs that should not run on a host, with where they should, by name.

    Nobody is at work on them, so that no start, stop or move explains it.
    """
    found: list[Row] = []
    for some in in_chunks(vm_ids):
        query = (
            sa.select(vm.c.id, vm.c.name, host.c.name.label("host_name"))
            .outerjoin(vm_run, sa.and_(vm_run.c.vm_id == vm.c.id, vm_run.c.active == 1))
            .outerjoin(host, host.c.id == vm_run.c.host_id)
            .where(
                vm.c.id.in_(some),
                vm.c.removed_at.is_(None),
                sa.or_(
                    vm_run.c.id.is_(None),
                    sa.and_(vm_run.c.host_id != host_id, vm_run.c.state == RunState.RUNNING),
                ),
                ~sa.exists().where(
                    entity_lock.c.entity_type == "vm", entity_lock.c.entity_id == vm.c.id
                ),
            )
        )
        found += await many(connection, query.order_by(vm.c.name))
    return found


async def last(connection: AsyncConnection, vm_id: UUID) -> Row | None:
    """The newest run of a VM, active or not; None before its first."""
    query = sa.select(vm_run).where(vm_run.c.vm_id == vm_id)
    return await one(connection, query.order_by(vm_run.c.generation.desc()).limit(1))


async def failures_since(
    connection: AsyncConnection, vm_id: UUID, since: datetime, *, but: UUID
) -> list[Row]:
    """Where and when a VM's guests failed by themselves, one run left out, oldest first."""
    query = (
        sa.select(vm_run.c.host_id, host.c.name.label("host_name"), vm_run.c.ended_at)
        .join(host, host.c.id == vm_run.c.host_id)
        .where(
            vm_run.c.vm_id == vm_id,
            vm_run.c.id != but,
            vm_run.c.end_reason.in_(FAILURES),
            vm_run.c.ended_at >= since,
        )
    )
    return await many(connection, query.order_by(vm_run.c.ended_at))


async def close(
    connection: AsyncConnection, run_id: UUID, epoch: int, end_reason: str, now: datetime
) -> bool:
    """Close a run whose guest was read as gone, and free its room. False if it moved on."""
    run = await one(connection, sa.select(vm_run).where(vm_run.c.id == run_id))
    in_service = sa.exists().where(
        host.c.id == vm_run.c.host_id,
        host.c.epoch == epoch,
        host.c.state.in_([HostState.UP.value, HostState.CONNECTING.value]),
    )
    query = vm_run.update().where(
        vm_run.c.id == run_id,
        vm_run.c.active == 1,
        vm_run.c.state == RunState.RUNNING,
        vm_run.c.epoch == epoch,
        in_service,
    )
    values = {"state": "ended", "active": None, "ended_at": now, "end_reason": end_reason}
    if run is None or await changed(connection, query.values(**values)) != 1:
        return False
    await hosts.release(connection, run["host_id"], run)
    return True


async def note_paused(
    connection: AsyncConnection, run_id: UUID, epoch: int, reason: str | None
) -> bool:
    """Keep why a running guest is paused, or None; False once the run moved on. Repeatable."""
    query = vm_run.update().where(
        vm_run.c.id == run_id,
        vm_run.c.active == 1,
        vm_run.c.state == RunState.RUNNING,
        vm_run.c.epoch == epoch,
    )
    return await changed(connection, query.values(paused_reason=reason)) == 1


async def not_wanted(connection: AsyncConnection, vm_id: UUID) -> bool:
    """Note that a VM is not wanted any more; False when nobody wanted it."""
    query = vm.update().where(vm.c.id == vm_id, vm.c.wanted.is_(True))
    return await changed(connection, query.values(wanted=False)) == 1
