"""Statements on how many hosts were fenced lately: of a cluster, a rack, a site.

A claim leaves the window when some monitor has watched that long since it saw it. No time of day is
asked: a clock that jumps cannot spend a budget twice.

A rack is told by its site and its name, and its hosts count whatever their clusters are. `''`
stands for a host whose rack or site nobody has told: those make no failure domain.
"""

from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.inventory import HostState
from store.prebuilt import among, prebuilt
from store.rows import Row, many
from store.schema import cluster, host
from store.schema_ha import fence_age, fence_claim, monitor

IN_SERVICE = ("up", "connecting", "non_responsive", "fencing")

LIMITS = {
    "cluster": ("fences_max", "fences_percent"),
    "rack": ("rack_fences_max", "rack_fences_percent"),
    "site": ("site_fences_max", "site_fences_percent"),
}
"""The columns of a cluster that limit each scope: hosts in a window, and percent of the hosts."""


def _passed(window_ms: Any) -> sa.ColumnElement[bool]:
    """Whether some monitor has watched longer than the window since it saw a claim."""
    return sa.exists().where(
        fence_age.c.claim_id == fence_claim.c.id,
        monitor.c.name == fence_age.c.monitor,
        monitor.c.watched_ms - fence_age.c.since_ms > window_ms,
    )


def has_room() -> sa.ColumnElement[bool]:
    """Whether no budget of a host's cluster is spent on others: for a statement on `host`.

    It stands in a select from `cluster` that is correlated to the host's row. A percentage is
    rounded down and never below one host, which is written without a division: what a division of
    whole numbers gives differs between databases.
    """
    return sa.and_(*(_room_of(scope) for scope in LIMITS))


def _room_of(scope: str) -> sa.ColumnElement[bool]:
    most, percent = (cluster.c[name] for name in LIMITS[scope])
    other = host.alias(f"other_{scope}")
    near = host.alias(f"near_{scope}")
    spent = (
        sa.select(sa.func.count(sa.distinct(fence_claim.c.host_id)))
        .join(other, other.c.id == fence_claim.c.host_id)
        .where(
            fence_claim.c.host_id != host.c.id,
            _together(scope, other),
            ~_passed(1000 * cluster.c.fence_window_s).correlate(fence_claim, cluster),
        )
        .correlate(host, cluster)
        .scalar_subquery()
    )
    hosts = (
        sa.select(sa.func.count())
        .where(_counted(near), _together(scope, near))
        .correlate(host, cluster)
        .scalar_subquery()
    )
    within = sa.and_(
        sa.or_(most.is_(None), spent < most),
        sa.or_(percent.is_(None), spent == 0, 100 * (spent + 1) <= percent * hosts),
    )
    return within if scope == "cluster" else sa.or_(host.c[scope] == "", within)


def _together(scope: str, other: Any) -> sa.ColumnElement[bool]:
    """Whether another host is in the same domain as the host of the statement."""
    named = {"cluster": ("cluster_id",), "rack": ("site", "rack"), "site": ("site",)}[scope]
    return sa.and_(*(other.c[name] == host.c[name] for name in named))


def _counted(table: Any) -> sa.ColumnElement[bool]:
    """Hosts of which a percentage is taken: those in maintenance could not fail anyway."""
    return sa.and_(
        table.c.removed_at.is_(None), table.c.state != sa.literal(HostState.MAINTENANCE.value)
    )


@prebuilt
def _tallies() -> sa.Select[Any]:
    def total(condition: sa.ColumnElement[bool]) -> sa.ColumnElement[int]:
        return sa.func.coalesce(sa.func.sum(sa.case((condition, 1), else_=0)), 0)

    serving = among(host.c.state, IN_SERVICE)
    place = (host.c.cluster_id, host.c.site, host.c.rack)
    return (
        sa.select(
            *place,
            total(_counted(host)).label("counted"),
            total(serving).label("serving"),
            total(sa.and_(serving, host.c.state != sa.literal("up"))).label("silent"),
        )
        .where(host.c.removed_at.is_(None))
        .group_by(*place)
        .order_by(*place)
    )


async def tallies(connection: AsyncConnection) -> list[Row]:
    """For each cluster, site and rack: hosts `counted`, `serving`, and `silent` among these."""
    return await many(connection, _tallies())


@prebuilt
def _recent_claims(window_ms: int, except_host: UUID, /) -> sa.Select[Any]:
    age = sa.func.coalesce(sa.func.max(monitor.c.watched_ms - fence_age.c.since_ms), 0)
    place = (host.c.cluster_id, host.c.site, host.c.rack)
    return (
        sa.select(fence_claim.c.host_id, *place, age.label("age_ms"))
        .join(host, host.c.id == fence_claim.c.host_id)
        .outerjoin(fence_age, fence_age.c.claim_id == fence_claim.c.id)
        .outerjoin(monitor, monitor.c.name == fence_age.c.monitor)
        .where(fence_claim.c.host_id != except_host, ~_passed(window_ms).correlate(fence_claim))
        .group_by(fence_claim.c.id, fence_claim.c.host_id, *place)
        .order_by(fence_claim.c.id)
    )


async def recent_claims(
    connection: AsyncConnection, window_s: float, except_host: UUID
) -> list[Row]:
    """Claims of other hosts that are still in the window, with place and age (`age_ms`).

    The age is what the monitor has watched that has watched longest since it saw the claim.
    """
    return await many(connection, _recent_claims(int(window_s * 1000), except_host))
