"""Statements on what monitors saw: one row a host and monitor, and samples of the last hour.

How long a monitor has watched is told by its own monotonic clock, and counted on when it starts
afresh, as its rounds are: both only grow, whatever the clocks on the walls do.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.errors import Conflict
from domain.inventory import HostState
from store.bulk import insert_many
from store.prebuilt import prebuilt
from store.rows import Row, changed, in_chunks, inserted, many, one
from store.schema import cluster, host
from store.schema_ha import fence_age, fence_claim, host_sample, incident, monitor, observation

HEARD = ("up", "refused")
"""Verdicts of a monitor that hears a host, or at least its kernel."""


class Watched(NamedTuple):
    """How far a monitor has come: the number of its last round, and how long it has watched."""

    sequence: int = 0
    watched_ms: int = 0


async def register_monitor(
    connection: AsyncConnection,
    name: str,
    now: datetime,
    *,
    machine: str = "",
    owner: str = "",
    was: str | None = None,
) -> Watched:
    """Start a monitor's view afresh: it is cold until it has polled everything a few times.

    Its counts go on where they stood; that is what it is given. `owner` is the one process that
    has the name from here on; Conflict (`MONITOR_NAME_TAKEN`) when another than `was` has it now.
    """
    known = await one(connection, _monitor(name))
    if known is not None and was is not None and known["owner"] != was:
        raise name_taken(name, known["machine"])
    await changed(connection, observation.delete().where(observation.c.monitor == name))
    row = {"rounds": 0, "warm": False, "started_at": now, "seen_at": now}
    row |= {"machine": machine, "owner": owner, "gone_at": None, "blind_at": None}
    if known is None:
        await inserted(connection, monitor, {"name": name, "sequence": 0} | row)
        return Watched()
    await changed(connection, monitor.update().where(monitor.c.name == name).values(**row))
    return Watched(known["sequence"], known["watched_ms"])


def name_taken(name: str, machine: str) -> Conflict:
    """Two live processes of one name would overwrite each other's observations."""
    return Conflict(
        "MONITOR_NAME_TAKEN",
        f"another live process, on {machine or 'a machine that did not say'}, is the monitor "
        f"{name}",
        next_step="end one of the two, or give this one a name of its own in HOLDFAST_MONITOR_NAME",
        monitor=name,
        machine=machine,
    )


@prebuilt
def _monitor(name: str, /) -> sa.Select[Any]:
    return sa.select(monitor).where(monitor.c.name == name)


async def find_monitor(connection: AsyncConnection, name: str) -> Row | None:
    """One monitor's row, or None."""
    return await one(connection, _monitor(name))


class Me(NamedTuple):
    """Who writes: the one process that has the name, where it runs, since when it hears nothing."""

    owner: str = ""
    machine: str = ""
    blind_at: datetime | None = None


NOBODY = Me()


@prebuilt
def _seen(
    name: str,
    owner: str,
    sequence: int,
    warm: bool,
    blind_at: datetime | None,
    watched_ms: int,
    now: datetime,
    /,
) -> sa.Update:
    return (
        monitor.update()
        .where(monitor.c.name == name, monitor.c.owner == owner)
        .values(
            rounds=monitor.c.rounds + 1,
            sequence=sequence,
            warm=warm,
            blind_at=blind_at,
            gone_at=None,
            watched_ms=watched_ms,
            seen_at=now,
        )
    )


async def hold_gone(connection: AsyncConnection, name: str, sequence: int, now: datetime) -> bool:
    """Hold a monitor to be gone, unless it has given a sign of life after this number.

    Its next sign of life takes that back. False when it was held so already, too.
    """
    query = monitor.update().where(
        monitor.c.name == name, monitor.c.sequence == sequence, monitor.c.gone_at.is_(None)
    )
    return await changed(connection, query.values(gone_at=now)) == 1


async def leave(connection: AsyncConnection, name: str, owner: str, now: datetime) -> bool:
    """A monitor ends in order: others take its hosts at once. False when it is another's name."""
    query = monitor.update().where(monitor.c.name == name, monitor.c.owner == owner)
    return await changed(connection, query.values(gone_at=now)) == 1


@prebuilt
def _forget_seen(name: str, host_ids: list[UUID], /) -> sa.Delete:
    return observation.delete().where(
        observation.c.monitor == name, observation.c.host_id.in_(host_ids)
    )


@prebuilt
def _forget_samples(at: datetime, host_ids: list[UUID], /) -> sa.Delete:
    return host_sample.delete().where(host_sample.c.at >= at, host_sample.c.host_id.in_(host_ids))


