"""Changing and removing what the inventory holds, each a compare-and-set on the object's version.

What history refers to (clusters, hosts, VMs) is removed by a date: its row stays for the runs,
incidents and certificates that name it, under a name and an address that nobody can be given. What
no history refers to (networks, fence devices, affinity groups) is deleted.

Each function says False, having changed nothing, when the object does not stand at the version any
more or one of the conditions does not hold: what a statement itself checks, no race gets past.
"""

from datetime import datetime
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.inventory import HostState, RunState
from domain.matrix import allowed_in
from store.inventory import TABLES, tombstone
from store.rows import Row, changed, many, number
from store.schema import (
    affinity_group,
    affinity_host,
    cluster,
    fence_device,
    host,
    network,
    vm,
    vm_nic,
)
from store.schema_ha import (
    death_certificate,
    host_sample,
    incident,
    observation,
    ssh_access,
    vm_run,
)

OUT_OF_SERVICE = tuple(HostState(state) for state in allowed_in("host", "host.remove"))
"""States of a host in which nothing is started on it, and no failure of it is being judged."""


async def edit(
    connection: AsyncConnection, entity: str, entity_id: UUID, version: int, values: Row
) -> bool:
    """Set columns of an object that stands at a version, which rises by one."""
    table = TABLES[entity]
    query = table.update().where(table.c.id == entity_id, table.c.version == version)
    return await changed(connection, query.values(**values, version=version + 1)) == 1


async def edit_host(connection: AsyncConnection, host_id: UUID, version: int, values: Row) -> bool:
    """The same for a host that keeps its address."""
    return await edit(connection, "host", host_id, version, values)


async def move_address(
    connection: AsyncConnection, host_id: UUID, version: int, values: Row
) -> bool:
    """The same for one that gets another address: it is out of service, and runs none of ours.

    Else another machine would be taken for the one on which copies may run.
    """
    query = host.update().where(
        host.c.id == host_id,
        host.c.version == version,
        host.c.state.in_(OUT_OF_SERVICE),
        sa.not_(_may_run()),
    )
    return await changed(connection, query.values(**values, version=version + 1)) == 1


async def delete(connection: AsyncConnection, entity: str, entity_id: UUID, version: int) -> bool:
    """Delete an object that no history refers to."""
    table = TABLES[entity]
    query = table.delete().where(table.c.id == entity_id, table.c.version == version)
    return await changed(connection, query) == 1


async def delete_network(connection: AsyncConnection, network_id: UUID, version: int) -> bool:
    """Delete a network that no card is on."""
    used = sa.exists().where(vm_nic.c.network_id == network.c.id)
    query = network.delete().where(
        network.c.id == network_id, network.c.version == version, sa.not_(used)
    )
    return await changed(connection, query) == 1


async def remove(
    connection: AsyncConnection,
    entity: str,
    row: Row,
    now: datetime,
    *conditions: sa.ColumnElement[bool],
    **values: str,
) -> bool:
    """Date an object's removal; its name is free at once. `values` frees what else is unique."""
    table = TABLES[entity]
    query = table.update().where(
        table.c.id == row["id"],
        table.c.version == row["version"],
        table.c.removed_at.is_(None),
        *conditions,
    )
    freed = {"name": tombstone(row["name"], row["id"]), "version": row["version"] + 1, **values}
    return await changed(connection, query.values(removed_at=now, **freed)) == 1


async def remove_cluster(connection: AsyncConnection, row: Row, now: datetime) -> bool:
    """Remove a cluster in which nothing is left."""
    inside = [
        sa.not_(sa.exists().where(table.c.cluster_id == cluster.c.id, *_present(table)))
        for table in (host, vm, network, affinity_group)
    ]
    return await remove(connection, "cluster", row, now, *inside)


async def remove_host(connection: AsyncConnection, row: Row, now: datetime) -> bool:
    """Remove a host that is out of service, with what is about its present alone.

    No copy of ours may run there but those that a valid certificate holds to be dead, and no
    incident of it may be open. Runs, incidents, evidence and certificates stay. Its place in
    affinity groups goes: the caller sees to it that none is left without hosts.
    """
    opened = sa.exists().where(incident.c.host_id == host.c.id, incident.c.open == 1)
    freed = f"removed:{row['uri'][:470]}~{row['id'].hex}"
    conditions = (host.c.state.in_(OUT_OF_SERVICE), sa.not_(_may_run()), sa.not_(opened))
    if not await remove(connection, "host", row, now, *conditions, uri=freed):
        return False
    for table in (fence_device, ssh_access, observation, host_sample, affinity_host):
        await changed(connection, table.delete().where(table.c.host_id == row["id"]))
    return True


