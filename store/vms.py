"""Statements on VMs as configuration: their cards, what they wait for, removing and importing them.

What removes a VM also asks that nothing may run of it: no plan in Python can promise that.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from store import edits, hosts
from store.bulk import insert_many
from store.prebuilt import prebuilt
from store.rows import Row, changed, in_chunks, inserted, many, one
from store.schema import affinity_vm, cluster, host, network, vm, vm_dependency, vm_nic
from store.schema_ha import failback, vm_run


async def remove(connection: AsyncConnection, row: Row, now: datetime) -> bool:
    """Make a VM history: its name, addresses and memberships are free, its runs stay.

    False when it was changed since it was read, or may have a process.
    """
    active = sa.exists().where(vm_run.c.vm_id == vm.c.id, vm_run.c.active == 1)
    if not await edits.remove(connection, "vm", row, now, sa.not_(active)):
        return False
    await _let_go(connection, row["id"])
    return True


async def forget_removed(connection: AsyncConnection, vm_id: UUID) -> bool:
    """Delete a removed VM that never ran; False when there is history that names it."""
    ran = sa.exists().where(vm_run.c.vm_id == vm.c.id)
    query = vm.delete().where(vm.c.id == vm_id, vm.c.removed_at.is_not(None), sa.not_(ran))
    return await changed(connection, query) == 1


async def _let_go(connection: AsyncConnection, vm_id: UUID) -> None:
    """Drop a VM's cards, its place among those that wait for others, and its memberships."""
    either = sa.or_(vm_dependency.c.vm_id == vm_id, vm_dependency.c.depends_on_id == vm_id)
    await changed(connection, vm_nic.delete().where(vm_nic.c.vm_id == vm_id))
    await changed(connection, vm_dependency.delete().where(either))
    await changed(connection, affinity_vm.delete().where(affinity_vm.c.vm_id == vm_id))
    await changed(connection, failback.delete().where(failback.c.vm_id == vm_id))


@prebuilt
def _of_run(run_id: UUID, /) -> sa.Select[Any]:
    where = (host.c.name.label("host_name"), host.c.uri.label("host_uri"), cluster.c.virt_type)
    return (
        sa.select(vm, *where)
        .join(cluster, cluster.c.id == vm.c.cluster_id)
        .join(vm_run, vm_run.c.vm_id == vm.c.id)
        .join(host, host.c.id == vm_run.c.host_id)
        .where(vm_run.c.id == run_id, vm.c.removed_at.is_(None), host.c.removed_at.is_(None))
    )


async def of_run(connection: AsyncConnection, run_id: UUID) -> Row | None:
    """The VM of a run, with `host_name` and `host_uri`, and its cluster's `virt_type`."""
    return await one(connection, _of_run(run_id))


@prebuilt
def _nics_of(vm_ids: Sequence[UUID], /) -> sa.Select[Any]:
    return (
        sa.select(vm_nic, network.c.name.label("network"), network.c.bridge)
        .join(network, network.c.id == vm_nic.c.network_id)
        .where(vm_nic.c.vm_id.in_(vm_ids))
        .order_by(vm_nic.c.vm_id, vm_nic.c.position)
    )


async def nics_of(
    connection: AsyncConnection, vm_ids: Sequence[UUID]
) -> dict[UUID, tuple[Row, ...]]:
    """The cards of VMs, each with its network's name and bridge, in the order of their places.

    A VM without cards is left out.
    """
    found: dict[UUID, tuple[Row, ...]] = {}
    for some in in_chunks(vm_ids):
        for row in await many(connection, _nics_of(some)):
            found[row["vm_id"]] = (*found.get(row["vm_id"], ()), row)
    return found


async def put_nics(connection: AsyncConnection, vm_id: UUID, rows: Sequence[Row]) -> None:
    """Give a VM these cards and no others; their places are their order."""
    await changed(connection, vm_nic.delete().where(vm_nic.c.vm_id == vm_id))
    fields = ("network_id", "mac", "model")
    placed = [
        {"vm_id": vm_id, "position": number} | {field: row[field] for field in fields}
        for number, row in enumerate(rows)
    ]
    await insert_many(connection, vm_nic, placed)


