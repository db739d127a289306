"""Statements on VMs that are stopped so that one of higher priority finds room.

A row is written in the transaction that orders the stop, and by one statement that holds every
condition. It says two things that end apart: for whom the room is kept (`waiting`), and that the VM
that gave it is to be started again (`owed`).
"""

from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.inventory import HostState, RunState
from domain.make_room import MakeRoom
from store.disarming import acts_on_known
from store.operations import IS_OPEN
from store.prebuilt import prebuilt
from store.rows import Row, changed, many, number, one
from store.schema import cluster, host, operation, vm
from store.schema_ha import made_room, vm_run


def _is_open(operation_id: sa.Column[Any]) -> sa.ColumnElement[bool]:
    return sa.exists().where(operation.c.id == operation_id, IS_OPEN)


def _waits() -> sa.ColumnElement[bool]:
    """Whether the room is still kept for somebody who wants it."""
    # Its opposite is asked for, too, so it must not come out as NULL.
    return sa.and_(made_room.c.waiting.is_not(None), _is_open(made_room.c.for_operation_id))


@prebuilt
def _stoppable(cluster_id: UUID, /) -> sa.Select[Any]:
    owed = sa.exists().where(made_room.c.vm_id == vm.c.id, made_room.c.owed == 1)
    return (
        sa.select(
            vm,
            vm_run.c.id.label("run_id"),
            vm_run.c.host_id,
            vm_run.c.memory_mib.label("run_memory_mib"),
            vm_run.c.vcpus.label("run_vcpus"),
            owed.label("is_owed"),
        )
        .join(vm_run, vm_run.c.vm_id == vm.c.id)
        .join(host, sa.and_(host.c.id == vm_run.c.host_id, host.c.epoch == vm_run.c.epoch))
        .where(
            vm.c.cluster_id == cluster_id,
            vm.c.removed_at.is_(None),
            vm_run.c.active == 1,
            vm_run.c.state == sa.literal(RunState.RUNNING.value),
            host.c.state == sa.literal(HostState.UP.value),
        )
        .order_by(vm.c.id)
    )


async def running(connection: AsyncConnection, cluster_id: UUID) -> list[Row]:
    """VMs of a cluster that run on hosts that are up.

    With `run_id`, `host_id`, `is_owed`, and `run_memory_mib` and `run_vcpus`, which their end
    frees.
    """
    return await many(connection, _stoppable(cluster_id))


async def stopped_in(connection: AsyncConnection, incident_id: UUID) -> int:
    """How many VMs were stopped in an incident so far."""
    query = sa.select(sa.func.count()).where(made_room.c.incident_id == incident_id)
    return await number(connection, query.select_from(made_room))


async def claim(connection: AsyncConnection, values: Row) -> bool:
    """Note that a VM is to be stopped for another; False when that is not allowed (any more).

    One statement holds every condition: the run is running, its VM may be stopped and has strictly
    lower priority, no start is owed to it already, and their cluster makes room, acts by itself and
    has not stopped as many in this incident as it allows.
    """
    other = vm.alias("other")
    owed = made_room.alias("owed")
    counted = made_room.alias("counted")
    so_far = sa.select(sa.func.count()).where(counted.c.incident_id == values["incident_id"])
    given: dict[str, sa.ColumnElement[Any]] = {
        name: sa.literal(value, made_room.c[name].type) for name, value in values.items()
    }
    given |= {"priority": vm.c.priority, "for_priority": other.c.priority}
    query = (
        sa.select(*given.values())
        .select_from(vm_run)
        .join(vm, vm.c.id == vm_run.c.vm_id)
        .join(other, other.c.id == values["for_vm_id"])
        .join(cluster, cluster.c.id == vm.c.cluster_id)
        .where(
            vm_run.c.id == values["run_id"],
            vm_run.c.active == 1,
            vm_run.c.state == RunState.RUNNING.value,
            vm.c.may_be_stopped.is_(True),
            other.c.cluster_id == vm.c.cluster_id,
            outranked(vm, other),
            ~sa.exists().where(owed.c.vm_id == vm.c.id, owed.c.owed == 1),
            cluster.c.make_room == MakeRoom.SHUTDOWN.value,
            acts_on_known(),
            so_far.scalar_subquery() < cluster.c.make_room_max,
        )
    )
    return await changed(connection, made_room.insert().from_select(list(given), query)) == 1


def outranked(one: Any, by: Any) -> sa.ColumnElement[bool]:
    """Whether a VM is strictly less important than another."""
    is_less: sa.ColumnElement[bool] = one.c.priority < by.c.priority
    return is_less


async def note_stop(connection: AsyncConnection, row_id: UUID, stop_id: UUID) -> None:
    """Name the operation that stops the VM."""
    query = made_room.update().where(made_room.c.id == row_id)
    await changed(connection, query.values(stop_id=stop_id))


