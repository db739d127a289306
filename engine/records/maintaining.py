"""Rows of a host that is drained, as the steps of its maintenance keep them."""

from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from activities.maintaining import Drained, DrainStep
from domain.errors import Conflict, Superseded
from domain.hosts import HostEvent
from domain.inventory import HostState, RunState
from domain.operations import OperationState
from domain.planned import PlannedVms
from engine.acceptance import Terms
from engine.actions.base import Params
from engine.actions.migrate_vm import MigrateVm, MigrateVmAction
from engine.actions.vms import StopVm, StopVmAction
from engine.backend import Backend
from engine.cancelling import cancel_operation, of_operation
from engine.clock import Clock, utc_now
from engine.rows import context_of
from store import hosts, inventory, locks, migrating, operations, planned, runs
from store.database import Database
from store.rows import Row


class MaintenanceRecords:
    """Implements the port of `activities.maintaining`."""

    def __init__(self, database: Database, backend: Backend, clock: Clock = utc_now) -> None:
        self._database = database
        self._backend = backend
        self._clock = clock

    async def advance(self, step: DrainStep) -> Drained:
        """Order the moves that the limit allows, or take an empty host out of service.

        Conflict HOST_NOT_BACK where an earlier try was lost while it reconciled the host: it is out
        of service from then on.
        """
        try:
            return await self._database.write(
                lambda connection: _Look(connection, step, self._backend, self._clock()).run()
            )
        except Superseded:
            if await self._leave_out(step):
                raise _lost(step) from None
            raise

    async def _leave_out(self, step: DrainStep) -> bool:
        host, now = step.host, self._clock()
        why = "its reboot was lost while it was reconciled"
        mine = (host.host_id, host.epoch, step.operation_id)
        return await self._database.write(
            lambda connection: planned.leave_out(connection, *mine, why, now, since_try=2)
        )

    async def stay(self, step: DrainStep) -> str:
        """Ask the moves under way to end and let the host serve on; a sentence."""

        async def work(connection: AsyncConnection) -> str:
            drain = await operations.get(connection, step.operation_id)
            if drain is None or drain["state"] not in operations.OPEN:
                # A recovery took the host over, whose state is its to change.
                return f"{step.host.name} is left to whoever took it over"
            children = await _moves(connection, step)
            open_ = [child for child in children if child["state"] in operations.OPEN]
            for child in open_:
                tx = of_operation(self._backend.transaction(connection, context_of(child)), child)
                await cancel_operation(tx, child)
                await self._backend.write_out(tx)
            why, now = "its maintenance was cancelled", self._clock()
            served = await hosts.move(connection, step.host.host_id, HostEvent.STAY, why, now)
            host = await inventory.get(connection, "host", step.host.host_id)
            state = host["state"] if host and not served else "up"
            moved = sum(child["state"] == OperationState.SUCCEEDED for child in children)
            return (
                f"{step.host.name} is {state}; {moved} VMs were moved, "
                f"{len(open_)} moves were asked to end"
            )

        return await self._database.write(work)


