"""What the storm guard looks at, read in one transaction.

Limits are read anew at each look, not taken from the recovery's order: a person who raises a budget
in the middle of a storm means the recoveries that wait.
"""

from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from activities.recovery import AssessOrder
from domain.disarming import acts_on_known
from domain.fence_budgets import FenceBudget, Scope, Tally, free_at, silent_domain
from domain.storm import FenceFacts, Vote
from engine.records.approving import approval_of
from engine.records.hosts import host_row
from store import fence_budgets, inventory
from store.rows import Row


async def fence_facts_of(
    connection: AsyncConnection, order: AssessOrder, votes: tuple[Vote, ...], now: datetime
) -> FenceFacts:
    """The facts about one host whose failure is judged; NotFound."""
    host = await host_row(connection, order.host.host_id)
    cluster = await inventory.get(connection, "cluster", host["cluster_id"])
    assert cluster is not None
    rows = await fence_budgets.tallies(connection)
    tallies = tuple(Tally(**row) for row in rows)
    mine = [tally for tally in tallies if tally.cluster_id == cluster["id"]]
    return FenceFacts(
        host=host["name"],
        armed=acts_on_known(armed=cluster["armed"], mode=cluster["disarm_mode"]),
        own_host=host["own_host"],
        devices=len(order.readings),
        hosts=sum(tally.serving for tally in mine),
        hosts_silent=sum(tally.silent for tally in mine),
        budgets=await budgets_of(connection, host, cluster, tallies, now),
        votes=votes,
        approval=await approval_of(connection, order.incident_id),
        domain=silent_domain(tallies, host["site"], host["rack"]),
        disarmed=how_disarmed(cluster),
    )


async def budgets_of(
    connection: AsyncConnection,
    host: Row,
    cluster: Row,
    tallies: tuple[Tally, ...],
    now: datetime,
) -> tuple[FenceBudget, ...]:
    """The budgets that a fence of this host would be counted against."""
    window_s = float(cluster["fence_window_s"])
    claims = await fence_budgets.recent_claims(connection, window_s, host["id"])
    return tuple(
        _budget(scope, host, cluster, tallies, claims, now)
        for scope in Scope
        if scope is Scope.CLUSTER or host[scope]
    )


def _budget(
    scope: Scope,
    host: Row,
    cluster: Row,
    tallies: tuple[Tally, ...],
    claims: list[Row],
    now: datetime,
) -> FenceBudget:
    most, percent = (cluster[name] for name in fence_budgets.LIMITS[scope])
    ages_s: dict[UUID, float] = {}  # by host: one that was claimed twice counts once, as its latest
    for claim in claims:
        if _together(scope, host, claim["cluster_id"], claim["site"], claim["rack"]):
            age_s = max(claim["age_ms"] / 1000, 0.0)
            ages_s[claim["host_id"]] = min(age_s, ages_s.get(claim["host_id"], age_s))
    near = [t for t in tallies if _together(scope, host, t.cluster_id, t.site, t.rack)]
    found = FenceBudget(
        scope=scope,
        name=cluster["name"] if scope is Scope.CLUSTER else host[scope],
        spent=len(ages_s),
        hosts=sum(tally.counted for tally in near),
        most=most,
        percent=percent,
        window_s=float(cluster["fence_window_s"]),
    )
    if not found.exhausted or found.limit is None:
        return found
    at = free_at(ages_s.values(), found.limit, found.window_s, now)
    return found.model_copy(update={"frees_at": at})


def _together(scope: Scope, host: Row, cluster_id: UUID, site: str, rack: str) -> bool:
    if scope is Scope.CLUSTER:
        return bool(cluster_id == host["cluster_id"])
    return bool(site == host["site"]) and (scope is Scope.SITE or bool(rack == host["rack"]))


def how_disarmed(cluster: Row) -> str:
    """The mode with who, when and why; empty while the cluster is armed."""
    if cluster["armed"]:
        return ""
    said = [cluster["disarm_mode"] or "hold"]
    if by := cluster["disarmed_by"]:
        said.append(f"by {by}")
    if at := cluster["disarmed_at"]:
        said.append(f"since {at:%Y-%m-%d %H:%M} UTC")
    why = cluster["disarm_reason"]
    return ", ".join(said) + (f" ({why})" if why else "")
