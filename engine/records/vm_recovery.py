"""Rows of runs whose guests ended by themselves, as the steps that see to them keep them."""

from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from activities.vm_recovery import ExamineOrder, SettleOrder
from domain.disarming import acts_on_known
from domain.ended_guests import RESTART_WINDOW, EndedGuest, NextMove, PastEnd
from domain.errors import NotFound, Superseded
from domain.explain import Explanation
from domain.inventory import HostState, OnGuestShutdown, OnHang, OnIoError, RunState
from domain.orders import RunRef
from domain.readings import StateReason
from engine.acceptance import Terms
from engine.actions.vm_recovery import disarmed
from engine.actions.vms import StartVm
from engine.backend import Backend
from engine.clock import Clock, utc_now
from engine.records.explaining import note_of_operation
from store import ended_runs, inventory, locks, operations, plumbing, shown
from store.database import Database
from store.ids import new_id
from store.rows import Row


class VmRecoveryRecords:
    """Implements the port of `activities.vm_recovery`."""

    def __init__(self, database: Database, backend: Backend, clock: Clock = utc_now) -> None:
        self._database = database
        self._backend = backend
        self._clock = clock

    async def facts(self, order: ExamineOrder, reason: StateReason | None) -> EndedGuest:
        """What the VM is to the engine, given why its guest ended."""

        async def work(connection: AsyncConnection) -> EndedGuest:
            run, vm = await self._mine(connection, order)
            now, home = self._clock(), order.run.host_id
            others = await inventory.listing(connection, "host", cluster_id=vm["cluster_id"])
            past = await ended_runs.failures_since(
                connection, vm["id"], now - RESTART_WINDOW, but=run["id"]
            )
            return EndedGuest(
                vm=vm["name"],
                host_id=home,
                host_name=order.run.host_name,
                reason=reason,
                wanted=vm["wanted"],
                protected=vm["protected"],
                on_guest_shutdown=OnGuestShutdown(vm["on_guest_shutdown"]),
                on_io_error=OnIoError(vm["on_io_error"]),
                on_hang=OnHang(vm["on_hang"]),
                max_restart=vm["max_restart"],
                max_relocate=vm["max_relocate"],
                armed=await _armed(connection, vm),
                elsewhere=await shown.elsewhere(connection, vm, {home}, tuple(HostState)),
                hosts=tuple(host["id"] for host in others if host["state"] == HostState.UP),
                past=tuple(
                    PastEnd(host_id=end["host_id"], host_name=end["host_name"], at=end["ended_at"])
                    for end in past
                ),
                now=now,
            )

        return await self._database.read(work)

    async def note_paused(self, order: ExamineOrder, reason: StateReason | None) -> None:
        """Keep on the run why its guest is paused, or that it is not."""
        told = None if reason is None else reason.value
        await self._database.write(
            lambda c: ended_runs.note_paused(c, order.run.run_id, order.run.epoch, told)
        )

    async def note_decision(self, order: ExamineOrder, told: Explanation) -> None:
        """Keep with the operation why this was decided; the same again is counted."""
        subject = (order.run.spec.vm_id, order.run.spec.name, told)
        now = self._clock()
        await self._database.write(lambda c: note_of_operation(c, order.operation_id, subject, now))

    async def ordered(self, operation_id: UUID) -> UUID | None:
        """The start that an earlier try of a step has ordered."""
        return await self._database.read(lambda c: _ordered(c, operation_id))

    async def settle(self, order: SettleOrder) -> UUID | None:
        """Close the run and order what was decided; the operation that starts the VM again.

        One transaction. Repeating it finds the run closed, and the start that it ordered.
        """
        return await self._database.write(lambda c: self._settle(c, order))

    async def _settle(self, connection: AsyncConnection, order: SettleOrder) -> UUID | None:
        examined, verdict = order.examine, order.verdict
        parent = await operations.get(connection, examined.operation_id)
        assert parent is not None
        known = await _ordered(connection, parent["id"])
        if known is not None:  # an earlier try got through and only its answer was lost
            return known
        run, vm = await self._mine(connection, examined)
        if not await _armed(connection, vm):
            raise disarmed(vm["name"])
        if run["active"] is not None:
            await self._close(connection, order, vm, parent)
        if verdict.move is not NextMove.RESTART:
            return None
        # The lock goes to the start, within this transaction.
        await locks.free(connection, parent["id"], "vm")
        start = StartVm(vm_id=vm["id"], prefer_id=verdict.prefer_id, avoid=verdict.avoid)
        return await self._backend.run_child(start, parent, Terms(), reason=verdict.why)

    async def _close(
        self, connection: AsyncConnection, order: SettleOrder, vm: Row, parent: Row
    ) -> None:
        run, verdict, now = order.examine.run, order.verdict, self._clock()
        if not await ended_runs.close(connection, run.run_id, run.epoch, verdict.end_reason, now):
            raise _moved_on(run)
        if verdict.unwanted:
            await ended_runs.not_wanted(connection, vm["id"])
        data = {"name": vm["name"], "host": run.host_name, "why": verdict.why}
        data |= {"reason": verdict.end_reason, "next": verdict.move.value}
        event = {
            "id": new_id(),
            "type": "vm.ended",
            "subject_type": "vm",
            "subject_id": vm["id"],
            "principal": parent["principal"],
            "correlation_id": parent["correlation_id"],
            "operation_id": parent["id"],
            "data": data,
            "at": now,
        }
        await plumbing.append_event(connection, event)

    async def _mine(self, connection: AsyncConnection, order: ExamineOrder) -> tuple[Row, Row]:
        """The run and its VM, while they are this operation's business.

        The run is still the VM's newest: running, or closed by this very operation.
        """
        run = await ended_runs.last(connection, order.run.spec.vm_id)
        vm = await inventory.get(connection, "vm", order.run.spec.vm_id)
        if run is None or vm is None:
            raise NotFound("VM_NOT_FOUND", f"there is no VM {order.run.spec.name} any more")
        owner = (order.operation_id, order.attempt)
        if not await locks.holds(connection, "vm", vm["id"], *owner):
            raise Superseded("SUPERSEDED", f"another operation or try took over {vm['name']}")
        same = (run["id"], run["epoch"]) == (order.run.run_id, order.run.epoch)
        if not same or run["state"] not in (RunState.RUNNING, RunState.ENDED):
            raise _moved_on(order.run)
        return run, vm


async def _ordered(connection: AsyncConnection, operation_id: UUID) -> UUID | None:
    started: list[UUID] = [
        child["id"] for child in await operations.children(connection, operation_id)
    ]
    return started[0] if started else None


async def _armed(connection: AsyncConnection, vm: Row) -> bool:
    cluster = await inventory.get(connection, "cluster", vm["cluster_id"])
    if cluster is None:
        return False
    return acts_on_known(armed=cluster["armed"], mode=cluster["disarm_mode"])


def _moved_on(run: RunRef) -> Superseded:
    return Superseded(
        "SUPERSEDED",
        f"run {run.generation} of {run.spec.name} on {run.host_name} is not the one that runs now",
        next_step="look at the VM: a recovery or another operation took it over",
        vm=run.spec.name,
        generation=run.generation,
    )
