"""Steps on one run of a VM: place, define, start, shut down, end.

A start is: open the connection, claim the run in the database, `create()` on that same connection.
A host that was power-cycled in between has dropped the connection, so a late `create()` of a frozen
worker cannot reach the new boot; and a run that has moved on cannot be claimed.
"""

from contextlib import AbstractAsyncContextManager
from typing import Protocol
from uuid import UUID

from pydantic import Field
from temporalio import activity

from activities.ports import Hypervisor, HypervisorSession
from activities.waiting import until
from domain.base import Frozen
from domain.errors import Conflict, EngineError, OutcomeUnknown, Superseded
from domain.operations import is_first
from domain.orders import Placement, RunRef

NOTHING_STARTED = "nothing was started"
NEW_OWNER = "left to its new owner"
NOT_OURS = (NOTHING_STARTED, NEW_OWNER)
"""What undoing a start says when the operation has no run that it could give back."""


class PlaceOrder(Frozen):
    """Find a host with room for a VM and reserve it."""

    operation_id: UUID
    attempt: int = Field(default=1, exclude_if=is_first)
    vm_id: UUID
    host_id: UUID | None
    licence_id: UUID | None
    incident_id: UUID | None
    prefer_id: UUID | None = Field(default=None, exclude_if=lambda host: host is None)
    avoid: tuple[UUID, ...] = Field(default=(), exclude_if=lambda hosts: not hosts)


class GuestOrder(Frozen):
    """One step on one run."""

    run: RunRef
    deadline_s: float


class WithdrawOrder(Frozen):
    """Undo what a try of an operation did to start a VM, however far it came."""

    operation_id: UUID
    attempt: int = Field(default=1, exclude_if=is_first)
    vm_id: UUID
    deadline_s: float


class StopOrder(Frozen):
    """Wait for a guest to end by itself."""

    run: RunRef
    deadline_s: float
    grace_s: float
    read_every_s: float


class RunRecords(Protocol):
    """The rows of runs. Every method is one transaction and may be repeated."""

    async def place(self, order: PlaceOrder) -> Placement:
        """Choose a host and write the next run as placed, or say why there is no room."""
        ...

    async def expect(self, run: RunRef) -> None:
        """Superseded when the run is not to be started any more; changes nothing."""
        ...

    async def begin_start(self, run: RunRef) -> None:
        """Claim the run for `create()`; Superseded when it may not start any more.

        Refused while it has to wait: DISARMED, or STARTS_AT_LIMIT, which its row says already.
        """
        ...

    async def started(self, run: RunRef) -> None:
        """Record the run as running; Superseded when it was closed meanwhile."""
        ...

    async def end_unclaimed(
        self, operation_id: UUID, vm_id: UUID, attempt: int = 1
    ) -> RunRef | None:
        """Close the operation's run if it was never claimed for `create()`; that run.

        None when there is none, or a later try of the operation goes on with it.
        """
        ...

    async def begin_withdraw(
        self, operation_id: UUID, vm_id: UUID, attempt: int = 1
    ) -> RunRef | None:
        """Take back the run that an open operation placed, so that nobody claims it any more.

        None when there is none, or another owner or a later try took it.
        """
        ...

    async def withdrawn(self, run: RunRef) -> None:
        """Close a run that was taken back and read as gone."""
        ...

    async def begin_stop(self, run: RunRef) -> None:
        """Record that the run's end was asked for."""
        ...

    async def ended(self, run: RunRef, reason: str) -> None:
        """Close the run and free its memory."""
        ...


