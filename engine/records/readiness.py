"""Rows behind the wait for a VM that others depend on."""

from datetime import datetime
from uuid import UUID, uuid5

from sqlalchemy.ext.asyncio import AsyncConnection

from activities.readiness import ReadyFound, ReadyOrder, RunningVm
from domain.inventory import RunState
from engine.clock import Clock, utc_now
from engine.records.runs import ref_of
from store import incidents, plumbing, runs
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
            return await running_vm(connection, run, now)

        return await self._database.read(work)

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


async def running_vm(connection: AsyncConnection, run: Row, now: datetime) -> RunningVm:
    """A run that was read back as running, and for how long it has been."""
    since_s = (now - (run["started_at"] or now)).total_seconds()
    return RunningVm(run=await ref_of(connection, run), since_s=max(since_s, 0.0))


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
