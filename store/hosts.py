"""Statements that move a host: its state, its epoch, and what it has promised to VMs.

Every move is a compare-and-set on the states that the table in `domain.hosts` lets expect the
event, so two processes cannot both move a host, and a forbidden move touches no row.
"""

from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.capacity import TOLERANCE
from domain.hosts import NEXT, HostEvent, sources
from domain.inventory import HostState
from store.prebuilt import among, prebuilt
from store.rows import Row, changed
from store.schema import cluster, host


@prebuilt
def _move(host_id: UUID, why: str, now: datetime, /, *epoch: int, event: HostEvent) -> sa.Update:
    query = host.update().where(
        host.c.id == host_id, among(host.c.state, [s.value for s in sources(event)])
    )
    for one in epoch:
        query = query.where(host.c.epoch == one)
    return query.values(
        state=state_after(event), state_reason=why, state_since=now, **_power(event)
    )


def _power(event: HostEvent) -> dict[str, None]:
    """Activating switches the power on: what was kept of it is over."""
    return {"power": None} if event is HostEvent.ACTIVATE else {}


async def move(
    connection: AsyncConnection,
    host_id: UUID,
    event: HostEvent,
    why: str,
    now: datetime,
    *,
    epoch: int | None = None,
) -> bool:
    """Apply one event to a host; False when its state does not expect it, or its epoch is over."""
    known = () if epoch is None else (epoch,)
    return await changed(connection, _move(host_id, why[:1024], now, *known, event=event)) == 1


async def note_autostart(connection: AsyncConnection, host_id: UUID, was: str, found: str) -> bool:
    """Keep which domains a host starts by itself; False where somebody has kept it before."""
    query = host.update().where(host.c.id == host_id, host.c.autostart == was)
    return await changed(connection, query.values(autostart=found)) == 1


async def put_back(
    connection: AsyncConnection, host_id: UUID, was: HostState, why: str, now: datetime
) -> bool:
    """Give a host the state it had before an activation that never began; False in any other."""
    query = (
        host.update()
        .where(host.c.id == host_id, host.c.state == HostState.RECONCILING)
        .values(state=was.value, state_reason=why[:1024], state_since=now)
    )
    return await changed(connection, query) == 1


def state_after(event: HostEvent) -> sa.Case[str]:
    """The state that the table gives a host after an event, as an expression on its row."""
    return sa.case(*[(host.c.state == s, NEXT[s][event].value) for s in sources(event)])


async def admit(connection: AsyncConnection, host_id: UUID, epoch: int, now: datetime) -> bool:
    """Let a reconciled host into `up` with its next epoch; False unless it stands at `epoch`."""
    query = (
        host.update()
        .where(host.c.id == host_id, host.c.epoch == epoch, host.c.state == HostState.RECONCILING)
        .values(
            state=HostState.UP.value,
            state_reason="reconciled",
            state_since=now,
            power=None,
            epoch=epoch + 1,
            version=host.c.version + 1,
        )
    )
    return await changed(connection, query) == 1


async def set_capacity(
    connection: AsyncConnection, host_id: UUID, memory_mib: int, cpus: int
) -> None:
    """Record what the host itself says it has; idempotent."""
    query = host.update().where(host.c.id == host_id).values(memory_mib=memory_mib, cpus=cpus)
    await changed(connection, query)


def takes_vcpus(which: Any, vcpus: Any) -> sa.ColumnElement[bool]:
    """Whether a host may promise so many vCPUs more, by the limit of its cluster.

    which   the host's table, or an alias of it
    vcpus   a number, a placeholder or a column

    The same rule as `domain.capacity.vcpus_allowed`.
    """
    limit = cluster.alias("limit_of_vcpus")
    most = which.c.cpus * limit.c.vcpu_overcommit + TOLERANCE
    passed = sa.exists().where(
        limit.c.id == which.c.cluster_id,
        limit.c.vcpu_overcommit.is_not(None),
        which.c.cpus > 0,
        which.c.vcpus_reserved + vcpus > most,
    )
    return ~passed


def takes_memory(which: Any, memory_mib: Any) -> sa.ColumnElement[bool]:
    """Whether a host may promise so many MiB more, by its cluster; see `takes_vcpus`.

    The same rule as `domain.capacity.memory_allowed_mib`. Nobody gets more than the host has.
    """
    limit = cluster.alias("limit_of_memory")
    ratio = sa.select(limit.c.memory_overcommit).where(limit.c.id == which.c.cluster_id)
    most = which.c.memory_mib * ratio.scalar_subquery() + TOLERANCE
    return sa.and_(
        which.c.memory_reserved_mib + memory_mib <= most, which.c.memory_mib >= memory_mib
    )


@prebuilt
def _reserve(host_id: UUID, epoch: int, memory_mib: int, vcpus: int, /) -> sa.Update:
    return (
        host.update()
        .where(
            host.c.id == host_id,
            host.c.state == HostState.UP,
            host.c.epoch == epoch,
            takes_memory(host, memory_mib),
            takes_vcpus(host, vcpus),
        )
        .values(
            memory_reserved_mib=host.c.memory_reserved_mib + memory_mib,
            vcpus_reserved=host.c.vcpus_reserved + vcpus,
        )
    )


async def reserve(connection: AsyncConnection, host_id: UUID, epoch: int, wanted: Row) -> bool:
    """Promise memory and vCPUs of an `up` host of that epoch; False when there is no room (I6).

    wanted   the VM, or the run that is to move, with its `memory_mib` and `vcpus`
    """
    query = _reserve(host_id, epoch, wanted["memory_mib"], wanted["vcpus"])
    return await changed(connection, query) == 1


def taking(run: Row) -> Row:
    """What a run adds to its host's row where it counts whether there is room or not."""
    return {
        "memory_reserved_mib": host.c.memory_reserved_mib + run["memory_mib"],
        "vcpus_reserved": host.c.vcpus_reserved + run["vcpus"],
    }


async def take(connection: AsyncConnection, host_id: UUID, run: Row) -> bool:
    """Count a copy that was found on a host, whether there is room or not."""
    query = host.update().where(host.c.id == host_id).values(**taking(run))
    return await changed(connection, query) == 1


@prebuilt
def _release(host_id: UUID, memory_mib: int, vcpus: int, /) -> sa.Update:
    return (
        host.update()
        .where(host.c.id == host_id)
        .values(
            memory_reserved_mib=host.c.memory_reserved_mib - memory_mib,
            vcpus_reserved=host.c.vcpus_reserved - vcpus,
        )
    )


async def release(connection: AsyncConnection, host_id: UUID, run: Row) -> None:
    """Take back what a run was promised. Called once a run, by the statement that ends it."""
    await changed(connection, _release(host_id, run["memory_mib"], run["vcpus"]))
