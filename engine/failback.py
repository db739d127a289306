"""What the decision to move a VM home is made from, and how it comes out now.

The duty that orders the move and `vm show` read the same facts, so that a VM which stays away says
the very reason for which it was not moved.
"""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from domain.affinity import Affinity
from domain.failback import (
    Failback,
    FailbackFacts,
    Standing,
    decide,
    followers,
    soft_broken,
)
from domain.inventory import HostState
from domain.placement import Guest, NoRoom, Room, place_one
from engine.affinity import affinity_of
from engine.records.runs import rooms_of
from engine.refs import guest_of, policy_of
from store import failbacks, incidents, inventory, locks, migrating, runs
from store.rows import Row


async def standing(connection: AsyncConnection, vm: Row) -> Standing:
    """Whether a VM is moved home now, or why not."""
    return decide(await facts_of(connection, vm))


async def may_go(connection: AsyncConnection, last: frozenset[UUID] = frozenset()) -> list[UUID]:
    """VMs that may be moved home now, one for each home, the most important first, `last` last.

    One reading of each cluster judges all of them, so that many whose rules keep them away neither
    cost much nor take the place of those behind them. What is ordered is judged once more.
    """
    leaving, coming = await migrating.under_way(connection)
    clusters: dict[UUID, _Cluster] = {}
    found: dict[UUID, UUID] = {}  # by home
    due = await failbacks.due(connection)
    for vm in sorted(due, key=lambda row: row["id"] in last):
        cluster_id, host_id, home_id = vm["cluster_id"], vm["host_id"], vm["home_id"]
        if home_id in found:
            continue
        if cluster_id not in clusters:
            clusters[cluster_id] = await _cluster(connection, cluster_id)
        cluster = clusters[cluster_id]
        if max(leaving[host_id], coming[home_id]) >= cluster.per_host or cluster.keeps_away(vm):
            continue
        found[home_id] = vm["id"]
        leaving[host_id] += 1
    return list(found.values())


@dataclass(frozen=True)
class _Cluster:
    """What decides where the VMs of a cluster may run."""

    rooms: dict[UUID, Room]
    rules: Affinity
    bound: tuple[Guest, ...]  # for their homes, by themselves
    per_host: int

    def keeps_away(self, vm: Row) -> bool:
        """Whether room or rules keep a VM from its home."""
        return self.no_room(vm) is not None or bool(self.broken(vm, vm["host_id"]))

    def no_room(self, vm: Row) -> str | None:
        """Why its home has no place for a VM, or None; `vm` says what its run has taken."""
        home = self.rooms.get(vm["home_id"])
        choice = place_one(_moving(vm), (home,) if home else (), self.rules)
        return choice.detail if isinstance(choice, NoRoom) else None

    def broken(self, vm: Row, host_id: UUID) -> tuple[str, ...]:
        """Soft rules that are kept on its host, and would be broken at home."""
        home, following = self.rooms.get(vm["home_id"]), frozenset[UUID]()
        if home is not None:
            following = followers(self.rules, vm["id"], self.bound, home)
        return soft_broken(self.rules, vm["id"], host_id, vm["home_id"], following)


async def _cluster(
    connection: AsyncConnection, cluster_id: UUID, *, but_for: UUID | None = None
) -> _Cluster:
    cluster = await inventory.get(connection, "cluster", cluster_id)
    assert cluster is not None
    rooms = await rooms_of(connection, cluster_id, but_for=but_for)
    return _Cluster(
        rooms={room.host_id: room for room in rooms},
        rules=await affinity_of(connection, cluster_id),
        bound=tuple(_moving(row) for row in await failbacks.homebound(connection, cluster_id)),
        per_host=policy_of(cluster).migrations_per_host,
    )


def _moving(row: Row) -> Guest:
    """A VM with what its run has taken, which moves with it, whatever was edited since."""
    return guest_of(row | {"memory_mib": row["run_memory_mib"], "vcpus": row["run_vcpus"]})


async def facts_of(connection: AsyncConnection, vm: Row) -> FailbackFacts:
    """One reading; of a VM that does not go home by itself only what says so."""
    cluster = await inventory.get(connection, "cluster", vm["cluster_id"])
    assert cluster is not None
    facts = FailbackFacts(
        vm=vm["name"],
        mode=Failback(vm["failback"]),
        rests=vm["failback_rests"],
        run_state=None,
        cluster=cluster["name"],
        armed=cluster["armed"],
        after_s=cluster["failback_after_s"],
        per_host=policy_of(cluster).migrations_per_host,
    )
    home = await _host(connection, vm["home_id"])
    if facts.mode is Failback.OFF or home is None:
        return facts
    run = await runs.active_run(connection, vm["id"])
    host = await _host(connection, run["host_id"] if run else None)
    more: dict[str, Any] = {
        "home": home["name"],
        "home_state": home["state"],
        "incidents": tuple(await incidents.open_in(connection, vm["cluster_id"])),
        "home_busy": await failbacks.under_way_on(connection, home["id"]),
        "vm_busy": await _busy(connection, vm["id"]),
        "going": await failbacks.going_to(connection, home["id"]),
    }
    if home["state"] == HostState.UP:
        more["up_s"] = await failbacks.age_s(connection, home["id"], home["state_since"])
    if run is not None and host is not None:
        leaving, coming = await migrating.under_way(connection)
        more |= {"run_state": run["state"], "host": host["name"], "host_state": host["state"]}
        more |= {"leaving": leaving[host["id"]], "coming": coming[home["id"]]}
        around = await _cluster(connection, vm["cluster_id"], but_for=vm["id"])
        has = {"run_memory_mib": run["memory_mib"], "run_vcpus": run["vcpus"]}
        more |= {"no_room": around.no_room(vm | has), "soft": around.broken(vm, host["id"])}
    more |= await _tries(connection, vm["id"])
    return facts.model_copy(update=more)


async def _tries(connection: AsyncConnection, vm_id: UUID) -> dict[str, Any]:
    row = await failbacks.of_vm(connection, vm_id)
    if row is None:
        return {}
    if row["open"]:
        return {"under_way": row["operation_id"], "failures": row["failures"]}
    return {
        "failures": row["failures"],
        "failed": f"{row['code']}, {row['why']}",
        "wait_s": row["wait_s"],
        "waited_s": await failbacks.age_s(connection, row["id"], row["claimed_at"]),
    }


async def _busy(connection: AsyncConnection, vm_id: UUID) -> str | None:
    holder = await locks.holder(connection, "vm", vm_id)
    return holder.kind if holder else await failbacks.under_way_on(connection, vm_id)


async def _host(connection: AsyncConnection, host_id: UUID | None) -> Row | None:
    return None if host_id is None else await inventory.get(connection, "host", host_id)
