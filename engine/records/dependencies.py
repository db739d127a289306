"""Rows behind the wait for VMs that others depend on and that something else brings back."""

from collections.abc import Collection, Mapping
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from activities.dependencies import BackOrder, Released, Standing, StandingVm
from domain.inventory import HostState, RunState
from domain.next_looks import DEPENDENCY
from domain.orders import AwaitedVm
from engine.clock import Clock, utc_now
from engine.records.readiness import running_vm
from engine.refs import ready_rule
from store import coming_back, control, incidents, inventory, runs
from store.database import Database
from store.rows import Row

SILENT = frozenset(
    {
        HostState.CONNECTING,
        HostState.NON_RESPONSIVE,
        HostState.FENCING,
        HostState.DOWN,
        HostState.RECONCILING,
        HostState.ERROR,
    }
)
"""Hosts of which nobody knows now that their VMs run. Others serve what they have, also while they
are drained."""


class DependencyRecords:
    """Implements the port of `activities.dependencies`."""

    def __init__(self, database: Database, clock: Clock = utc_now) -> None:
        self._database = database
        self._clock = clock

    async def standing(self, order: BackOrder) -> Standing:
        """How everything stands that is waited for."""
        wanted = {one.vm_id for start in order.starts for one in start.awaits}
        starts, now = [start.start_id for start in order.starts], self._clock()

        async def work(connection: AsyncConnection) -> Standing:
            awaited = await awaited_of(connection, wanted)
            active = await runs.active_runs_of(connection, sorted(wanted - awaited.keys()))
            found = {vm_id: StandingVm(expected=True, vm=None) for vm_id in awaited}
            for vm_id, run in active.items():
                if run["state"] in (RunState.RUNNING, RunState.MIGRATING):
                    vm = await running_vm(connection, run, now)
                    found[vm_id] = StandingVm(expected=True, vm=vm)
            return Standing(vms=found, begun=await coming_back.begun(connection, starts))

        return await self._database.read(work)

    async def show(self, waits: Mapping[UUID, str], released: tuple[Released, ...]) -> None:
        """Say on starts that have not begun what they wait for, and take it back on others."""

        async def work(connection: AsyncConnection) -> None:
            for start_id, detail in waits.items():
                await control.show_unbegun(connection, start_id, DEPENDENCY, detail)
            for one in released:
                await control.show_no_longer(connection, one.start_id, DEPENDENCY)

        await self._database.write(work)


async def awaited_of(
    connection: AsyncConnection, vm_ids: Collection[UUID]
) -> dict[UUID, AwaitedVm]:
    """Which of these VMs are worth waiting for, and what for: they do not run well, and something
    brings them back or tells that they are gone: a recovery, a start, an activation of their host.
    """
    if not vm_ids:
        return {}
    vms = await inventory.get_many(connection, "vm", sorted(vm_ids))
    active = await runs.active_runs_of(connection, sorted(vm_ids))
    wanted = {vm_id for vm_id, vm in vms.items() if vm["wanted"] and vm["protected"]}
    unwell = wanted - await _well(connection, active)
    coming = active.keys() | await coming_back.coming(connection, sorted(unwell - active.keys()))
    return {
        vm_id: AwaitedVm(vm_id=vm_id, vm_name=vms[vm_id]["name"], ready=ready_rule(vms[vm_id]))
        for vm_id in sorted(unwell & coming)
    }


async def _well(connection: AsyncConnection, active: Mapping[UUID, Row]) -> set[UUID]:
    """Which VMs run on a host that serves them."""
    on = {run["host_id"] for run in active.values()}
    hosts = await inventory.get_many(connection, "host", sorted(on))
    silent = set()
    for host_id, host in hosts.items():
        reported = await incidents.find_open(connection, host_id, host["epoch"])
        if host["state"] in SILENT or reported is not None:
            silent.add(host_id)
    return {
        vm_id
        for vm_id, run in active.items()
        if run["state"] in (RunState.RUNNING, RunState.MIGRATING) and run["host_id"] not in silent
    }
