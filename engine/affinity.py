"""Affinity groups as the rules that placements keep."""

from collections.abc import Iterable
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from domain.affinity import Affinity, AffinityRule
from store import affinity, runs
from store.rows import Row


async def affinity_of(connection: AsyncConnection, cluster_id: UUID) -> Affinity:
    """The rules of a cluster, and where the VMs that they name run now or have a place."""
    rules = rules_of(await affinity.groups(connection, cluster_id=cluster_id))
    named = sorted({vm_id for rule in rules for vm_id in rule.vm_ids})
    active = await runs.active_runs_of(connection, named)
    return Affinity(rules=rules, running={vm_id: run["host_id"] for vm_id, run in active.items()})


def rules_of(groups: Iterable[Row]) -> tuple[AffinityRule, ...]:
    """Affinity groups as rules; one without VMs is none."""
    fields = ("name", "together", "hard", "vm_ids", "host_ids")
    return tuple(
        AffinityRule(**{field: group[field] for field in fields})
        for group in groups
        if group["vm_ids"]
    )
