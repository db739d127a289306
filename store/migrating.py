"""Statements on runs that libvirt moves from one host to another.

While a run is `migrating` it names both hosts and holds memory and vCPUs on both, and no other
statement closes it. It leaves that state by one of three: it stayed, it arrived, or neither host
has it. Each is a compare-and-set that asks for what its caller has read or proven; where a host was
not read, the certificate that holds it to be dead is spent in the same transaction (I1).
"""

from collections import Counter
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.inventory import HostState, RunState
from store import hosts, runs, soft_steps
from store.ids import new_id
from store.left_down import FOUND_GONE
from store.prebuilt import prebuilt
from store.rows import Row, changed, many, one
from store.schema import host, vm
from store.schema_ha import death_certificate, vm_run

ARRIVED = "migrated"
"""Why the run of the source ended once its guest was read as running on the target."""

LEAVING = (HostState.UP, HostState.CONNECTING, HostState.PREPARING_MAINTENANCE)
"""States of a host from which a guest may be moved away."""

NO_TARGET = {
    "target_host_id": None,
    "target_epoch": None,
    "target_generation": None,
    "moved_by": None,
}


async def begin(
    connection: AsyncConnection, run_id: UUID, target_id: UUID, epoch: int, operation_id: UUID
) -> Row | None:
    """Reserve room on the target and let the run name both hosts; None when that cannot be.

    Takes the VM's next generation for the target's copy. Only a running run begins to migrate, and
    only from a host in service to another one, neither of which has its libvirtd restarted now: a
    restart would cut what libvirt moves.
    """
    run = await runs.get(connection, run_id)
    if run is None or not await hosts.reserve(connection, target_id, epoch, run):
        return None
    newest = await runs.newest_generation(connection, run["vm_id"])
    raised = vm.update().where(vm.c.id == run["vm_id"], vm.c.generation == newest)
    generation = int(newest or 0) + 1
    values = {
        "state": RunState.MIGRATING.value,
        "target_host_id": target_id,
        "target_epoch": epoch,
        "target_generation": generation,
        "moved_by": operation_id,
    }
    moved = vm_run.update().where(
        vm_run.c.id == run_id,
        vm_run.c.state == RunState.RUNNING,
        vm_run.c.host_id != target_id,
        source_serves(),
        sa.not_(soft_steps.restarting(vm_run.c.host_id)),
        sa.not_(soft_steps.restarting(sa.literal(target_id, sa.Uuid))),
    )
    if await changed(connection, moved.values(**values)) == 1:
        if await changed(connection, raised.values(generation=generation)) == 1:
            return run | values
        await changed(connection, _still(run_id, operation_id).values(state="running", **NO_TARGET))
    await hosts.release(connection, target_id, run)
    return None


async def claim(connection: AsyncConnection, run_id: UUID, operation_id: UUID) -> bool:
    """The last word before libvirt is told to move: False once the migration is another's or over.

    Both hosts have to be in service as they were when it began. Repeatable.
    """
    target_serves = sa.exists().where(
        host.c.id == vm_run.c.target_host_id,
        host.c.epoch == vm_run.c.target_epoch,
        host.c.state == HostState.UP,
    )
    query = vm_run.update().where(
        vm_run.c.id == run_id,
        vm_run.c.state == RunState.MIGRATING,
        vm_run.c.moved_by == operation_id,
        target_serves,
        source_serves(),
    )
    return await changed(connection, query.values(state=RunState.MIGRATING.value)) == 1


def source_serves() -> sa.ColumnElement[bool]:
    """Whether the host of a run is in service, in the run's epoch."""
    return sa.exists().where(
        host.c.id == vm_run.c.host_id,
        host.c.epoch == vm_run.c.epoch,
        host.c.state.in_([state.value for state in LEAVING]),
    )


async def stayed(
    connection: AsyncConnection, run_id: UUID, operation_id: UUID, *, certificate_id: UUID | None
) -> bool:
    """The guest runs on its source, and nothing of it on the target: read, or proven dead."""
    run = await _mine(connection, run_id, operation_id)
    if run is None or not await _spend(connection, certificate_id, *_target(run)):
        return False
    query = _still(run_id, operation_id)
    values = {"state": RunState.RUNNING.value, **NO_TARGET}
    if await changed(connection, query.values(**values)) != 1:
        return False
    await hosts.release(connection, run["target_host_id"], run)
    return True


async def arrived(
    connection: AsyncConnection, run_id: UUID, operation_id: UUID, generation: int, now: datetime
) -> Row | None:
    """The guest runs on its target with this generation: the source's run ends, a new one begins.

    It keeps the time since which the guest runs, and the operation that once started it.
    """
    run = await _mine(connection, run_id, operation_id)
    ended = {"state": "ended", "active": None, "ended_at": now, "end_reason": ARRIVED, **NO_TARGET}
    query = _still(run_id, operation_id)
    if run is None or await changed(connection, query.values(**ended)) != 1:
        return None
    await hosts.release(connection, run["host_id"], run)
    row = _on_target(run, generation) | {
        "state": RunState.RUNNING.value,
        "active": 1,
        "created_at": now,
        "started_at": run["started_at"] or now,
    }
    await changed(connection, vm_run.insert().values(**row))
    return row


