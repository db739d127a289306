"""What is worked out of a host's fence devices, for whoever looks at it."""

from collections.abc import Iterable
from itertools import groupby
from operator import itemgetter
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from domain.profiles import Profile, policy_for, silence_s
from domain.topology import fence_budget, survives_power_loss
from engine.fence_views import FenceLevelView, HostFencingView
from engine.refs import fence_device
from store import inventory
from store.rows import Row


async def fencing_of(
    connection: AsyncConnection, host_ids: Iterable[UUID]
) -> dict[UUID, HostFencingView]:
    """How each of these hosts is fenced; one that is not there is left out."""
    rows = await inventory.fencing_of(connection, sorted(set(host_ids)))
    return {host_id: _fencing(list(own)) for host_id, own in groupby(rows, itemgetter("host"))}


def _fencing(rows: list[Row]) -> HostFencingView:
    known = [fence_device(row) for row in rows if row["id"] is not None]
    limit_s = rows[0]["limit_s"]
    policy = policy_for(Profile(rows[0]["profile"]), fence_limit_s=limit_s)
    budget = fence_budget(known, policy)
    return HostFencingView(
        budget_s=round(budget.total_s, 1),
        limit_s=limit_s,
        silence_s=silence_s(policy.timing),
        levels=tuple(
            FenceLevelView(
                level=level.level, devices=level.devices, budget_s=round(level.total_s, 1)
            )
            for level in budget.levels
        ),
        blocks_on_power_loss=not survives_power_loss(known, policy.timing.proofs_required),
    )
