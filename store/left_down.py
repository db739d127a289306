"""Statements on VMs that were found gone and could not be started again at that moment.

The latest run of such a VM says so; whoever takes that word back starts it.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.inventory import HostState
from store.prebuilt import prebuilt
from store.rows import Row, changed, many, number
from store.schema import cluster, host, vm
from store.schema_ha import vm_run

FOUND_GONE = "found gone"
"""Why a run ended whose process was not there any more when its host was reconciled."""

LEFT_DOWN = "found gone, to be started again"


@prebuilt
def _latest(vm_id: UUID, /) -> sa.Select[Any]:
    return sa.select(sa.func.max(vm_run.c.generation)).where(vm_run.c.vm_id == vm_id)


async def leave_down(connection: AsyncConnection, vm_id: UUID) -> bool:
    """Note that a VM whose latest run was found gone is to be started again later. Repeatable.

    A VM may have a higher generation than its latest run: that of an adoption that came to nothing.
    """
    latest = await number(connection, _latest(vm_id))
    query = vm_run.update().where(
        vm_run.c.vm_id == vm_id,
        vm_run.c.generation == latest,
        vm_run.c.end_reason.in_([FOUND_GONE, LEFT_DOWN]),
    )
    return await changed(connection, query.values(end_reason=LEFT_DOWN)) == 1


def _followed() -> sa.ColumnElement[bool]:
    """Whether a VM has had another run since."""
    later = vm_run.alias("later")
    return sa.exists().where(
        later.c.vm_id == vm_run.c.vm_id, later.c.generation > vm_run.c.generation
    )


@prebuilt
def _left_down(limit: int, /, *ids: UUID, which: str) -> sa.Select[Any]:
    settling = sa.exists().where(
        host.c.id == vm_run.c.host_id, host.c.state == HostState.RECONCILING
    )
    query = (
        sa.select(vm_run)
        .join(vm, vm.c.id == vm_run.c.vm_id)
        .join(cluster, cluster.c.id == vm.c.cluster_id)
        .where(
            vm.c.protected.is_(True),
            vm.c.wanted.is_(True),
            vm.c.removed_at.is_(None),
            cluster.c.armed.is_(True),
            vm_run.c.end_reason == LEFT_DOWN,
            ~_followed(),
        )
    )
    for one in ids:
        query = query.where(vm_run.c[which] == one)
    if which != "host_id":
        # Its own admission starts it, and looks first.
        query = query.where(~settling)
    return query.order_by(vm_run.c.id).limit(limit)


async def left_down(
    connection: AsyncConnection,
    limit: int,
    *,
    run_id: UUID | None = None,
    host_id: UUID | None = None,
) -> list[Row]:
    """Latest runs of VMs that are still to be started again, where that is allowed by now.

    Those of a host that is being reconciled are told only to who asks for that host.
    """
    if host_id is not None:
        return await many(connection, _left_down(limit, host_id, which="host_id"))
    ids = () if run_id is None else (run_id,)
    return await many(connection, _left_down(limit, *ids, which="id"))


@prebuilt
def _left_down_of(vm_ids: Sequence[UUID], /) -> sa.Select[Any]:
    return sa.select(vm_run.c.vm_id).where(
        vm_run.c.vm_id.in_(vm_ids), vm_run.c.end_reason == LEFT_DOWN, ~_followed()
    )


async def left_down_of(connection: AsyncConnection, vm_ids: Sequence[UUID]) -> set[UUID]:
    """Those of these VMs that were found gone and are still to be started again."""
    if not vm_ids:
        return set()
    return {row["vm_id"] for row in await many(connection, _left_down_of(vm_ids))}


async def pick_up(connection: AsyncConnection, run_id: UUID) -> bool:
    """Take a VM that was left down, in order to start it; False when somebody else has."""
    query = vm_run.update().where(vm_run.c.id == run_id, vm_run.c.end_reason == LEFT_DOWN)
    return await changed(connection, query.values(end_reason=FOUND_GONE)) == 1