class _Look:
    """One transaction that looks at a host's VMs."""

    def __init__(
        self, connection: AsyncConnection, step: DrainStep, backend: Backend, now: datetime
    ) -> None:
        self._connection = connection
        self._step = step
        self._backend = backend
        self._now = now
        self._stuck: list[str] = []
        self._needed: dict[UUID, str] = {}
        self._under_way = 0

    async def run(self) -> Drained:
        """Move what can be moved."""
        connection, step = self._connection, self._step
        host = await inventory.get(connection, "host", step.host.host_id)
        draining = (HostState.PREPARING_MAINTENANCE, HostState.MAINTENANCE)
        if host is None or host["state"] not in draining or host["epoch"] != step.host.epoch:
            raise Superseded("EPOCH_STALE", f"{step.host.name} is not being drained any more")
        children = await _moves(connection, step)
        moved = len({c["target_id"] for c in children if c["state"] == OperationState.SUCCEEDED})
        here = await runs.active_runs(connection, host["id"])
        coming = [
            run
            for run in await migrating.naming(connection, host["id"])
            if run["target_host_id"] == host["id"]
        ]
        left = len(here) + len(coming)
        await operations.note_progress(connection, step.operation_id, moved, moved + left)
        open_ = sum(child["state"] in operations.OPEN for child in children)
        if left == 0 and open_:
            return Drained(moved=moved, left=0, under_way=open_)  # they have arrived, not ended
        if left == 0:
            done = host["state"] == HostState.MAINTENANCE or await migrating.emptied(
                connection, host["id"], step.host.epoch, self._now
            )
            return Drained(moved=moved, left=0, under_way=0, empty=done)
        newest = {child["target_id"]: child for child in children}
        if step.stops:
            self._needed = await self._needed_by({run["vm_id"] for run in here})
        for run in (*coming, *here):
            await self._look_at(run, newest.get(run["vm_id"]))
        return Drained(moved=moved, left=left, under_way=self._under_way, stuck=tuple(self._stuck))

    async def _look_at(self, run: Row, child: Row | None) -> None:
        vm = await inventory.get(self._connection, "vm", run["vm_id"])
        name = vm["name"] if vm else str(run["vm_id"])
        if child is not None and child["state"] in operations.OPEN:
            if child["state"] == OperationState.WAITING:
                self._stuck.append(f"{name}: {child['waiting_for']}")
            else:
                self._under_way += 1
            return
        if child is not None and child["state"] != OperationState.SUCCEEDED:
            ended: datetime = child["finished_at"]
            if self._now < ended + timedelta(seconds=self._step.retry_s):
                self._stuck.append(f"{name}: {_why(child)}")
                return
        holder = await locks.holder(self._connection, "vm", run["vm_id"])
        if holder is not None or run["state"] not in self._may_go:
            busy = f"{holder.kind} holds it" if holder else f"it is {run['state']}"
            self._stuck.append(f"{name}: {busy}")
        elif run["vm_id"] in self._needed:
            self._stuck.append(f"{name}: {self._needed[run['vm_id']]} depends on it and is here")
        elif self._under_way < self._step.at_once:
            await self._move(run)
            self._under_way += 1

    async def _move(self, run: Row) -> None:
        step, vm_id = self._step, run["vm_id"]
        parent = await operations.get(self._connection, step.operation_id)
        assert parent is not None
        what: Params = MigrateVm(vm_id=vm_id)
        if step.stops:
            what, frozen = StopVm(vm_id=vm_id, planned=True), step.vms is PlannedVms.FREEZE
            mine = (run["host_id"], step.operation_id)
            await planned.remember(self._connection, vm_id, *mine, self._now, frozen=frozen)
        why = f"{step.host.name} is taken out of service"
        await self._backend.run_child(what, parent, Terms(), reason=why)

    @property
    def _may_go(self) -> tuple[str, ...]:
        """States of a run from which it is moved, or stopped: an end that was asked for goes on."""
        return (RunState.RUNNING, *((RunState.STOPPING,) if self._step.stops else ()))

    async def _needed_by(self, here: set[UUID]) -> dict[UUID, str]:
        """VMs that others which are still here depend on, each with one of those."""
        needed: dict[UUID, str] = {}
        for vm_id, others in (await inventory.dependencies(self._connection)).items():
            if vm_id in here and (vm := await inventory.get(self._connection, "vm", vm_id)):
                needed |= {other: str(vm["name"]) for other in others if other in here}
        return needed


def _lost(step: DrainStep) -> Conflict:
    name = step.host.name
    return Conflict(
        "HOST_NOT_BACK",
        f"{name} has rebooted, and its reboot was lost while it was reconciled: it is out of "
        "service",
        next_step=f"`holdfast host activate {name}` brings it and the VMs that wait for it back",
        host=name,
    )


def _why(child: Row) -> str:
    problem = child["problem"] or {}
    said = problem.get("detail") or child["summary"] or child["state"]
    return f"{said} (tried again later)"


async def _moves(connection: AsyncConnection, step: DrainStep) -> list[Row]:
    """The moves (or stops) that a drain has ordered, oldest first."""
    kind = StopVmAction.kind if step.stops else MigrateVmAction.kind
    children = await operations.children(connection, step.operation_id)
    return [child for child in children if child["kind"] == kind]
