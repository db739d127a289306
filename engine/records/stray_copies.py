"""Rows of VMs that have a copy where none should run, as the steps that end it keep them."""

from uuid import UUID, uuid5

from sqlalchemy.ext.asyncio import AsyncConnection

from activities.stray_copies import CopyStep, EndCopyStep
from domain.errors import NotFound, Superseded
from domain.inventory import RunState
from engine.clock import Clock, utc_now
from store import ended_runs, inventory, locks, operations, plumbing, runs
from store.database import Database
from store.rows import Row

ENDED = "vm.copy_ended"
"""Event: a copy of a VM on a host where it should not run was ended by a person's word."""

LAST_ENDED = "last copy ended"
"""Why a run ended whose VM had no copy but the one that was ended elsewhere."""


class StrayCopyRecords:
    """Implements the port of `activities.stray_copies`."""

    def __init__(self, database: Database, clock: Clock = utc_now) -> None:
        self._database = database
        self._clock = clock

    async def newest_generation(self, step: CopyStep) -> int:
        """The newest generation of the VM, whose run is still the one that was ordered."""

        async def work(connection: AsyncConnection) -> int:
            vm = await mine(connection, step)
            return int(vm["generation"])

        return await self._database.read(work)

    async def ended(self, order: EndCopyStep, *, closes: bool) -> None:
        """Tell that the copy is gone; `closes`: and that the VM is down. One transaction."""
        await self._database.write(lambda c: self._ended(c, order, closes=closes))

    async def _ended(
        self, connection: AsyncConnection, order: EndCopyStep, *, closes: bool
    ) -> None:
        step, now = order.step, self._clock()
        event_id = uuid5(step.operation_id, ENDED)
        if await plumbing.has_event(connection, event_id):
            return  # an earlier try got through and only its answer was lost
        await mine(connection, step)
        run = step.run
        if closes:
            if run is not None and not await ended_runs.close(
                connection, run.run_id, run.epoch, LAST_ENDED, now
            ):
                raise _moved_on(step)
            await ended_runs.not_wanted(connection, step.vm_id)
        operation = await operations.get(connection, step.operation_id)
        assert operation is not None
        data = {"name": step.vm_name, "host": step.host.name, "last": closes}
        data |= {"generation": order.found.generation, "reason": operation["reason"]}
        event = {
            "id": event_id,
            "type": ENDED,
            "subject_type": "vm",
            "subject_id": step.vm_id,
            "principal": operation["principal"],
            "correlation_id": operation["correlation_id"],
            "operation_id": operation["id"],
            "data": data,
            "at": now,
        }
        await plumbing.append_event(connection, event)


async def mine(connection: AsyncConnection, step: CopyStep) -> Row:
    """The VM, while it is this try's business and runs where it did when that was ordered."""
    vm = await inventory.get(connection, "vm", step.vm_id)
    if vm is None:
        raise NotFound("VM_NOT_FOUND", f"there is no VM {step.vm_name} any more")
    owner = (step.operation_id, step.attempt)
    if not await locks.holds(connection, "vm", step.vm_id, *owner):
        raise Superseded("SUPERSEDED", f"another operation or try took over {step.vm_name}")
    run = await runs.active_run(connection, step.vm_id)
    if _which(run) != (None if step.run is None else (step.run.run_id, RunState.RUNNING)):
        raise _moved_on(step)
    return vm


def _which(run: Row | None) -> tuple[UUID, str] | None:
    return None if run is None else (run["id"], run["state"])


def _moved_on(step: CopyStep) -> Superseded:
    where = "nowhere" if step.run is None else f"on {step.run.host_name}"
    return Superseded(
        "SUPERSEDED",
        f"{step.vm_name} ran {where} when this was ordered, and that has changed",
        next_step="look at the VM: a recovery or another operation took it over",
        vm=step.vm_name,
    )