@prebuilt
def _awaited(for_operation_id: UUID, /) -> sa.Select[Any]:
    stopping = _is_open(made_room.c.stop_id).label("stopping")
    return (
        sa.select(made_room, vm.c.name, host.c.name.label("host_name"), stopping)
        .join(vm, vm.c.id == made_room.c.vm_id)
        .join(host, host.c.id == made_room.c.host_id)
        .where(made_room.c.for_operation_id == for_operation_id, made_room.c.waiting == 1)
        .order_by(made_room.c.id)
    )


async def awaited(connection: AsyncConnection, for_operation_id: UUID) -> list[Row]:
    """The stops that a start waits for, or waited for in vain, with `name`, `host_name` of the VM.

    `stopping` tells those whose operation is still open.
    """
    return await many(connection, _awaited(for_operation_id))


@prebuilt
def _served(for_vm_id: UUID, /) -> sa.Update:
    query = made_room.update().where(made_room.c.for_vm_id == for_vm_id, made_room.c.waiting == 1)
    return query.values(waiting=None)


async def served(connection: AsyncConnection, for_vm_id: UUID) -> None:
    """Keep no more room for a VM: it has its place, or what was made did not help. Repeatable."""
    await changed(connection, _served(for_vm_id))


async def keep_again(connection: AsyncConnection, for_operation_id: UUID) -> None:
    """Keep the room once more for a start whose place was withdrawn, so that it finds another.

    Of those who are still owed their own start. Nothing while its VM has a place. Repeatable.
    """
    has_place = sa.exists().where(vm_run.c.vm_id == made_room.c.for_vm_id, vm_run.c.active == 1)
    query = made_room.update().where(
        made_room.c.for_operation_id == for_operation_id,
        made_room.c.owed == 1,
        _is_open(made_room.c.for_operation_id),
        ~has_place,
    )
    await changed(connection, query.values(waiting=1))


class Kept(NamedTuple):
    """Room on a host that nobody gets but whom it was made for."""

    memory_mib: int
    vcpus: int


NOTHING_KEPT = Kept(0, 0)


@prebuilt
def _promised(cluster_id: UUID, /) -> sa.Select[Any]:
    still = sa.and_(vm_run.c.id == made_room.c.run_id, vm_run.c.active == 1)
    return (
        sa.select(
            made_room.c.for_vm_id,
            made_room.c.host_id,
            vm.c.memory_mib,
            vm.c.vcpus,
            sa.func.sum(sa.func.coalesce(vm_run.c.memory_mib, 0)).label("not_yet_mib"),
            sa.func.sum(sa.func.coalesce(vm_run.c.vcpus, 0)).label("not_yet_vcpus"),
        )
        .select_from(made_room)
        .join(vm, vm.c.id == made_room.c.for_vm_id)
        .outerjoin(vm_run, still)
        .where(vm.c.cluster_id == cluster_id, _waits())
        .group_by(made_room.c.for_vm_id, made_room.c.host_id, vm.c.memory_mib, vm.c.vcpus)
    )


async def promised(
    connection: AsyncConnection, cluster_id: UUID, but_for: UUID | None
) -> dict[UUID, Kept]:
    """What is kept on each host for VMs for which room is being made, but for this one."""
    kept: dict[UUID, Kept] = {}
    for row in await many(connection, _promised(cluster_id)):
        if row["for_vm_id"] != but_for:
            was = kept.get(row["host_id"], NOTHING_KEPT)
            kept[row["host_id"]] = Kept(
                was.memory_mib + max(0, row["memory_mib"] - int(row["not_yet_mib"])),
                was.vcpus + max(0, row["vcpus"] - int(row["not_yet_vcpus"])),
            )
    return kept


@prebuilt
def _waiting_for(stop_id: UUID, /) -> sa.Select[Any]:
    return sa.select(made_room.c.for_operation_id).where(made_room.c.stop_id == stop_id, _waits())


async def waiting_for(connection: AsyncConnection, stop_id: UUID) -> UUID | None:
    """The start that waits for a stop to end."""
    row = await one(connection, _waiting_for(stop_id))
    return None if row is None else row["for_operation_id"]


@prebuilt
def _made_for(run_id: UUID, /) -> sa.Select[Any]:
    query = sa.select(vm.c.name).join(made_room, made_room.c.for_vm_id == vm.c.id)
    return query.where(
        made_room.c.run_id == run_id, made_room.c.owed == 1, _is_open(made_room.c.stop_id)
    )


async def made_for(connection: AsyncConnection, run_id: UUID) -> str | None:
    """The name of the VM for which a run is being ended, or None."""
    row = await one(connection, _made_for(run_id))
    return None if row is None else row["name"]


