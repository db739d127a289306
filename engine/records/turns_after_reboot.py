"""The order in which VMs come back that a host lost in a reboot of its own, and how many at once.

As in a recovery: the most important first, a VM after those that it depends on, and no more at once
on one host than its cluster allows. What is not due now is found again by the next look for what
was left down, which any start that ends wakes.
"""

from datetime import datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncConnection

from activities.readiness import BACK_LIMIT_S
from domain.operations import OperationState
from domain.placement import restart_order
from engine.records.readiness import awaited_of
from engine.refs import guest_of
from store import inventory, operations
from store.rows import Row

AT_WORK = frozenset({OperationState.PENDING, OperationState.RUNNING})
"""A start that waits, for room or for another VM, holds up nobody."""


async def due(connection: AsyncConnection, lost: list[Row], now: datetime) -> list[Row]:
    """Runs whose VMs may start now, the most important first.

    One that depends on a VM that is to come back, too, waits for it, up to `BACK_LIMIT_S`.
    """
    if not lost:  # the most frequent answer by far
        return []
    vms = await inventory.get_many(connection, "vm", [run["vm_id"] for run in lost])
    depends = await inventory.dependencies(connection)
    needed = {other for run in lost for other in depends.get(run["vm_id"], ())}
    missing = (await awaited_of(connection, needed)).keys()
    late = now - timedelta(seconds=BACK_LIMIT_S)
    found = [
        run
        for run in lost
        if run["vm_id"] in vms
        and (run["ended_at"] <= late or not missing & set(depends.get(run["vm_id"], ())))
    ]
    return sorted(found, key=lambda run: restart_order(guest_of(vms[run["vm_id"]], ())))


async def has_turn(connection: AsyncConnection, parent: Row) -> bool:
    """Whether one more VM may be started as a part of this operation of a host."""
    cluster = await inventory.get(connection, "cluster", parent["cluster_id"])
    if cluster is None:
        return True
    children = await operations.children(connection, parent["id"])
    open_ = sum(child["kind"] == "vm.start" and child["state"] in AT_WORK for child in children)
    return bool(open_ < cluster["starts_per_host"])
