"""Statements on clusters, hosts, fence devices and VMs as configuration.

What history refers to is not deleted: its `removed_at` is set and its name is given free (see
`tombstone`). Reading gives what is there now, unless the past is asked for with `removed=True`.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.disarming import DisarmMode
from store.prebuilt import prebuilt
from store.rows import Row, changed, in_chunks, inserted, many, one
from store.schema import (
    affinity_group,
    cluster,
    fence_device,
    host,
    network,
    operation,
    vm,
    vm_dependency,
)

TABLES = {
    "cluster": cluster,
    "host": host,
    "fence_device": fence_device,
    "network": network,
    "vm": vm,
    "affinity_group": affinity_group,
    "operation": operation,
}


async def insert(connection: AsyncConnection, entity: str, values: Row) -> None:
    """Add one cluster, host, fence device or VM."""
    await inserted(connection, TABLES[entity], values)


def _there(table: sa.Table, *, removed: bool = False) -> sa.Select[Any]:
    query = sa.select(table)
    if removed or "removed_at" not in table.c:
        return query
    return query.where(table.c.removed_at.is_(None))


def tombstone(name: str, entity_id: UUID) -> str:
    """The name under which a removed object stays in history: nobody can give it to another."""
    return f"{name[:51]}~{entity_id.hex[-12:]}"


@prebuilt
def _get(entity_id: UUID, /, *, entity: str, removed: bool) -> sa.Select[Any]:
    table = TABLES[entity]
    return _there(table, removed=removed).where(table.c.id == entity_id)


async def get(
    connection: AsyncConnection, entity: str, entity_id: UUID, *, removed: bool = False
) -> Row | None:
    """One object by id."""
    return await one(connection, _get(entity_id, entity=entity, removed=removed))


@prebuilt
def _get_many(ids: Sequence[UUID], /, *, entity: str, removed: bool) -> sa.Select[Any]:
    table = TABLES[entity]
    return _there(table, removed=removed).where(table.c.id.in_(ids))


async def get_many(
    connection: AsyncConnection, entity: str, ids: list[UUID], *, removed: bool = False
) -> dict[UUID, Row]:
    """Objects by id; one that is not there is left out."""
    found: dict[UUID, Row] = {}
    for some in in_chunks(ids):
        rows = await many(connection, _get_many(some, entity=entity, removed=removed))
        found |= {row["id"]: row for row in rows}
    return found


@prebuilt
def _find(name: str, /, *, entity: str) -> sa.Select[Any]:
    table = TABLES[entity]
    return _there(table).where(table.c.name == name)


async def find(connection: AsyncConnection, entity: str, name: str) -> Row | None:
    """One object by its unique name."""
    return await one(connection, _find(name, entity=entity))


@prebuilt
def _listing(
    *values: object, entity: str, removed: bool, columns: tuple[str, ...]
) -> sa.Select[Any]:
    table = TABLES[entity]
    query = _there(table, removed=removed).order_by(table.c.name)
    for column, value in zip(columns, values, strict=True):
        query = query.where(table.c[column] == value)
    return query


async def listing(
    connection: AsyncConnection, entity: str, *, removed: bool = False, **equal: Any
) -> list[Row]:
    """Objects whose columns equal the given values, by name."""
    columns = tuple(equal)
    query = _listing(*equal.values(), entity=entity, removed=removed, columns=columns)
    return await many(connection, query)


@prebuilt
def _dependencies() -> sa.Select[Any]:
    return sa.select(vm_dependency).order_by(vm_dependency.c.vm_id, vm_dependency.c.depends_on_id)


async def dependencies(connection: AsyncConnection) -> dict[UUID, tuple[UUID, ...]]:
    """Every VM that depends on others, with the others sorted by id."""
    found: dict[UUID, list[UUID]] = {}
    for row in await many(connection, _dependencies()):
        found.setdefault(row["vm_id"], []).append(row["depends_on_id"])
    return {vm_id: tuple(others) for vm_id, others in found.items()}


async def devices_of(connection: AsyncConnection, host_ids: list[UUID]) -> dict[UUID, list[Row]]:
    """The fence devices of hosts, by name; a host without any is left out."""
    found: dict[UUID, list[Row]] = {}
    for some in in_chunks(host_ids):
        query = sa.select(fence_device).where(fence_device.c.host_id.in_(some))
        for row in await many(connection, query.order_by(fence_device.c.name)):
            found.setdefault(row["host_id"], []).append(row)
    return found


async def fencing_of(connection: AsyncConnection, host_ids: list[UUID]) -> list[Row]:
    """For each fence device of these hosts its columns, beside what its cluster says of fencing.

    A host without a device has one row, whose device is all None. Named `host`, `profile` and
    `limit_s`: the host's id, its cluster's profile and limit. Devices of a host come by name.
    """
    found: list[Row] = []
    for some in in_chunks(host_ids):
        query = (
            sa.select(
                fence_device,
                host.c.id.label("host"),
                cluster.c.profile,
                cluster.c.fence_limit_s.label("limit_s"),
            )
            .select_from(host.join(cluster, cluster.c.id == host.c.cluster_id))
            .outerjoin(fence_device, fence_device.c.host_id == host.c.id)
            .where(host.c.id.in_(some))
        )
        found += await many(connection, query.order_by(host.c.id, fence_device.c.name))
    return found


WANT_VM = vm.update().where(vm.c.id == sa.bindparam("key")).values(wanted=sa.bindparam("wish"))
"""Record whether a person wants VMs to run; idempotent."""


@prebuilt
def _note_reading(device_id: UUID, reading: str, at: object, /) -> sa.Update:
    query = fence_device.update().where(fence_device.c.id == device_id)
    return query.values(last_reading=reading, last_read_at=at)


async def note_reading(
    connection: AsyncConnection, device_id: UUID, reading: str, at: object
) -> None:
    """Keep the latest power reading of a fence device."""
    await changed(connection, _note_reading(device_id, reading, at))


async def arm_cluster(
    connection: AsyncConnection,
    cluster_id: UUID,
    *,
    armed: bool,
    mode: DisarmMode = DisarmMode.HOLD,
    by: str | None = None,
    reason: str | None = None,
    at: datetime | None = None,
) -> None:
    """Allow every automatic action in a cluster, or stop it in a mode: who, why and when is kept.

    Idempotent; the latest word counts.
    """
    told = (mode.value, (by or "")[:128], (reason or "")[:1024], at)
    names = ("disarm_mode", "disarmed_by", "disarm_reason", "disarmed_at")
    values = dict.fromkeys(names) if armed else dict(zip(names, told, strict=True))
    query = cluster.update().where(cluster.c.id == cluster_id)
    await changed(connection, query.values(armed=armed, version=cluster.c.version + 1, **values))
