"""Whether a fence ends in time: the budget of a host's devices against its cluster's limit."""

from domain.errors import Conflict, Refused
from domain.inventory import FenceDevice
from domain.profiles import Policy
from domain.topology import FenceBudget, fence_budget
from engine.actions.base import Tx, existing
from engine.actions.edits import NAMES_MAX
from engine.refs import fence_device, policy_of
from store import inventory
from store.rows import Row

TIMES = frozenset({"deadline_s", "level", "delay_s", "retries"})
"""Columns of a fence device that its host's budget is made of."""


async def too_slow(tx: Tx, host: Row, changed: FenceDevice) -> list[Refused]:
    """FENCE_BUDGET_EXCEEDED if this device, new or as changed, makes its host's fence too long.

    A host that is too slow already may be made quicker, step by step.
    """
    cluster = await existing(tx, "cluster", host["cluster_id"])
    policy = policy_of(cluster)
    known = await devices_of(tx, host)
    before = fence_budget(known, policy)
    after = fence_budget((*(d for d in known if d.id != changed.id), changed), policy)
    if after.total_s <= max(cluster["fence_limit_s"], before.total_s):
        return []
    return [
        Conflict(
            "FENCE_BUDGET_EXCEEDED",
            f"a fence of {host['name']} could take {told(after, policy)}; cluster"
            f" {cluster['name']} allows {cluster['fence_limit_s']:g} s",
            next_step="lower its deadline, delay or retries, or raise the limit: `holdfast cluster"
            f" edit {cluster['name']} --fence-limit {after.total_s:.0f}s`",
            host=host["name"],
            budget_s=round(after.total_s, 1),
            limit_s=cluster["fence_limit_s"],
        )
    ]


async def too_slow_without(tx: Tx, host: Row, gone: Row) -> list[Refused]:
    """FENCE_BUDGET_EXCEEDED if taking this device away makes its host's fence too long.

    The last level is tried several times, and without this device that may be a slower one.
    """
    cluster = await existing(tx, "cluster", host["cluster_id"])
    policy = policy_of(cluster)
    known = await devices_of(tx, host)
    before = fence_budget(known, policy)
    after = fence_budget((device for device in known if device.id != gone["id"]), policy)
    if after.total_s <= max(cluster["fence_limit_s"], before.total_s):
        return []
    return [
        Conflict(
            "FENCE_BUDGET_EXCEEDED",
            f"without {gone['name']} a fence of {host['name']} could take {told(after, policy)};"
            f" cluster {cluster['name']} allows {cluster['fence_limit_s']:g} s",
            next_step="lower deadline, delay or retries of what is left, or raise the limit:"
            f" `holdfast cluster edit {cluster['name']} --fence-limit {after.total_s:.0f}s`",
            host=host["name"],
            budget_s=round(after.total_s, 1),
            limit_s=cluster["fence_limit_s"],
        )
    ]


async def slower_than(tx: Tx, cluster: Row, limit_s: float) -> list[Refused]:
    """FENCE_BUDGET_EXCEEDED for each host of a cluster whose fence could take longer."""
    policy, found = policy_of(cluster), []
    for host in await inventory.listing(tx.connection, "host", cluster_id=cluster["id"]):
        budget = fence_budget(await devices_of(tx, host), policy)
        if budget.total_s > limit_s:
            found.append((host["name"], budget))
    return [
        Conflict(
            "FENCE_BUDGET_EXCEEDED",
            f"a fence of {name} could take {told(budget, policy)}, more than {limit_s:g} s",
            next_step="make its fence devices quicker first: `holdfast fence edit`",
            host=name,
            budget_s=round(budget.total_s, 1),
            limit_s=limit_s,
        )
        for name, budget in found[:NAMES_MAX]
    ]


def told(budget: FenceBudget, policy: Policy) -> str:
    """A budget in words: what each level takes, and how often the last one is tried."""
    parts = [f"level {level.level} {level.total_s:.1f} s" for level in budget.levels]
    last = f", tried {policy.fence_tries} times" if policy.fence_tries > 1 else ""
    return f"{budget.total_s:.1f} s ({', '.join(parts)}{last})"


async def devices_of(tx: Tx, host: Row) -> tuple[FenceDevice, ...]:
    """The power controllers of a host."""
    rows = await inventory.listing(tx.connection, "fence_device", host_id=host["id"])
    return tuple(fence_device(row) for row in rows)
