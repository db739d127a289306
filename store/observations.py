"""Statements on what monitors saw: one row a host and monitor, and samples of the last hour."""

from datetime import datetime
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from store.rows import Row, changed, many, one
from store.schema import cluster, host
from store.schema_ha import host_sample, monitor, observation


async def register_monitor(connection: AsyncConnection, name: str, now: datetime) -> None:
    """Start a monitor's count afresh: it is cold until it has polled everything a few times."""
    await changed(connection, monitor.delete().where(monitor.c.name == name))
    await changed(connection, observation.delete().where(observation.c.monitor == name))
    row = {"name": name, "rounds": 0, "warm": False, "sequence": 0}
    await changed(connection, monitor.insert().values(**row, started_at=now, seen_at=now))


async def record_round(
    connection: AsyncConnection,
    name: str,
    sequence: int,
    *,
    warm: bool,
    observations: list[Row],
    samples: list[Row],
    now: datetime,
) -> None:
    """Write what one monitor saw in one round, in one go; a row's sequence shows its freshness.

    A monitor whose own row is gone gets it anew: an observation without one could not be judged.
    """
    seen = monitor.update().where(monitor.c.name == name)
    values = {"rounds": monitor.c.rounds + 1, "sequence": sequence, "warm": warm, "seen_at": now}
    if await changed(connection, seen.values(**values)) == 0:
        await register_monitor(connection, name, now)
        await changed(connection, seen.values(**values))
    host_ids = [row["host_id"] for row in observations]
    old = observation.delete().where(
        observation.c.monitor == name, observation.c.host_id.in_(host_ids)
    )
    await changed(connection, old)
    # One statement for all rows: a round of 100 hosts would else be 200 trips to the database.
    common = {"monitor": name, "sequence": sequence, "at": now}
    if observations:
        rows = [{**common, **row} for row in observations]
        await connection.execute(observation.insert(), rows)
    if samples:
        await connection.execute(host_sample.insert(), [{"at": now, **row} for row in samples])


async def watched_hosts(connection: AsyncConnection, profile: str) -> list[Row]:
    """Hosts of clusters with a profile that were ever admitted, by name: what a round needs.

    A removed one is none of them.
    """
    query = (
        sa.select(host.c.id, host.c.name, host.c.uri, host.c.epoch, host.c.state)
        .join(cluster, cluster.c.id == host.c.cluster_id)
        .where(
            cluster.c.profile == profile,
            host.c.epoch > 0,
            host.c.removed_at.is_(None),
        )
        .order_by(host.c.name)
    )
    return await many(connection, query)


async def latest(connection: AsyncConnection, host_id: UUID | None = None) -> list[Row]:
    """The latest observation of each monitor, of one host or of all."""
    query = sa.select(observation).order_by(observation.c.host_id, observation.c.monitor)
    if host_id is not None:
        query = query.where(observation.c.host_id == host_id)
    return await many(connection, query)


async def monitors(connection: AsyncConnection) -> list[Row]:
    """Every monitor that ever reported, by name."""
    return await many(connection, sa.select(monitor).order_by(monitor.c.name))


async def samples(
    connection: AsyncConnection, host_id: UUID, since: datetime, limit: int
) -> list[Row]:
    """A host's samples since a time, newest first."""
    query = (
        sa.select(host_sample)
        .where(host_sample.c.host_id == host_id, host_sample.c.at >= since)
        .order_by(host_sample.c.at.desc())
        .limit(limit)
    )
    return await many(connection, query)


async def newest_sample(connection: AsyncConnection, host_id: UUID) -> Row | None:
    """The newest of a host's samples, or None; those older than an hour are gone."""
    query = sa.select(host_sample).where(host_sample.c.host_id == host_id)
    return await one(connection, query.order_by(host_sample.c.at.desc()).limit(1))


async def prune_samples(connection: AsyncConnection, before: datetime) -> int:
    """Forget samples older than a time; how many went."""
    return await changed(connection, host_sample.delete().where(host_sample.c.at < before))