async def mac_owners(connection: AsyncConnection, macs: Iterable[str]) -> dict[str, Row]:
    """Which VMs (`vm_id`, `name`) have these addresses; a free one is left out."""
    query = (
        sa.select(vm_nic.c.mac, vm_nic.c.vm_id, vm.c.name)
        .join(vm, vm.c.id == vm_nic.c.vm_id)
        .where(vm_nic.c.mac.in_(sorted(macs)))
    )
    return {row["mac"]: row for row in await many(connection, query)}


async def depends_on(connection: AsyncConnection, vm_id: UUID) -> tuple[UUID, ...]:
    """The VMs that one VM waits for, by id."""
    query = sa.select(vm_dependency.c.depends_on_id).where(vm_dependency.c.vm_id == vm_id)
    rows = await many(connection, query)
    return tuple(sorted(row["depends_on_id"] for row in rows))


async def dependencies_of(
    connection: AsyncConnection, vm_ids: Sequence[UUID]
) -> dict[UUID, tuple[UUID, ...]]:
    """What each of these VMs waits for, by id; one that waits for none is left out."""
    found: dict[UUID, list[UUID]] = {}
    for some in in_chunks(vm_ids):
        query = sa.select(vm_dependency).where(vm_dependency.c.vm_id.in_(some))
        for row in await many(connection, query.order_by(vm_dependency.c.depends_on_id)):
            found.setdefault(row["vm_id"], []).append(row["depends_on_id"])
    return {vm_id: tuple(others) for vm_id, others in found.items()}


async def put_dependencies(
    connection: AsyncConnection, vm_id: UUID, others: Iterable[UUID]
) -> None:
    """Have a VM wait for these and no others."""
    await changed(connection, vm_dependency.delete().where(vm_dependency.c.vm_id == vm_id))
    rows = [{"vm_id": vm_id, "depends_on_id": other} for other in sorted(others)]
    await insert_many(connection, vm_dependency, rows)


async def dependants(connection: AsyncConnection, vm_id: UUID) -> tuple[str, ...]:
    """The names of the VMs that wait for one VM."""
    query = (
        sa.select(vm.c.name)
        .join(vm_dependency, vm_dependency.c.vm_id == vm.c.id)
        .where(vm_dependency.c.depends_on_id == vm_id)
        .order_by(vm.c.name)
    )
    return tuple(row["name"] for row in await many(connection, query))


async def networks_by_bridge(
    connection: AsyncConnection, cluster_id: UUID
) -> dict[str | None, Row]:
    """The networks of a cluster by their bridge (None: QEMU's own); of two the first by name."""
    query = sa.select(network).where(network.c.cluster_id == cluster_id).order_by(network.c.name)
    found: dict[str | None, Row] = {}
    for row in await many(connection, query):
        found.setdefault(row["bridge"], row)
    return found


async def record_running(connection: AsyncConnection, run: Row) -> bool:
    """Write the run of a guest that was found running, and count what it takes.

    That counts whether there is room or not: the guest is there. False unless its host is in
    service at the run's epoch, so that no dead host gets a run that nobody would recover.
    """
    query = host.update().where(
        host.c.id == run["host_id"],
        host.c.epoch == run["epoch"],
        host.c.state.in_(["up", "connecting"]),
    )
    if await changed(connection, query.values(**hosts.taking(run))) != 1:
        return False
    await inserted(connection, vm_run, run)
    return True


async def unrecord(connection: AsyncConnection, vm_id: UUID, operation_id: UUID) -> bool:
    """Delete a VM that an import recorded, with its run; False once anything else came of it."""
    runs = await many(connection, sa.select(vm_run).where(vm_run.c.vm_id == vm_id))
    if any(run["active"] is None or run["operation_id"] != operation_id for run in runs):
        return False
    for run in runs:
        await hosts.release(connection, run["host_id"], run)
        await changed(connection, vm_run.delete().where(vm_run.c.id == run["id"]))
    await _let_go(connection, vm_id)
    await changed(connection, vm.delete().where(vm.c.id == vm_id))
    return True
