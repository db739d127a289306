"""What is worked out of a host's fence devices, for whoever looks at it."""

from collections.abc import Iterable
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from domain.topology import fence_budget, survives_power_loss
from engine.fence_views import FenceLevelView, HostFencingView
from engine.refs import fence_device, policy_of
from store import inventory
from store.rows import Row


async def fencing_of(
    connection: AsyncConnection, host_ids: Iterable[UUID]
) -> dict[UUID, HostFencingView]:
    """How each of these hosts is fenced; one that is not there is left out."""
    hosts = await inventory.get_many(connection, "host", sorted(set(host_ids)))
    cluster_ids = sorted({host["cluster_id"] for host in hosts.values()})
    clusters = await inventory.get_many(connection, "cluster", cluster_ids)
    devices = await inventory.devices_of(connection, list(hosts))
    return {
        host_id: _fencing(clusters[host["cluster_id"]], devices.get(host_id, ()))
        for host_id, host in hosts.items()
    }


def _fencing(cluster: Row, devices: Iterable[Row]) -> HostFencingView:
    known, policy = [fence_device(row) for row in devices], policy_of(cluster)
    budget = fence_budget(known, policy)
    return HostFencingView(
        budget_s=round(budget.total_s, 1),
        limit_s=cluster["fence_limit_s"],
        levels=tuple(
            FenceLevelView(
                level=level.level, devices=level.devices, budget_s=round(level.total_s, 1)
            )
            for level in budget.levels
        ),
        blocks_on_power_loss=not survives_power_loss(known, policy.timing.proofs_required),
    )
