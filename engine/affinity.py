"""Affinity groups as the rules that placements keep."""

from collections.abc import Iterable
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from domain.affinity import Affinity, AffinityRule
from store import affinity, inventory, locks, runs
from store.rows import Row


async def affinity_of(connection: AsyncConnection, cluster_id: UUID) -> Affinity:
    """The rules of a cluster, where the VMs that they name run now or have a place, and who is to.

    A VM without a place is to get one when it is wanted, and somebody starts it: the engine, which
    does so for protected ones, or whoever holds its lock.
    """
    rules = rules_of(await affinity.groups(connection, cluster_id=cluster_id))
    named = sorted({vm_id for rule in rules for vm_id in rule.vm_ids})
    active = await runs.active_runs_of(connection, named)
    down = [vm_id for vm_id in named if vm_id not in active]
    return Affinity(
        rules=rules,
        running={vm_id: run["host_id"] for vm_id, run in active.items()},
        coming=await _coming(connection, down),
    )


async def _coming(connection: AsyncConnection, down: list[UUID]) -> frozenset[UUID]:
    if not down:
        return frozenset()
    rows = await inventory.get_many(connection, "vm", down)
    wanted = {key: row for key, row in rows.items() if row["wanted"]}
    held = await locks.held(connection, [("vm", key) for key in sorted(wanted)])
    return frozenset(key for key, row in wanted.items() if row["protected"] or ("vm", key) in held)


def rules_of(groups: Iterable[Row]) -> tuple[AffinityRule, ...]:
    """Affinity groups as rules; one without VMs is none."""
    fields = ("name", "together", "hard", "vm_ids", "host_ids")
    return tuple(
        AffinityRule(**{field: group[field] for field in fields})
        for group in groups
        if group["vm_ids"]
    )
