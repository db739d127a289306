"""Steps that end a copy of a VM on a host where it should not run, by a person's word.

Both hosts are read, and read again just before anything is ended. What is destroyed is the copy
with the mark that was read: one that was started there meanwhile has a newer one, and the host
refuses. The copy is read back as gone before its definition is taken away.
"""

from contextlib import AbstractAsyncContextManager
from typing import Protocol
from uuid import UUID

from pydantic import Field
from temporalio import activity

from activities.ports import Hypervisor, HypervisorSession
from activities.vm_recovery import read_own
from domain.base import Frozen
from domain.errors import Conflict, OutcomeUnknown
from domain.operations import is_first
from domain.orders import HostRef, RunRef
from domain.readings import Domain
from domain.stray_copies import CopyFacts, refuse_copy


class CopyStep(Frozen):
    """One step of one try of an operation on a copy; `run` is where its VM should run."""

    operation_id: UUID
    attempt: int = Field(default=1, exclude_if=is_first)
    vm_id: UUID
    vm_name: str
    host: HostRef
    run: RunRef | None
    last_copy: bool = False
    deadline_s: float


class FoundCopy(Frozen):
    """A copy as it was read. `last`: the VM was not read as running on its own host."""

    generation: int
    last: bool


class EndCopyStep(Frozen):
    """End, forget or record the copy that was found."""

    step: CopyStep
    found: FoundCopy


class StrayCopyRecords(Protocol):
    """The rows behind these steps. Every method is one transaction, and repeatable."""

    async def newest_generation(self, step: CopyStep) -> int:
        """The newest generation of the VM, whose run is still the one that was ordered.

        Superseded once the run moved on or the operation lost the VM.
        """
        ...

    async def ended(self, order: EndCopyStep, *, closes: bool) -> None:
        """Tell that the copy is gone; `closes`: and that the VM is down, its own host read too.

        Superseded as for `newest_generation`.
        """
        ...


class StrayCopies:
    """Read, end, forget, record."""

    def __init__(self, hypervisor: Hypervisor, records: StrayCopyRecords) -> None:
        self._hypervisor = hypervisor
        self._records = records

    @activity.defn(name="copy.read")
    async def read(self, step: CopyStep) -> FoundCopy:
        """Read both hosts; refused where the copy may not be ended. Changes nothing."""
        async with self._session(step) as session:
            copy = await session.lookup(step.vm_id)
            facts = await self._facts(step, copy)
        refusal = refuse_copy(facts)
        if refusal is not None:
            raise refusal
        assert copy is not None
        assert copy.generation is not None
        return FoundCopy(generation=copy.generation, last=not facts.own_runs)

    @activity.defn(name="copy.end")
    async def end(self, order: EndCopyStep) -> str:
        """Destroy the copy that was read, and read back that it does not run; repeatable."""
        step, found = order.step, order.found
        async with self._session(step) as session:
            copy = await session.lookup(step.vm_id)
            if copy is None or not copy.alive:
                return f"does not run on {step.host.name} any more"
            # Behind the open connection, for the last time before anything is changed.
            refusal = refuse_copy(await self._facts(step, copy))
            if refusal is not None:
                raise refusal
            await session.destroy(step.vm_id, found.generation)
            left = await session.lookup(step.vm_id)
            if left is not None and left.alive:
                raise still_there(step.vm_name, step.host.name, left, after="destroy")
        return f"ended on {step.host.name}"

    @activity.defn(name="copy.forget")
    async def forget(self, order: EndCopyStep) -> None:
        """Take the definition of the ended copy away, and read back that; repeatable."""
        step = order.step
        async with self._session(step) as session:
            await _forget(session, step, order.found.generation)

    @activity.defn(name="copy.record")
    async def record(self, order: EndCopyStep) -> bool:
        """Tell of it, and close the run of a VM that has no copy left; whether it is down now."""
        closes = order.found.last and await self._left_nothing(order.step)
        await self._records.ended(order, closes=closes)
        return closes

    async def _facts(self, step: CopyStep, copy: Domain | None) -> CopyFacts:
        newest = await self._records.newest_generation(step)
        own, run = None, step.run
        if run is not None:
            async with self._hypervisor.session(run.uri, step.deadline_s) as session:
                own = await read_own(session, run)
        return CopyFacts(
            vm=step.vm_name,
            host=step.host.name,
            there=copy,
            newest=newest,
            own_host=None if run is None else run.host_name,
            own=own,
            run_generation=None if run is None else run.generation,
            may_end_last=step.last_copy,
        )

    async def _left_nothing(self, step: CopyStep) -> bool:
        """Leave a late `create()` of the VM's own run nothing to start; False if it runs there."""
        run = step.run
        if run is None:
            return True
        async with self._hypervisor.session(run.uri, step.deadline_s) as session:
            own = await read_own(session, run)
            if own is not None and own.alive:
                return False
            await session.undefine(step.vm_id, run.generation)
            left = await session.lookup(step.vm_id)
            if left is not None:
                raise still_there(step.vm_name, run.host_name, left)
        return True

    def _session(self, step: CopyStep) -> AbstractAsyncContextManager[HypervisorSession]:
        return self._hypervisor.session(step.host.uri, step.deadline_s)


async def _forget(session: HypervisorSession, step: CopyStep, generation: int) -> None:
    found = await session.lookup(step.vm_id)
    if found is not None and found.alive:
        raise Conflict(
            "COPY_RUNS_AGAIN",
            f"the copy of {step.vm_name} on {step.host.name} was ended and runs again with "
            f"generation {found.generation}",
            next_step="find out who started it, then end it again",
            vm=step.vm_name,
            host=step.host.name,
        )
    await session.undefine(step.vm_id, generation)
    left = await session.lookup(step.vm_id)
    if left is not None:
        raise still_there(step.vm_name, step.host.name, left)


def still_there(
    vm: str, host: str, left: Domain, after: str = "its definition was taken away"
) -> OutcomeUnknown:
    """The error for a copy that reads back as known to a host that was told to forget it."""
    return OutcomeUnknown(
        "GUEST_STILL_THERE",
        f"{vm} is still known to {host} ({left.state}) after {after}",
        next_step="look at the host's libvirtd log",
    )
