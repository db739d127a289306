"""Rows behind the wait for a VM that others depend on."""

from collections.abc import Collection
from uuid import UUID, uuid5

from sqlalchemy.ext.asyncio import AsyncConnection

from activities.readiness import BackOrder, ReadyFound, ReadyOrder, RunningVm, StandingVm
from domain.inventory import HostState, RunState
from domain.orders import AwaitedVm
from engine.clock import Clock, utc_now
from engine.records.runs import ref_of
from engine.refs import ready_rule
from store import control, incidents, inventory, plumbing, runs
from store.database import Database
from store.rows import Row


class ReadyRecords:
    """Implements the port of `activities.readiness`."""

    def __init__(self, database: Database, clock: Clock = utc_now) -> None:
        self._database = database
        self._clock = clock

    async def running(self, vm_id: UUID) -> RunningVm | None:
        """The VM's run that was read back as running, or None."""
        now = self._clock()

        async def work(connection: AsyncConnection) -> RunningVm | None:
            run = await runs.active_run(connection, vm_id)
            if run is None or run["state"] not in (RunState.RUNNING, RunState.MIGRATING):
                return None
            since_s = (now - (run["started_at"] or now)).total_seconds()
            return RunningVm(run=await ref_of(connection, run), since_s=max(since_s, 0.0))

        return await self._database.read(work)

    async def standing(self, vm_id: UUID) -> StandingVm:
        """Whether the VM is to run, and its run on a host in service, if any."""
        now = self._clock()

        async def work(connection: AsyncConnection) -> StandingVm:
            awaited = await awaited_of(connection, {vm_id})
            vm = await inventory.get(connection, "vm", vm_id)
            expected = vm is not None and bool(vm["wanted"] and vm["protected"])
            run = await runs.active_run(connection, vm_id)
            if run is None or awaited:
                return StandingVm(expected=expected, vm=None)
            since_s = (now - (run["started_at"] or now)).total_seconds()
            ref = await ref_of(connection, run)
            return StandingVm(expected=expected, vm=RunningVm(run=ref, since_s=max(since_s, 0.0)))

        return await self._database.read(work)

    async def show_awaited(self, order: BackOrder, detail: str) -> None:
        """Say on a start that has not begun what it waits for."""
        await self._database.write(
            lambda c: control.show_unbegun(c, order.start_id, "DEPENDENCY", detail)
        )

    async def settled(self, order: ReadyOrder, found: ReadyFound) -> None:
        """Keep when it was; a VM that is not ready raises one event `vm.not_ready`."""
        now = self._clock()

        async def work(connection: AsyncConnection) -> None:
            if found.ready:
                await incidents.note_ready(connection, order.incident_id, now)
                return
            event_id = uuid5(order.operation_id, f"not ready {order.vm_id}")
            if not await plumbing.has_event(connection, event_id):
                row = _warning(order, found)
                await plumbing.append_event(connection, row | {"id": event_id, "at": now})

        await self._database.write(work)


async def awaited_of(
    connection: AsyncConnection, vm_ids: Collection[UUID]
) -> dict[UUID, AwaitedVm]:
    """Which of these VMs are to run, and do not on a host in service: what waits for each."""
    if not vm_ids:
        return {}
    vms = await inventory.get_many(connection, "vm", sorted(vm_ids))
    active = await runs.active_runs_of(connection, sorted(vm_ids))
    on = {run["host_id"] for run in active.values()}
    hosts = await inventory.get_many(connection, "host", sorted(on))
    found = {}
    for vm_id, vm in vms.items():
        run = active.get(vm_id)
        runs_there = run is not None and run["state"] in (RunState.RUNNING, RunState.MIGRATING)
        well = run is not None and runs_there and hosts[run["host_id"]]["state"] == HostState.UP
        if vm["wanted"] and vm["protected"] and not well:
            found[vm_id] = AwaitedVm(vm_id=vm_id, vm_name=vm["name"], ready=ready_rule(vm))
    return found


def _warning(order: ReadyOrder, found: ReadyFound) -> Row:
    return {
        "type": "vm.not_ready",
        "subject_type": "vm",
        "subject_id": order.vm_id,
        "principal": "recovery",
        "correlation_id": order.operation_id.hex,
        "operation_id": order.operation_id,
        "data": {"name": order.vm_name, "why": f"{found.why}; its dependants start"},
    }