def stop_allowed() -> sa.ColumnElement[bool]:
    """Whether a run may be asked to end: one that makes room not while automatic action is off.

    A stop that has begun goes on.
    """
    for_another = sa.exists().where(
        made_room.c.run_id == vm_run.c.id, made_room.c.owed == 1, _is_open(made_room.c.stop_id)
    )
    acts = sa.exists().where(
        vm.c.id == vm_run.c.vm_id, cluster.c.id == vm.c.cluster_id, acts_on_known()
    )
    begun = vm_run.c.state == sa.literal(RunState.STOPPING.value)
    return sa.or_(begun, ~for_another, acts)


async def held_back(connection: AsyncConnection, run_id: UUID) -> bool:
    """Whether a run is not asked to end because automatic action is off."""
    query = sa.select(vm_run.c.id).where(
        vm_run.c.id == run_id, vm_run.c.state == RunState.RUNNING.value, ~stop_allowed()
    )
    return await one(connection, query) is not None


@prebuilt
def _started_again(operation_id: UUID, /) -> sa.Select[Any]:
    return sa.select(made_room.c.id).where(made_room.c.start_id == operation_id)


async def starts_again(connection: AsyncConnection, operation_id: UUID) -> bool:
    """Whether an operation starts a VM that was stopped for another."""
    return await one(connection, _started_again(operation_id)) is not None


def _is_starting() -> sa.ColumnElement[bool]:
    """Whether the VM that got the room does not run there yet: its place may be withdrawn."""
    begun = sa.exists().where(
        vm_run.c.vm_id == made_room.c.for_vm_id,
        vm_run.c.operation_id == made_room.c.for_operation_id,
        vm_run.c.active == 1,
        vm_run.c.state != sa.literal(RunState.RUNNING.value),
    )
    return sa.and_(begun, _is_open(made_room.c.for_operation_id))


def _is_due() -> sa.ColumnElement[bool]:
    """Whether it is time to see to a VM that is owed a start; to be asked beside its cluster."""
    return sa.and_(
        made_room.c.owed == 1,
        made_room.c.stop_id.is_not(None),
        cluster.c.armed.is_(True),
        ~_waits(),
        ~_is_starting(),
        ~_is_open(made_room.c.stop_id),
    )


@prebuilt
def _due(limit: int, /, *row_id: UUID) -> sa.Select[Any]:
    other = vm.alias("other")
    query = (
        sa.select(made_room, other.c.name.label("for_name"))
        .join(vm, vm.c.id == made_room.c.vm_id)
        .join(other, other.c.id == made_room.c.for_vm_id)
        .join(cluster, cluster.c.id == vm.c.cluster_id)
        .where(_is_due())
    )
    for each in row_id:
        query = query.where(made_room.c.id == each)
    return query.order_by(made_room.c.id).limit(limit)


async def due(connection: AsyncConnection, limit: int, *, row_id: UUID | None = None) -> list[Row]:
    """VMs whose room is not kept any more and whose stop has ended, with `for_name`, oldest first.

    Not while the VM that got the room is still being started. Only of clusters that are armed.
    """
    which = () if row_id is None else (row_id,)
    return await many(connection, _due(limit, *which))


async def owed_to(connection: AsyncConnection, vm_id: UUID) -> Row | None:
    """What says that a VM was stopped for another and is owed a start, if it is seen to now.

    See `due`: a stop that failed half way is ordered again under the same conditions.
    """
    query = (
        sa.select(made_room)
        .join(vm, vm.c.id == made_room.c.vm_id)
        .join(cluster, cluster.c.id == vm.c.cluster_id)
        .where(made_room.c.vm_id == vm_id, _is_due())
    )
    return await one(connection, query)


async def failed_stops(connection: AsyncConnection, row: Row) -> tuple[int, datetime | None]:
    """How many stops of a VM have ended since it was to make room, and when the last of them did.

    Each has failed, as long as its run is still stopping.
    """
    query = sa.select(
        sa.func.count().label("count"), sa.func.max(operation.c.finished_at).label("last")
    ).where(
        operation.c.target_id == row["vm_id"],
        operation.c.kind == "vm.stop",
        operation.c.created_at >= row["created_at"],
        ~IS_OPEN,
    )
    (found,) = await many(connection, query)
    return int(found["count"]), found["last"]


async def settle(connection: AsyncConnection, row_id: UUID, start_id: UUID | None) -> bool:
    """Owe a VM nothing more: its start is ordered, or needless; False when settled before."""
    query = made_room.update().where(made_room.c.id == row_id, made_room.c.owed == 1)
    return await changed(connection, query.values(owed=None, start_id=start_id)) == 1