async def record_round(  # noqa: PLR0913
    connection: AsyncConnection,
    name: str,
    sequence: int,
    *,
    warm: bool,
    observations: list[Row],
    samples: list[Row],
    watched_ms: Callable[[], int],
    now: datetime,
    me: Me = NOBODY,
) -> None:
    """Write what one monitor saw in one round, in one go; a row's sequence shows its freshness.

    A monitor whose own row is gone gets it anew: an observation without one could not be judged.
    Conflict (`MONITOR_NAME_TAKEN`) when another process has its name now.
    """
    aged_ms = await _age_fences(connection, name, watched_ms)
    seen = _seen(name, me.owner, sequence, warm, me.blind_at, aged_ms, now)
    if await changed(connection, seen) == 0:
        await register_monitor(
            connection, name, now, machine=me.machine, owner=me.owner, was=me.owner
        )
        await changed(connection, seen)
    await changed(connection, _forget_seen(name, [row["host_id"] for row in observations]))
    # One statement for all rows: a round of 100 hosts would else be 200 trips to the database.
    common = {"monitor": name, "sequence": sequence, "at": now, "warm": warm}
    await insert_many(connection, observation, [{**common, **row} for row in observations])
    if samples:
        # Another monitor of the host may have written in the same microsecond; and what a clock
        # that was ahead has written must not stay the newest word on who runs there.
        await changed(connection, _forget_samples(now, [row["host_id"] for row in samples]))
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
            *(host.c.memory_reserved_mib.label("reserved_mib"), host.c.autostart),
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


async def release(connection: AsyncConnection, name: str, host_id: UUID, to: Sequence[str]) -> bool:
    """Stop watching a host that others have taken over; False while that has to wait.

    The statement holds the conditions: each of `to` lives and knows the host well enough to judge
    it, and no failure of it is in question. So nothing that was heard of it is forgotten while a
    fence or a certificate may rest on that.
    """
    theirs = observation.alias()
    taken = (
        sa.select(sa.func.count())
        .select_from(theirs.join(monitor, monitor.c.name == theirs.c.monitor))
        .where(
            theirs.c.host_id == host_id,
            theirs.c.monitor.in_(to),
            theirs.c.warm.is_(True),
            monitor.c.gone_at.is_(None),
        )
    )
    quiet = sa.exists().where(host.c.id == host_id, host.c.state != HostState.CONNECTING)
    judged = sa.exists().where(incident.c.host_id == host_id, incident.c.open == 1)
    # MariaDB reads the table that a DELETE is about only through a table of its own.
    enough = sa.select(taken.subquery().c[0]).scalar_subquery() >= len(to)
    query = observation.delete().where(
        *(observation.c.monitor == name, observation.c.host_id == host_id),
        *(enough, quiet, ~judged),
    )
    return await changed(connection, query) == 1


async def seen_by_others(
    connection: AsyncConnection, name: str, host_ids: Sequence[UUID]
) -> list[Row]:
    """What other monitors last wrote of these hosts."""
    rows: list[Row] = []
    for some in in_chunks(host_ids):
        query = LATEST.where(observation.c.monitor != name, observation.c.host_id.in_(some))
        rows += await many(connection, query)
    return rows


async def note_missed(connection: AsyncConnection, name: str, host_id: UUID) -> None:
    """A host just missed a poll of this monitor: its row says so before the round is written."""
    await changed(connection, _missed_by(name, host_id, "connecting"))


@prebuilt
def _missed_by(name: str, host_id: UUID, verdict: str, /) -> sa.Update:
    return (
        observation.update()
        .where(
            observation.c.monitor == name,
            observation.c.host_id == host_id,
            observation.c.verdict.in_(HEARD),
        )
        .values(verdict=verdict)
    )


async def missed_by_others(connection: AsyncConnection, name: str, host_id: UUID) -> bool:
    """Whether another live monitor, one that hears anything at all, does not hear this host."""
    return await one(connection, _missed_by_others(name, host_id)) is not None


@prebuilt
def _missed_by_others(name: str, host_id: UUID, /) -> sa.Select[Any]:
    return (
        sa.select(observation.c.monitor)
        .join(monitor, monitor.c.name == observation.c.monitor)
        .where(
            observation.c.host_id == host_id,
            observation.c.monitor != name,
            observation.c.verdict.not_in(HEARD),
            *(monitor.c.gone_at.is_(None), monitor.c.blind_at.is_(None)),
        )
        .limit(1)
    )


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
    """Forget samples older than a time; how many went.

    Also what monitors saw that are gone since then, of hosts whose failure nobody judges.
    """
    gone = sa.select(monitor.c.name).where(monitor.c.gone_at < before)
    judged = sa.exists().where(incident.c.host_id == observation.c.host_id, incident.c.open == 1)
    left = observation.delete().where(observation.c.monitor.in_(gone), ~judged)
    await changed(connection, left)
    return await changed(connection, host_sample.delete().where(host_sample.c.at < before))