async def gone(
    connection: AsyncConnection,
    run_id: UUID,
    operation_id: UUID,
    now: datetime,
    *,
    source_certificate: UUID | None,
    target_certificate: UUID | None,
) -> bool:
    """Neither host runs the guest: each was read as without it, or is dead by a certificate.

    With a certificate a side becomes a lost run, which a start elsewhere has to be licensed for.
    """
    run = await _mine(connection, run_id, operation_id)
    if run is None:
        return False
    source = (source_certificate, run["host_id"], run["epoch"])
    target = (target_certificate, *_target(run))
    if not await _spend(connection, *source) or not await _spend(connection, *target):
        return False
    query = _still(run_id, operation_id)
    if await changed(connection, query.values(**_closed(source_certificate, now))) != 1:
        return False
    for host_id in (run["host_id"], run["target_host_id"]):
        await hosts.release(connection, host_id, run)
    if target_certificate is not None:
        row = _on_target(run, run["target_generation"]) | _closed(target_certificate, now)
        row |= {"created_at": now, "started_at": None}
        await changed(connection, vm_run.insert().values(**row))
    return True


def _closed(certificate_id: UUID | None, now: datetime) -> Row:
    lost = certificate_id is not None
    return {
        "state": RunState.LOST.value if lost else RunState.ENDED.value,
        "active": None,
        "ended_at": now,
        "end_reason": "host dead" if lost else FOUND_GONE,
        "lost_certificate_id": certificate_id,
        **NO_TARGET,
    }


def _on_target(run: Row, generation: int) -> Row:
    same = ("vm_id", "memory_mib", "vcpus", "operation_id")
    return {name: run[name] for name in same} | {
        "id": new_id(),
        "host_id": run["target_host_id"],
        "epoch": run["target_epoch"],
        "generation": generation,
        "licence_id": None,
        "incident_id": None,
        "gave_way": None,
    }


def _target(run: Row) -> tuple[UUID, int]:
    return run["target_host_id"], run["target_epoch"]


def _still(run_id: UUID, operation_id: UUID) -> sa.Update:
    return vm_run.update().where(
        vm_run.c.id == run_id,
        vm_run.c.state == RunState.MIGRATING,
        vm_run.c.moved_by == operation_id,
    )


async def _mine(connection: AsyncConnection, run_id: UUID, operation_id: UUID) -> Row | None:
    run = await runs.get(connection, run_id)
    mine = run is not None and (run["state"], run["moved_by"]) == ("migrating", operation_id)
    return run if mine else None


async def _spend(
    connection: AsyncConnection, certificate_id: UUID | None, host_id: UUID, epoch: int
) -> bool:
    """Lock a certificate as valid for a host and epoch; True where none is needed."""
    if certificate_id is None:
        return True
    query = death_certificate.update().where(
        death_certificate.c.id == certificate_id,
        death_certificate.c.valid == 1,
        death_certificate.c.host_id == host_id,
        death_certificate.c.epoch == epoch,
    )
    return await changed(connection, query.values(uses=death_certificate.c.uses + 1)) == 1


async def of_operation(connection: AsyncConnection, operation_id: UUID) -> Row | None:
    """The run that an operation is moving, or None."""
    query = sa.select(vm_run).where(
        vm_run.c.moved_by == operation_id, vm_run.c.state == RunState.MIGRATING
    )
    return await one(connection, query)


@prebuilt
def _naming(host_id: UUID, /) -> sa.Select[Any]:
    either = sa.or_(vm_run.c.host_id == host_id, vm_run.c.target_host_id == host_id)
    query = sa.select(vm_run).where(vm_run.c.state == RunState.MIGRATING, either)
    return query.order_by(vm_run.c.vm_id)


async def naming(connection: AsyncConnection, host_id: UUID) -> list[Row]:
    """Runs that are migrating from or to a host, by VM."""
    return await many(connection, _naming(host_id))


async def under_way(connection: AsyncConnection) -> tuple[Counter[UUID], Counter[UUID]]:
    """How many runs leave each host now, and how many come to each."""
    query = sa.select(vm_run.c.host_id, vm_run.c.target_host_id)
    rows = await many(connection, query.where(vm_run.c.state == RunState.MIGRATING))
    return Counter(row["host_id"] for row in rows), Counter(row["target_host_id"] for row in rows)


async def emptied(connection: AsyncConnection, host_id: UUID, epoch: int, now: datetime) -> bool:
    """Take a drained host out of service; False while a run names it, also as a target."""
    named = sa.exists().where(
        vm_run.c.active == 1,
        sa.or_(vm_run.c.host_id == host.c.id, vm_run.c.target_host_id == host.c.id),
    )
    query = host.update().where(
        host.c.id == host_id,
        host.c.epoch == epoch,
        host.c.state == HostState.PREPARING_MAINTENANCE,
        sa.not_(named),
    )
    values = {"state": HostState.MAINTENANCE.value, "state_reason": "drained", "state_since": now}
    return await changed(connection, query.values(**values)) == 1


async def follow(connection: AsyncConnection, host_id: UUID, epoch: int) -> int:
    """Carry the targets on a reconciled host into its new epoch; how many there are."""
    query = vm_run.update().where(
        vm_run.c.target_host_id == host_id, vm_run.c.state == RunState.MIGRATING
    )
    return await changed(connection, query.values(target_epoch=epoch))
