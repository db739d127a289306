"""Statements on what monitors saw: one row a host and monitor, and samples of the last hour.

How long a monitor has watched is told by its own monotonic clock, and counted on when it starts
afresh, as its rounds are: both only grow, whatever the clocks on the walls do.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from store.bulk import insert_many
from store.prebuilt import prebuilt
from store.rows import Row, changed, inserted, many, one
from store.schema import cluster, host
from store.schema_ha import fence_age, fence_claim, host_sample, monitor, observation


class Watched(NamedTuple):
    """How far a monitor has come: the number of its last round, and how long it has watched."""

    sequence: int = 0
    watched_ms: int = 0


async def register_monitor(connection: AsyncConnection, name: str, now: datetime) -> Watched:
    """Start a monitor's view afresh: it is cold until it has polled everything a few times.

    Its counts go on where they stood; that is what it is given.
    """
    await changed(connection, observation.delete().where(observation.c.monitor == name))
    row = {"rounds": 0, "warm": False, "started_at": now, "seen_at": now}
    known = await one(connection, sa.select(monitor).where(monitor.c.name == name))
    if known is None:
        await inserted(connection, monitor, {"name": name, "sequence": 0} | row)
        return Watched()
    await changed(connection, monitor.update().where(monitor.c.name == name).values(**row))
    return Watched(known["sequence"], known["watched_ms"])


@prebuilt
def _seen(name: str, sequence: int, warm: bool, watched_ms: int, now: datetime, /) -> sa.Update:
    return (
        monitor.update()
        .where(monitor.c.name == name)
        .values(
            rounds=monitor.c.rounds + 1,
            sequence=sequence,
            warm=warm,
            watched_ms=watched_ms,
            seen_at=now,
        )
    )


@prebuilt
def _forget_seen(name: str, host_ids: list[UUID], /) -> sa.Delete:
    return observation.delete().where(
        observation.c.monitor == name, observation.c.host_id.in_(host_ids)
    )


async def record_round(
    connection: AsyncConnection,
    name: str,
    sequence: int,
    *,
    warm: bool,
    observations: list[Row],
    samples: list[Row],
    watched_ms: Callable[[], int],
    now: datetime,
) -> None:
    """Write what one monitor saw in one round, in one go; a row's sequence shows its freshness.

    A monitor whose own row is gone gets it anew: an observation without one could not be judged.
    """
    seen = _seen(name, sequence, warm, await _age_fences(connection, name, watched_ms), now)
    if await changed(connection, seen) == 0:
        await register_monitor(connection, name, now)
        await changed(connection, seen)
    await changed(connection, _forget_seen(name, [row["host_id"] for row in observations]))
    # One statement for all rows: a round of 100 hosts would else be 200 trips to the database.
    common = {"monitor": name, "sequence": sequence, "at": now}
    await insert_many(connection, observation, [{**common, **row} for row in observations])
    await insert_many(connection, host_sample, [{"at": now, **row} for row in samples])


@prebuilt
def _fresh_fences(name: str, /) -> sa.Select[Any]:
    mine = sa.exists().where(fence_age.c.claim_id == fence_claim.c.id, fence_age.c.monitor == name)
    return sa.select(fence_claim.c.id).where(~mine)


async def _age_fences(connection: AsyncConnection, name: str, watched_ms: Callable[[], int]) -> int:
    """Begin to count, on a monitor's own clock, the age of fences that it has not seen before.

    The clock is read once they are seen: so each is at least as old as it is counted.
    """
    fresh = await many(connection, _fresh_fences(name))
    since_ms = watched_ms()
    rows = [{"claim_id": row["id"], "monitor": name, "since_ms": since_ms} for row in fresh]
    await insert_many(connection, fence_age, rows)
    return since_ms


@prebuilt
def _watched_hosts(profile: str, /) -> sa.Select[Any]:
    return (
        sa.select(
            *(host.c.id, host.c.name, host.c.uri, host.c.epoch, host.c.state),
            host.c.memory_reserved_mib.label("reserved_mib"),
        )
        .join(cluster, cluster.c.id == host.c.cluster_id)
        .where(
            cluster.c.profile == profile,
            host.c.epoch > 0,
            host.c.removed_at.is_(None),
        )
        .order_by(host.c.name)
    )


async def watched_hosts(connection: AsyncConnection, profile: str) -> list[Row]:
    """Hosts of clusters with a profile that were ever admitted, by name: what a round needs.

    A removed one is none of them.
    """
    return await many(connection, _watched_hosts(profile))


LATEST = sa.select(observation).order_by(observation.c.host_id, observation.c.monitor)


@prebuilt
def _latest_of(host_id: UUID, /) -> sa.Select[Any]:
    return LATEST.where(observation.c.host_id == host_id)


async def latest(connection: AsyncConnection, host_id: UUID | None = None) -> list[Row]:
    """The latest observation of each monitor, of one host or of all."""
    return await many(connection, LATEST if host_id is None else _latest_of(host_id))


@prebuilt
def _monitors() -> sa.Select[Any]:
    return sa.select(monitor).order_by(monitor.c.name)


async def monitors(connection: AsyncConnection) -> list[Row]:
    """Every monitor that ever reported, by name."""
    return await many(connection, _monitors())


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
