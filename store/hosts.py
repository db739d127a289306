"""Statements that move a host: its state, its epoch and its memory.

Every move is a compare-and-set on the states that the table in `domain.hosts` lets expect the
event, so two processes cannot both move a host, and a forbidden move touches no row.
"""

from datetime import datetime
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.hosts import NEXT, HostEvent, sources
from domain.inventory import HostState
from store.prebuilt import among, prebuilt
from store.rows import changed
from store.schema import host


@prebuilt
def _move(host_id: UUID, why: str, now: datetime, /, *, event: HostEvent) -> sa.Update:
    return (
        host.update()
        .where(host.c.id == host_id, among(host.c.state, [s.value for s in sources(event)]))
        .values(state=state_after(event), state_reason=why, state_since=now)
    )


async def move(
    connection: AsyncConnection, host_id: UUID, event: HostEvent, why: str, now: datetime
) -> bool:
    """Apply one event to a host; False when its state does not expect it."""
    return await changed(connection, _move(host_id, why[:1024], now, event=event)) == 1


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


@prebuilt
def _reserve(host_id: UUID, epoch: int, memory_mib: int, /) -> sa.Update:
    return (
        host.update()
        .where(
            host.c.id == host_id,
            host.c.state == HostState.UP,
            host.c.epoch == epoch,
            host.c.memory_reserved_mib + memory_mib <= host.c.memory_mib,
        )
        .values(memory_reserved_mib=host.c.memory_reserved_mib + memory_mib)
    )


async def reserve(connection: AsyncConnection, host_id: UUID, epoch: int, memory_mib: int) -> bool:
    """Promise memory of an `up` host of that epoch to a VM; False when there is no room (I6)."""
    return await changed(connection, _reserve(host_id, epoch, memory_mib)) == 1


@prebuilt
def _release(host_id: UUID, memory_mib: int, /) -> sa.Update:
    left = host.c.memory_reserved_mib - memory_mib
    return host.update().where(host.c.id == host_id).values(memory_reserved_mib=left)


async def release(connection: AsyncConnection, host_id: UUID, memory_mib: int) -> None:
    """Take a promise back. Called once a run, by the statement that ends it."""
    await changed(connection, _release(host_id, memory_mib))
