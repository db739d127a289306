"""Steps that take a foreign guest over: read it, record it, mark it, or take both back.

The rows come first and the mark second. In between the engine knows a VM whose domain is not ours
yet, and touches it as little as any foreign one; the other way round a domain would carry a mark
that no row explains. Undoing goes the same way: first the rows, then the mark.

Invariants  The guest is never stopped, started or changed: of all calls on its host only `adopt`
            and `disown` write, and they write nothing but the mark.
            What was recorded as running is marked as running, or the import fails and is undone.
Races       A late `adopt` of a worker that was taken for dead asks for the rows again behind its
            open connection, so it marks nothing once they were taken back, as far as a host that
            cannot compare and set allows. Such a mark names its import, and harms nobody.
"""

from contextlib import AbstractAsyncContextManager
from typing import Protocol
from uuid import UUID

from pydantic import Field
from temporalio import activity

from activities.ports import Hypervisor, HypervisorSession
from domain.base import Frozen
from domain.errors import Conflict, NotFound, OutcomeUnknown
from domain.foreign import FIRST_GENERATION, ForeignGuest, refuse_unfit
from domain.operations import is_first
from domain.orders import HostRef, RunRef


class ImportStep(Frozen):
    """One step of one try of an import; the mark on the guest names its operation."""

    operation_id: UUID
    attempt: int = Field(default=1, exclude_if=is_first)
    host: HostRef
    guest_id: UUID
    name: str | None
    protected: bool
    priority: int
    deadline_s: float


class RecordOrder(Frozen):
    """Write the rows of a guest as it was read."""

    step: ImportStep
    guest: ForeignGuest


class AdoptOrder(Frozen):
    """Mark a guest that was recorded, as running or as down."""

    step: ImportStep
    running: bool


class ImportRecords(Protocol):
    """The rows of imports. Every method is one transaction, and may be repeated."""

    async def record(self, step: ImportStep, guest: ForeignGuest) -> RunRef | None:
        """Write the VM and, when the guest is alive, its run; that run.

        The VM has the guest's id and FIRST_GENERATION in either case, so that its next start
        replaces what is defined on the host; the run is `running` at the host's epoch with that
        generation, and its memory counts whether there is room or not: the guest is there. The
        VM is `wanted` as long as it runs. Done already for this operation gives the same run.
        Conflict: the id is that of a VM already, the name or an address of a card is taken, the
        guest's kind is not the cluster's, the host's epoch has moved on. Superseded: the
        operation is no longer open.
        """
        ...

    async def still_recorded(self, step: ImportStep) -> bool:
        """Whether the rows of this import are there, and its operation is open."""
        ...

    async def withdraw(self, step: ImportStep) -> bool:
        """Remove the rows again; whether the guest is (or was never more than) foreign.

        False when they belong to another owner by now, such as a recovery that has followed the
        run, or a later try: then they stay, and so does the mark. Nothing recorded, or taken back
        already: True.
        """
        ...


class Imports:
    """Read, record, adopt, withdraw."""

    def __init__(self, hypervisor: Hypervisor, records: ImportRecords) -> None:
        self._hypervisor = hypervisor
        self._records = records

    @activity.defn(name="import.read")
    async def read(self, step: ImportStep) -> ForeignGuest:
        """What the guest is; refused when it may not be taken over. Changes nothing."""
        async with self._session(step) as session:
            guest = await session.describe_foreign(step.guest_id)
        if guest is None:
            raise NotFound(
                "GUEST_NOT_FOUND",
                f"{step.host.name} knows no guest {step.guest_id}",
                next_step="list the foreign guests of the host: it may have gone meanwhile",
                host=step.host.name,
                guest=str(step.guest_id),
            )
        refuse_unfit(guest, step.operation_id, step.name)
        return guest

    @activity.defn(name="import.record")
    async def record(self, order: RecordOrder) -> RunRef | None:
        """Write the VM, and its run if it runs; repeatable."""
        return await self._records.record(order.step, order.guest)

    @activity.defn(name="import.adopt")
    async def adopt(self, order: AdoptOrder) -> str:
        """Mark the guest as ours and read it back in the state that was recorded; repeatable."""
        step = order.step
        async with self._session(step) as session:
            if not await self._records.still_recorded(step):
                raise Conflict(
                    "IMPORT_WITHDRAWN",
                    f"the import of {step.guest_id} was taken back before the guest was marked",
                    next_step="import it again",
                )
            await session.adopt(step.guest_id, FIRST_GENERATION, step.operation_id)
            await _read_back(session, order)
        return f"{'running' if order.running else 'down'} on {step.host.name}, now ours"

    @activity.defn(name="import.withdraw")
    async def withdraw(self, step: ImportStep) -> str:
        """Take the rows back, then the mark; repeatable. The guest is left as it was found."""
        if not await self._records.withdraw(step):
            return "left to its new owner"
        async with self._session(step) as session:
            # Asked again behind the open connection: a next try may have marked it since.
            if not await self._records.withdraw(step):
                return "left to its new owner"
            await session.disown(step.guest_id, step.operation_id)
        return f"left on {step.host.name} as it was found"

    def _session(self, step: ImportStep) -> AbstractAsyncContextManager[HypervisorSession]:
        return self._hypervisor.session(step.host.uri, step.deadline_s)


async def _read_back(session: HypervisorSession, order: AdoptOrder) -> None:
    step = order.step
    found = await session.lookup(step.guest_id)
    if found is None or found.alive != order.running:
        was, now = ("running", "down") if order.running else ("down", "running")
        raise Conflict(
            "GUEST_CHANGED",
            f"the guest {step.guest_id} was {was} when it was recorded and is "
            f"{'gone' if found is None else now}",
            next_step="import it again as it is now",
            guest=str(step.guest_id),
        )
    if found.generation != FIRST_GENERATION:
        raise OutcomeUnknown(
            "READ_BACK_DIFFERS",
            f"{found.name} was marked with generation {FIRST_GENERATION} and reads "
            f"{found.generation}",
            next_step="read its metadata before trying again",
        )