def _may_run() -> sa.ColumnElement[bool]:
    """Whether a copy may run on the host that no valid certificate holds to be dead."""
    return sa.exists().where(_is_here(), _is_at_stake())


def _is_here() -> sa.ColumnElement[bool]:
    """Whether a run names a host, also as the target that it moves to."""
    return sa.or_(vm_run.c.host_id == host.c.id, vm_run.c.target_host_id == host.c.id)


def _is_at_stake() -> sa.ColumnElement[bool]:
    """Whether a run, next to its host, is such a copy."""
    valid = sa.exists().where(
        death_certificate.c.host_id == vm_run.c.host_id,
        death_certificate.c.epoch == vm_run.c.epoch,
        death_certificate.c.valid == 1,
    )
    lost = sa.and_(vm_run.c.state == RunState.LOST, vm_run.c.epoch == host.c.epoch, sa.not_(valid))
    return sa.or_(vm_run.c.active == 1, lost)


def _present(table: sa.Table) -> tuple[sa.ColumnElement[bool], ...]:
    return (table.c.removed_at.is_(None),) if "removed_at" in table.c else ()


async def copies_on(connection: AsyncConnection, host_id: UUID) -> list[Row]:
    """VMs of which a copy may run on a host, by name: `name`, and the run's `state`."""
    query = (
        sa.select(vm.c.name, vm_run.c.state)
        .select_from(vm_run)
        .join(vm, vm.c.id == vm_run.c.vm_id)
        .join(host, _is_here())
        .where(host.c.id == host_id, _is_at_stake())
        .order_by(vm.c.name)
    )
    return await many(connection, query)


async def some_of(
    connection: AsyncConnection, entity: str, cluster_id: UUID, limit: int
) -> tuple[int, list[str]]:
    """How many objects of a kind a cluster has, and the names of the first few."""
    table = TABLES[entity]
    here = (table.c.cluster_id == cluster_id, *_present(table))
    count = await number(connection, sa.select(sa.func.count()).select_from(table).where(*here))
    if count == 0:
        return 0, []
    query = sa.select(table.c.name).where(*here).order_by(table.c.name).limit(limit)
    return count, [row["name"] for row in await many(connection, query)]


async def users_of(
    connection: AsyncConnection, network_id: UUID, limit: int
) -> tuple[int, list[str]]:
    """How many VMs have a card on a network, and the names of the first few."""
    on_it = sa.exists().where(vm_nic.c.vm_id == vm.c.id, vm_nic.c.network_id == network_id)
    count = await number(connection, sa.select(sa.func.count()).select_from(vm).where(on_it))
    query = sa.select(vm.c.name).where(on_it).order_by(vm.c.name).limit(limit)
    return count, [row["name"] for row in await many(connection, query)]


async def affinity_of(connection: AsyncConnection, host_id: UUID) -> list[Row]:
    """The affinity groups that name a host, by name: `id`, `name`, `hosts` (how many they name)."""
    other = affinity_host.alias("other")
    query = (
        sa.select(affinity_group.c.id, affinity_group.c.name, sa.func.count().label("hosts"))
        .join(affinity_host, affinity_host.c.group_id == affinity_group.c.id)
        .join(other, other.c.group_id == affinity_group.c.id)
        .where(affinity_host.c.host_id == host_id)
        .group_by(affinity_group.c.id, affinity_group.c.name)
        .order_by(affinity_group.c.name)
    )
    return await many(connection, query)


async def protected_in(connection: AsyncConnection, cluster_id: UUID) -> int:
    """How many VMs of a cluster are to be started elsewhere when their host fails."""
    query = sa.select(sa.func.count()).where(
        vm.c.cluster_id == cluster_id, vm.c.protected.is_(True), *_present(vm)
    )
    return await number(connection, query)
