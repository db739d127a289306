"""The order in which VMs come back that a host lost in a reboot of its own, and how many at once.

As in a recovery: the most important first, a VM after those that it depends on, and no more at once
than its cluster allows on one host. That it also is no more together with what recoveries start
there is `domain.start_turns`. What is not due now is found again by the next look for what was left
down, which any start that ends wakes.
"""

from collections.abc import Collection
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from domain.dependencies import BACK_LIMIT_S
from domain.operations import OperationState
from domain.placement import restart_order
from domain.readiness import ReadyWhen
from domain.start_turns import STARTS_AT_LIMIT
from engine.closing import REBOOT, SHUTDOWN
from engine.records.dependencies import awaited_of
from engine.refs import guest_of, ready_rule
from store import coming_back, inventory, left_down, locks, operations, runs
from store.rows import Row

BRINGS_BACK = ("host.activate", SHUTDOWN, REBOOT)
"""Kinds of operations that reconcile a host: starts of what was found gone are parts of them."""

AT_WORK = frozenset({OperationState.PENDING, OperationState.RUNNING})
"""A start that waits, for room or for another VM, holds up nobody, unless it waits for its turn."""


async def due(connection: AsyncConnection, lost: list[Row], now: datetime) -> list[Row]:
    """Runs whose VMs may start now, the most important first.

    One that depends on a VM that is to come back, too, waits for it. Where that is one of these, or
    a start of it has just begun, there is no limit to it before that start is `BACK_LIMIT_S` old;
    what is not ready by its own rule is known here of a delay alone.
    """
    if not lost:  # the most frequent answer by far
        return []
    vms = await inventory.get_many(connection, "vm", [run["vm_id"] for run in lost])
    depends = await inventory.dependencies(connection)
    needed = {other for run in lost for other in depends.get(run["vm_id"], ())}
    missing = await _missing(connection, needed, now)
    late = now - timedelta(seconds=BACK_LIMIT_S)

    def waits(run: Row) -> bool:
        others = missing.keys() & set(depends.get(run["vm_id"], ()))
        return any((missing[other] or run["ended_at"]) > late for other in others)

    found = [run for run in lost if run["vm_id"] in vms and not waits(run)]
    return sorted(found, key=lambda run: restart_order(guest_of(vms[run["vm_id"]], ())))


async def _missing(
    connection: AsyncConnection, needed: Collection[UUID], now: datetime
) -> dict[UUID, datetime | None]:
    """VMs that are to come back, and since when they do; None: since nobody knows when."""
    awaited = sorted(await awaited_of(connection, needed))
    since: dict[UUID, datetime | None] = dict.fromkeys(awaited)
    since |= await coming_back.open_starts(connection, awaited)
    # What was left down is ordered by this very look, and before its dependants, unless somebody
    # has locked it: for how long, nobody knows.
    left = sorted(await left_down.left_down_of(connection, awaited))
    locked = await locks.held(connection, [("vm", vm_id) for vm_id in left])
    since |= {vm_id: now for vm_id in left if ("vm", vm_id) not in locked}
    others = sorted(set(needed) - since.keys())
    active = await runs.active_runs_of(connection, others)
    for vm_id, vm in (await inventory.get_many(connection, "vm", sorted(active))).items():
        rule, began = ready_rule(vm), active[vm_id]["started_at"]
        delay_s = rule.delay_s if rule is not None and rule.when is ReadyWhen.DELAY else 0.0
        if began is not None and began + timedelta(seconds=delay_s) > now:
            since[vm_id] = now
    return since


async def with_turns(connection: AsyncConnection, found: list[Row]) -> list[Row]:
    """Those of these runs that have a turn now, and whose VM nobody has locked."""
    free: dict[UUID, int] = {}
    kept = []
    for run in found:
        if run["host_id"] not in free:
            free[run["host_id"]] = await _free_turns(connection, run["host_id"])
        if free[run["host_id"]] < 1 or await locks.holder(connection, "vm", run["vm_id"]):
            continue
        free[run["host_id"]] -= 1
        kept.append(run)
    return kept


async def _free_turns(connection: AsyncConnection, host_id: UUID) -> int:
    activation = await operations.newest_of(connection, BRINGS_BACK, host_id)
    parent = None if activation is None else await operations.get(connection, activation)
    return 0 if parent is None else await turns_left(connection, parent)


async def turns_left(connection: AsyncConnection, parent: Row) -> int:
    """How many VMs more may be started as parts of this operation of a host."""
    cluster = await inventory.get(connection, "cluster", parent["cluster_id"])
    assert cluster is not None, "an operation's cluster is never deleted"
    children = await operations.children(connection, parent["id"])
    at_work = [c for c in children if c["kind"] == "vm.start" and _is_at_work(c)]
    most: int = cluster["starts_per_host"]
    return most - len(at_work)


def _is_at_work(start: Row) -> bool:
    if start["state"] in AT_WORK:
        return True
    waits = start["state"] == OperationState.WAITING
    return bool(waits and start["reason_code"] == STARTS_AT_LIMIT)