class Guests:
    """Steps on one run of a VM."""

    def __init__(self, hypervisor: Hypervisor, runs: RunRecords) -> None:
        self._hypervisor = hypervisor
        self._runs = runs

    @activity.defn(name="guest.place")
    async def place(self, order: PlaceOrder) -> Placement:
        """Reserve a place; repeating it for the same operation gives the same run."""
        return await self._runs.place(order)

    @activity.defn(name="guest.define")
    async def define(self, order: GuestOrder) -> None:
        """Make the domain known to its host, with the run's generation."""
        async with self._session(order) as session:
            # Behind the open connection, which ends with the host's boot: a late step leaves
            # nothing on a host that was reconciled without it.
            await self._runs.expect(order.run)
            await session.define(order.run.spec, order.run.generation)

    @activity.defn(name="guest.start")
    async def start(self, order: GuestOrder) -> str:
        """Start the run and read it back; repeatable."""
        run = order.run
        async with self._session(order) as session:
            await self._runs.begin_start(run)
            await session.create(run.spec.vm_id, run.generation)
            await _read_back_running(session, run)
            try:
                await self._runs.started(run)
            except Superseded:
                # It was closed between the claim and `create()`: this copy would be nobody's.
                await _remove(session, run)
                raise
        return _running(run)

    @activity.defn(name="guest.shutdown")
    async def shutdown(self, order: GuestOrder) -> None:
        """Ask the guest to end; not running is success."""
        await self._runs.begin_stop(order.run)
        async with self._session(order) as session:
            await session.shutdown(order.run.spec.vm_id, order.run.generation)

    @activity.defn(name="guest.await_off")
    async def await_off(self, order: StopOrder) -> bool:
        """Whether the guest ended by itself within its grace."""
        async with self._hypervisor.session(order.run.uri, order.deadline_s) as session:

            async def off() -> bool:
                found = await session.lookup(order.run.spec.vm_id)
                return found is None or not found.alive

            return await until(off, every_s=order.read_every_s, within_s=order.grace_s)

    @activity.defn(name="guest.end")
    async def end(self, order: GuestOrder) -> str:
        """Destroy and undefine what is left of a run, read back, and close it; repeatable."""
        run = order.run
        async with self._session(order) as session:
            await _remove(session, run)
        await self._runs.ended(run, "stopped")
        return f"gone from {run.host_name}"

    @activity.defn(name="guest.withdraw")
    async def withdraw(self, order: WithdrawOrder) -> str:
        """Undo a start of this operation, unless a recovery took its run over; repeatable."""
        mine = (order.operation_id, order.vm_id, order.attempt)
        unclaimed = await self._runs.end_unclaimed(*mine)
        if unclaimed is not None:
            return await self._forget(unclaimed, order.deadline_s)
        run = await self._runs.begin_withdraw(*mine)
        if run is None:
            return NOTHING_STARTED
        async with self._hypervisor.session(run.uri, order.deadline_s) as session:
            # Asked again behind the open connection: a copy that was kept through a reboot or a
            # recovery since then belongs to a run that this operation does not own.
            owned = await self._runs.begin_withdraw(*mine)
            if owned is None or owned.run_id != run.run_id:
                return NEW_OWNER
            await _remove(session, run)
        await self._runs.withdrawn(run)
        return f"gone from {run.host_name}"

    async def _forget(self, run: RunRef, deadline_s: float) -> str:
        """Remove the definition of a run that never started; a host that is away keeps it."""
        try:
            async with self._hypervisor.session(run.uri, deadline_s) as session:
                await session.undefine(run.spec.vm_id, run.generation)
        except EngineError:
            # Nothing runs of it, nobody can start it any more, and reconciling removes it.
            return f"never started on {run.host_name}, which may keep its definition for now"
        return f"gone from {run.host_name}"

    def _session(self, order: GuestOrder) -> AbstractAsyncContextManager[HypervisorSession]:
        return self._hypervisor.session(order.run.uri, order.deadline_s)


def _running(run: RunRef) -> str:
    rules = f"; soft rules that gave way: {', '.join(run.gave_way)}" if run.gave_way else ""
    return f"running on {run.host_name}{rules}"


async def _remove(session: HypervisorSession, run: RunRef) -> None:
    await session.destroy(run.spec.vm_id, run.generation)
    await session.undefine(run.spec.vm_id, run.generation)
    found = await session.lookup(run.spec.vm_id)
    if found is not None and found.alive:
        raise OutcomeUnknown(
            "GUEST_STILL_RUNS",
            f"{run.spec.name} still runs on {run.host_name} after destroy",
            next_step="look at the host's libvirtd log",
        )


async def _read_back_running(session: HypervisorSession, run: RunRef) -> None:
    found = await session.lookup(run.spec.vm_id)
    if found is None or not found.alive:
        raise Conflict(
            "GUEST_ENDED_AT_ONCE",
            f"{run.spec.name} was started on {run.host_name} and is not running",
            next_step="look at the VM's log on the host (/var/log/libvirt/qemu)",
        )
    if found.generation != run.generation:
        raise Superseded(
            "GENERATION_STALE",
            f"{run.spec.name} runs with generation {found.generation}, not {run.generation}",
        )
