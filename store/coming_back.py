"""Statements on VMs that do not run, and on what brings them back."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from store.control import OPEN
from store.left_down import left_down_of
from store.prebuilt import prebuilt
from store.rows import many
from store.schema import operation
from store.schema_ha import planned_stop

STARTS = ("vm.start", "vm.recover")
"""Kinds of operations that start the VM that they are about."""


@prebuilt
def _open_starts(vm_ids: Sequence[UUID], /) -> sa.Select[Any]:
    return (
        sa.select(operation.c.target_id, sa.func.min(operation.c.created_at).label("since"))
        .where(
            operation.c.target_id.in_(vm_ids),
            operation.c.kind.in_(STARTS),
            operation.c.state.in_(OPEN),
        )
        .group_by(operation.c.target_id)
    )


async def open_starts(connection: AsyncConnection, vm_ids: Sequence[UUID]) -> dict[UUID, datetime]:
    """VMs that an open operation starts, and since when the oldest of them is open."""
    if not vm_ids:
        return {}
    rows = await many(connection, _open_starts(vm_ids))
    return {row["target_id"]: row["since"] for row in rows}


async def coming(connection: AsyncConnection, vm_ids: Sequence[UUID]) -> set[UUID]:
    """Those of these VMs without an active run that something brings back."""
    if not vm_ids:
        return set()
    query = sa.select(planned_stop.c.vm_id).where(planned_stop.c.vm_id.in_(vm_ids))
    remembered = {row["vm_id"] for row in await many(connection, query)}
    left = await left_down_of(connection, vm_ids)
    return remembered | left | (await open_starts(connection, vm_ids)).keys()


async def begun(connection: AsyncConnection, operation_ids: Sequence[UUID]) -> frozenset[UUID]:
    """Those of these operations that a workflow has claimed once, or that have ended."""
    query = sa.select(operation.c.id).where(
        operation.c.id.in_(operation_ids),
        sa.or_(operation.c.run_id.is_not(None), operation.c.state.not_in(OPEN)),
    )
    return frozenset(row["id"] for row in await many(connection, query))
