"""Statements on affinity groups: which VMs, and on which hosts."""

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from store.bulk import insert_many
from store.pages import List, Named
from store.prebuilt import prebuilt
from store.rows import Row, changed, in_chunks, many
from store.schema import affinity_group, affinity_host, affinity_vm, vm


@prebuilt
def _groups(*values: object, columns: tuple[str, ...]) -> sa.Select[Any]:
    query = sa.select(affinity_group).order_by(affinity_group.c.name)
    for column, value in zip(columns, values, strict=True):
        query = query.where(affinity_group.c[column] == value)
    return query


async def groups(connection: AsyncConnection, **equal: object) -> list[Row]:
    """Groups whose columns equal the given values, by name; `vm_ids` and `host_ids` by id."""
    found = await many(connection, _groups(*equal.values(), columns=tuple(equal)))
    return await with_members(connection, found)


def listed(named: Named, *, cluster_id: UUID | None = None, group_id: UUID | None = None) -> List:
    """Groups by name, without their members, to be read by pages."""
    query = sa.select(affinity_group).where(*named.of(affinity_group.c.name))
    for column, value in (("cluster_id", cluster_id), ("id", group_id)):
        if value is not None:
            query = query.where(affinity_group.c[column] == value)
    return List(query, (affinity_group.c.name, affinity_group.c.id))


async def with_members(connection: AsyncConnection, rows: list[Row]) -> list[Row]:
    """Groups with their `vm_ids` and `host_ids`."""
    ids = [row["id"] for row in rows]
    vms = await _members(connection, ids, table=affinity_vm, column="vm_id")
    hosts = await _members(connection, ids, table=affinity_host, column="host_id")
    return [
        row | {"vm_ids": vms.get(row["id"], ()), "host_ids": hosts.get(row["id"], ())}
        for row in rows
    ]


@prebuilt
def _members_of(group_ids: Sequence[UUID], /, *, table: sa.Table) -> sa.Select[Any]:
    return sa.select(table).where(table.c.group_id.in_(group_ids))


async def _members(
    connection: AsyncConnection, group_ids: list[UUID], *, table: sa.Table, column: str
) -> dict[UUID, tuple[UUID, ...]]:
    found: dict[UUID, list[UUID]] = {}
    for some in in_chunks(group_ids):
        for row in await many(connection, _members_of(some, table=table)):
            found.setdefault(row["group_id"], []).append(row[column])
    return {group_id: tuple(sorted(members)) for group_id, members in found.items()}


async def groups_of_vm(connection: AsyncConnection, vm_id: UUID) -> list[Row]:
    """The groups that one VM is in (`id`, `name`), by name."""
    query = (
        sa.select(affinity_group.c.id, affinity_group.c.name)
        .join(affinity_vm, affinity_vm.c.group_id == affinity_group.c.id)
        .where(affinity_vm.c.vm_id == vm_id)
        .order_by(affinity_group.c.name)
    )
    return await many(connection, query)


async def put_vms(
    connection: AsyncConnection, group_id: UUID, vm_ids: Iterable[UUID]
) -> tuple[UUID, ...]:
    """Make these VMs, and no others, the members of a group.

    Those that come in or go out are each a new version; returns them, by id.
    """
    query = sa.select(affinity_vm.c.vm_id).where(affinity_vm.c.group_id == group_id)
    before = {row["vm_id"] for row in await many(connection, query)}
    after = set(vm_ids)
    moved = tuple(sorted(before ^ after))
    for some in in_chunks(moved):
        left = affinity_vm.delete().where(
            affinity_vm.c.group_id == group_id, affinity_vm.c.vm_id.in_(some)
        )
        await changed(connection, left)
        raised = vm.update().where(vm.c.id.in_(some))
        await changed(connection, raised.values(version=vm.c.version + 1))
    rows = [{"group_id": group_id, "vm_id": vm_id} for vm_id in sorted(after - before)]
    await insert_many(connection, affinity_vm, rows)
    return moved


async def put_hosts(connection: AsyncConnection, group_id: UUID, host_ids: Iterable[UUID]) -> None:
    """Make these hosts, and no others, the ones that a group is about."""
    await changed(connection, affinity_host.delete().where(affinity_host.c.group_id == group_id))
    rows = [{"group_id": group_id, "host_id": host_id} for host_id in sorted(set(host_ids))]
    await insert_many(connection, affinity_host, rows)


async def put_groups(connection: AsyncConnection, vm_id: UUID, group_ids: Iterable[UUID]) -> None:
    """Put a VM into these groups and out of all others; each one that changes is a new version."""
    before = {row["id"] for row in await groups_of_vm(connection, vm_id)}
    after = set(group_ids)
    left = affinity_vm.delete().where(
        affinity_vm.c.vm_id == vm_id, affinity_vm.c.group_id.in_(sorted(before - after))
    )
    await changed(connection, left)
    rows = [{"group_id": group_id, "vm_id": vm_id} for group_id in sorted(after - before)]
    await insert_many(connection, affinity_vm, rows)
    raised = affinity_group.update().where(affinity_group.c.id.in_(sorted(before ^ after)))
    await changed(connection, raised.values(version=affinity_group.c.version + 1))


async def delete(connection: AsyncConnection, group_id: UUID, version: int) -> bool:
    """Delete a group that no VM is in any more; False when it is not at this version."""
    await changed(connection, affinity_host.delete().where(affinity_host.c.group_id == group_id))
    query = affinity_group.delete().where(
        affinity_group.c.id == group_id, affinity_group.c.version == version
    )
    return await changed(connection, query) == 1
