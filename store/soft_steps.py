"""Statements on SSH access to hosts, and on restarts of their libvirtd over it."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.inventory import HostState, RunState
from domain.soft_step import TRIES_MAX
from store.ids import new_id
from store.rows import Row, changed, in_chunks, inserted, many, one
from store.schema import cluster, host, operation
from store.schema_ha import monitor, observation, soft_step, ssh_access, vm_run

UNDER_WAY = "its libvirtd hangs and is being restarted over SSH"
RESTARTABLE = (HostState.UP.value, HostState.CONNECTING.value)


async def access_of(connection: AsyncConnection, host_id: UUID) -> Row | None:
    """How a host is reached over SSH, its private key sealed; None where it is not."""
    query = sa.select(ssh_access).where(ssh_access.c.host_id == host_id)
    return await one(connection, query)


async def accesses(connection: AsyncConnection, host_ids: list[UUID]) -> dict[UUID, Row]:
    """The same of many hosts, without their keys; one without access is left out."""
    shown = (ssh_access.c.host_id, ssh_access.c.user, ssh_access.c.port, ssh_access.c.host_key)
    found: dict[UUID, Row] = {}
    for some in in_chunks(host_ids):
        query = sa.select(*shown).where(ssh_access.c.host_id.in_(some))
        found |= {row["host_id"]: row for row in await many(connection, query)}
    return found


async def give_access(connection: AsyncConnection, values: Row) -> None:
    """Write a host's access in place of any that it had."""
    await take_access(connection, values["host_id"])
    await inserted(connection, ssh_access, values)


async def take_access(connection: AsyncConnection, host_id: UUID) -> None:
    """Forget a host's access, and with it the key; idempotent."""
    await changed(connection, ssh_access.delete().where(ssh_access.c.host_id == host_id))


async def hearing(connection: AsyncConnection, host_id: UUID) -> list[str]:
    """Names of live monitors that libvirt on a host has answered in their last round."""
    query = sa.select(observation.c.monitor).where(observation.c.host_id == host_id, _is_heard())
    query = query.join(monitor, monitor.c.name == observation.c.monitor)
    return [row["monitor"] for row in await many(connection, query.order_by(observation.c.monitor))]


def _is_heard() -> sa.ColumnElement[bool]:
    return sa.and_(observation.c.verdict == "up", monitor.c.gone_at.is_(None))


async def since(connection: AsyncConnection, host_id: UUID, at: datetime) -> list[Row]:
    """The soft steps on a host that were claimed after a time, newest first."""
    query = sa.select(soft_step).where(soft_step.c.host_id == host_id, soft_step.c.claimed_at > at)
    return await many(connection, query.order_by(soft_step.c.claimed_at.desc(), soft_step.c.id))


async def of_operation(connection: AsyncConnection, operation_id: UUID, attempt: int) -> Row | None:
    """The soft step of one try of an operation, or None."""
    query = sa.select(soft_step).where(
        soft_step.c.operation_id == operation_id, soft_step.c.attempt == attempt
    )
    return await one(connection, query)


async def claim(
    connection: AsyncConnection, step: Row, *, window_began: datetime | None, now: datetime
) -> bool:
    """The last word before a host's libvirtd is restarted; False, and nothing written, if not.

    One statement holds every condition: the host stands at this epoch in service, may be reached
    over SSH, and no VM is migrating from or to it. For a step of the engine's own (`window_began`
    is there) it is `connecting`, its cluster is armed with the soft step on, no live monitor hears
    its libvirt, and fewer than `TRIES_MAX` such steps were claimed since then. Repeatable: the same
    try of an operation counts once. `step`: host_id, epoch, operation_id, attempt, detail.
    """
    if await of_operation(connection, step["operation_id"], step["attempt"]) is not None:
        return True
    conditions = [*_safe(step), *(() if window_began is None else _by_itself(window_began))]
    hangs = host.c.state == HostState.CONNECTING
    reason = sa.case((hangs, UNDER_WAY), else_=host.c.state_reason)
    query = host.update().where(*conditions).values(state_reason=reason)
    if await changed(connection, query) != 1:
        return False
    row = step | {"id": new_id(), "automatic": window_began is not None, "claimed_at": now}
    await inserted(connection, soft_step, row)
    return True


