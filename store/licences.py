"""Statements on what licenses a start: no earlier copy of the VM may still run (I2).

A copy that was on a dead host counts until that host has been reconciled into a later epoch; what
speaks for its death is a valid certificate of its host and epoch.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.inventory import RunState
from store.prebuilt import prebuilt
from store.rows import Row, changed, in_chunks, many
from store.schema import host
from store.schema_ha import death_certificate, vm_run

VALID = sa.and_(
    death_certificate.c.host_id == vm_run.c.host_id,
    death_certificate.c.epoch == vm_run.c.epoch,
    death_certificate.c.valid == 1,
)
"""A certificate holds the host of a run, in the run's epoch, to be dead."""


@prebuilt
def _spend(certificate_ids: list[UUID], /) -> sa.Update:
    query = death_certificate.update().where(
        death_certificate.c.id.in_(certificate_ids), death_certificate.c.valid == 1
    )
    return query.values(uses=death_certificate.c.uses + 1)


async def licensed(connection: AsyncConnection, run: Row) -> bool:
    """Whether each earlier copy of the VM that may still exist is dead by a valid certificate.

    A lost run counts until its host has been reconciled into a later epoch, so a start that names
    no certificate is judged, too. Any valid certificate of the run's host and epoch will do: a
    voided one may have been followed by another. One that is named must be among them.
    """
    lost = await many(connection, _lost_copies([run["vm_id"]]))
    needed = {row["id"] for row in lost if row["unsettled"]}
    if run["licence_id"] is not None:
        needed.add(run["licence_id"])
    if not needed <= {row["id"] for row in lost if row["id"] is not None}:
        return False
    return not needed or await changed(connection, _spend(sorted(needed))) == len(needed)


@prebuilt
def _lost_copies(vm_ids: Sequence[UUID], /) -> sa.Select[Any]:
    """Lost runs of VMs: the valid certificate of each, if any, and whether it still counts."""
    unsettled = (host.c.epoch == vm_run.c.epoch).label("unsettled")
    return (
        sa.select(vm_run.c.vm_id, death_certificate.c.id, unsettled, host.c.name.label("host_name"))
        .select_from(vm_run)
        .join(host, host.c.id == vm_run.c.host_id)
        .outerjoin(death_certificate, VALID)
        .where(vm_run.c.vm_id.in_(vm_ids), vm_run.c.state == RunState.LOST)
    )


async def unproven_hosts(connection: AsyncConnection, vm_ids: list[UUID]) -> dict[UUID, str]:
    """Of each of these VMs a host where a copy held to be lost may run, its certificate being void.

    A VM without such a copy is left out.
    """
    found: dict[UUID, str] = {}
    for some in in_chunks(vm_ids):
        for row in await many(connection, _lost_copies(some)):
            if row["unsettled"] and row["id"] is None:
                found.setdefault(row["vm_id"], row["host_name"])
    return found


async def unproven_host(connection: AsyncConnection, vm_id: UUID) -> str | None:
    """The same for one VM."""
    return (await unproven_hosts(connection, [vm_id])).get(vm_id)


async def at_stake(connection: AsyncConnection) -> set[UUID]:
    """Hosts on which a copy may run that no valid certificate holds to be dead."""
    valid = sa.exists().where(VALID)
    lost = sa.and_(vm_run.c.state == RunState.LOST, vm_run.c.epoch == host.c.epoch, sa.not_(valid))
    query = (
        sa.select(vm_run.c.host_id)
        .join(host, host.c.id == vm_run.c.host_id)
        .where(sa.or_(vm_run.c.active == 1, lost))
        .distinct()
    )
    arriving = sa.select(vm_run.c.target_host_id).where(vm_run.c.state == RunState.MIGRATING)
    found = {row["host_id"] for row in await many(connection, query)}
    return found | {row["target_host_id"] for row in await many(connection, arriving)}