def _safe(step: Row) -> Sequence[sa.ColumnElement[bool]]:
    moving = sa.exists().where(
        vm_run.c.state == RunState.MIGRATING,
        sa.or_(vm_run.c.host_id == host.c.id, vm_run.c.target_host_id == host.c.id),
    )
    return (
        host.c.id == step["host_id"],
        host.c.epoch == step["epoch"],
        host.c.state.in_(RESTARTABLE),
        sa.exists().where(ssh_access.c.host_id == host.c.id),
        sa.not_(moving),
    )


def _by_itself(window_began: datetime) -> Sequence[sa.ColumnElement[bool]]:
    wanted = sa.exists().where(
        cluster.c.id == host.c.cluster_id, cluster.c.armed.is_(True), cluster.c.soft_step.is_(True)
    )
    heard = sa.exists().where(
        observation.c.host_id == host.c.id,
        observation.c.monitor == monitor.c.name,
        _is_heard(),
    )
    tries = sa.select(sa.func.count()).where(
        soft_step.c.host_id == host.c.id,
        soft_step.c.automatic.is_(True),
        soft_step.c.claimed_at > window_began,
    )
    return (
        host.c.state == HostState.CONNECTING,
        wanted.correlate(host),
        sa.not_(heard.correlate(host)),
        tries.correlate(host).scalar_subquery() < TRIES_MAX,
    )


def restarting(host_id: sa.ColumnElement[UUID]) -> sa.ColumnElement[bool]:
    """Whether the libvirtd of a host is being restarted: claimed, not ended, its operation open."""
    return sa.exists().where(soft_step.c.host_id == host_id, *_under_way())


def _under_way() -> tuple[sa.ColumnElement[bool], ...]:
    open_ = sa.exists().where(
        operation.c.id == soft_step.c.operation_id, operation.c.finished_at.is_(None)
    )
    return soft_step.c.outcome.is_(None), open_.correlate(soft_step)


async def hosts_restarting(connection: AsyncConnection) -> set[UUID]:
    """Hosts whose libvirtd is being restarted."""
    query = sa.select(soft_step.c.host_id).where(*_under_way())
    return {row["host_id"] for row in await many(connection, query)}


async def still(connection: AsyncConnection, operation_id: UUID, attempt: int) -> bool:
    """Whether a claimed step may still be carried out: it has not ended, and no VM is migrating.

    No VM begins to migrate from or to its host meanwhile (`store.migrating.begin`).
    """
    moving = sa.exists().where(
        vm_run.c.state == RunState.MIGRATING,
        sa.or_(
            vm_run.c.host_id == soft_step.c.host_id, vm_run.c.target_host_id == soft_step.c.host_id
        ),
    )
    query = sa.select(soft_step.c.id).where(
        soft_step.c.operation_id == operation_id,
        soft_step.c.attempt == attempt,
        *_under_way(),
        sa.not_(moving),
    )
    return await one(connection, query) is not None


async def end(
    connection: AsyncConnection,
    operation_id: UUID,
    attempt: int,
    outcome: str,
    detail: str,
    now: datetime,
) -> Row | None:
    """Write how a soft step ended; None when it has an end already, or was never claimed."""
    query = soft_step.update().where(
        soft_step.c.operation_id == operation_id,
        soft_step.c.attempt == attempt,
        soft_step.c.outcome.is_(None),
    )
    if await changed(connection, query.values(outcome=outcome, detail=detail[:1024], ended_at=now)):
        return await of_operation(connection, operation_id, attempt)
    return None


async def tell(connection: AsyncConnection, host_id: UUID, epoch: int, why: str) -> bool:
    """Say on a host that hangs what becomes of it; False when it does not, or says so already."""
    query = host.update().where(
        host.c.id == host_id,
        host.c.epoch == epoch,
        host.c.state == HostState.CONNECTING,
        host.c.state_reason != why[:1024],
    )
    return await changed(connection, query.values(state_reason=why[:1024])) == 1
