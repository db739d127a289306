"""Steps that make a VM's one living copy its run, on the host to which somebody moved it by hand.

First the copy is marked as one of a newer run, then the books follow it: in between it is still a
copy that the books do not know, and whatever ends it or adopts it later finds it as it was. Both
hosts are read before the mark, and once more before the books change, over connections that stay
open until they have. The host that the VM left forgets it last, for ever: a late `create()` of the
old run then finds nothing to start there, and an adoption that is refused has thrown nothing away.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Protocol

from temporalio import activity

from activities.ports import Hypervisor, HypervisorSession
from activities.stray_copies import CopyStep, still_there
from activities.vm_recovery import read_own
from domain.base import Frozen
from domain.errors import Conflict, NoAnswer, OutcomeUnknown, Superseded
from domain.orders import HostRef, RunRef
from domain.readings import Domain
from domain.stray_copies import CopyFacts, refuse_adoption


class Adoption(Frozen):
    """A copy with the mark that it was read with, and the generation that it is to have."""

    step: CopyStep
    found: int
    generation: int


class Standing(Frozen):
    """What the books say: the VM's newest generation, further hosts whose last poll shows it, and
    why the host of the copy may not have it, or nothing."""

    newest: int
    elsewhere: tuple[str, ...] = ()
    no_room: str = ""


class AdoptionRecords(Protocol):
    """The rows behind these steps. Every method is one transaction, and repeatable."""

    async def standing(self, step: CopyStep) -> Standing:
        """What the books say, while the VM's run is the one that was ordered.

        `elsewhere` without the two hosts that are read. Superseded once the run moved on or the
        operation lost the VM.
        """
        ...

    async def next_generation(self, step: CopyStep) -> int:
        """Take the VM's next generation; one that is taken and not used is only skipped.

        Superseded as for `standing`.
        """
        ...

    async def is_adopted(self, adoption: Adoption) -> bool:
        """Whether an earlier try of this operation has changed the books already."""
        ...

    async def adopted(self, adoption: Adoption) -> None:
        """End the run, begin the new one where the copy lives, and tell of it.

        Superseded as for `standing`; Conflict where one of the hosts is not in service any more, or
        that of the copy may not have it.
        """
        ...


class Adoptions:
    """Read, number, mark, record, forget."""

    def __init__(self, hypervisor: Hypervisor, records: AdoptionRecords) -> None:
        self._hypervisor = hypervisor
        self._records = records

    @activity.defn(name="adoption.read")
    async def read(self, step: CopyStep) -> int:
        """Read both hosts; the copy's generation. Changes nothing; refused unless it is the one."""
        async with self._both(step) as (own, there):
            copy = await self._read(step, own, there)
        assert copy.generation is not None
        return copy.generation

    @activity.defn(name="adoption.number")
    async def number(self, step: CopyStep) -> int:
        """Take the generation that the copy is to have; repeating it skips one."""
        return await self._records.next_generation(step)

    @activity.defn(name="adoption.mark")
    async def mark(self, adoption: Adoption) -> None:
        """Mark the copy that was read as one of the new run, and read that back; repeatable."""
        step = adoption.step
        async with self._both(step) as (own, there):
            # Behind the open connections, for the last time before anything is changed.
            copy = await self._read(step, own, there)
            if copy.generation not in (adoption.found, adoption.generation):
                raise _changed(adoption, copy)  # by a late step of an adoption that was given up
            try:
                await there.renew_mark(step.vm_id, adoption.found, adoption.generation)
            except Conflict as error:
                if error.code != "DOMAIN_RUNNING_OLDER":
                    raise
                # Its next step is that of a start: to destroy what may be the only copy.
                raise _changed(adoption, await self._read(step, own, there)) from error
            _read_back(adoption, await there.lookup(step.vm_id))

    @activity.defn(name="adoption.record")
    async def record(self, adoption: Adoption) -> None:
        """Let the books follow the copy that was marked; repeatable."""
        step = adoption.step
        if await self._records.is_adopted(adoption):
            return
        async with self._both(step) as (own, there):
            copy = await self._read(step, own, there)
            if copy.generation != adoption.generation:
                raise _changed(adoption, copy)
            await self._records.adopted(adoption)

    @activity.defn(name="adoption.forget")
    async def forget(self, adoption: Adoption) -> None:
        """Take the definition away that the VM has left behind, and read back that; repeatable."""
        step, run = adoption.step, _run(adoption.step)
        async with self._hypervisor.session(run.uri, step.deadline_s) as own:
            left = await read_own(own, run)
            if left is not None and left.alive:
                raise _runs_again(step, left)
            await own.undefine(step.vm_id, run.generation)
            left = await own.lookup(step.vm_id)
            if left is not None:
                raise still_there(step.vm_name, run.host_name, left)

    async def _read(
        self, step: CopyStep, own: HypervisorSession, there: HypervisorSession
    ) -> Domain:
        """The copy, read after the host that it left: one that is gone there had left before."""
        run = _run(step)
        kept = await read_own(own, run)
        await _refuse_other_boot(there, step.host)
        copy = await there.lookup(step.vm_id)
        leaves = await there.migration(step.vm_id) is not None
        standing = await self._records.standing(step)
        facts = CopyFacts(
            vm=step.vm_name,
            host=step.host.name,
            there=copy,
            newest=standing.newest,
            own_host=run.host_name,
            own=kept,
            run_generation=run.generation,
            leaves=leaves,
            elsewhere=standing.elsewhere,
            no_room=standing.no_room,
        )
        refusal = refuse_adoption(facts)
        if refusal is not None:
            raise refusal
        assert copy is not None
        return copy

    @asynccontextmanager
    async def _both(
        self, step: CopyStep
    ) -> AsyncIterator[tuple[HypervisorSession, HypervisorSession]]:
        """Sessions on the host that the VM left and on that of the copy; NoAnswer from either."""
        async with AsyncExitStack() as stack:
            own = await self._opened(stack, step, _run(step).uri, _run(step).host_name)
            there = await self._opened(stack, step, step.host.uri, step.host.name)
            yield own, there

    async def _opened(
        self, stack: AsyncExitStack, step: CopyStep, uri: str, host: str
    ) -> HypervisorSession:
        try:
            return await stack.enter_async_context(self._hypervisor.session(uri, step.deadline_s))
        except NoAnswer as error:
            raise NoAnswer(
                "HOST_NOT_READ",
                f"{host} cannot be read, so that nobody knows where {step.vm_name} lives: "
                f"{error.detail}",
                next_step=f"settle {host} first (`holdfast incident list`), then adopt it",
                vm=step.vm_name,
                host=host,
            ) from error


def _run(step: CopyStep) -> RunRef:
    assert step.run is not None
    return step.run


async def _refuse_other_boot(session: HypervisorSession, host: HostRef) -> None:
    mark = await session.boot_mark()
    if mark != host.epoch:
        raise Superseded(
            "SUPERSEDED",
            f"{host.name} is marked with epoch {mark}, and was in epoch {host.epoch} when the "
            "adoption was ordered",
            next_step="the host is reconciled by itself; look at the VM after that",
            host=host.name,
        )


def _read_back(adoption: Adoption, copy: Domain | None) -> None:
    """OutcomeUnknown unless the copy lives with the new mark."""
    read = None if copy is None or not copy.alive else copy.generation
    if read != adoption.generation:
        step = adoption.step
        raise OutcomeUnknown(
            "READ_BACK_DIFFERS",
            f"the copy of {step.vm_name} on {step.host.name} was marked with generation "
            f"{adoption.generation} and reads {read}",
            next_step="look at that host: somebody else is at work on the copy",
        )


def _changed(adoption: Adoption, copy: Domain) -> Conflict:
    step = adoption.step
    return Conflict(
        "COPY_CHANGED",
        f"the copy of {step.vm_name} on {step.host.name} was marked with generation "
        f"{adoption.generation} and reads {copy.generation}",
        next_step="find out who is at work on it, then adopt it again",
        vm=step.vm_name,
        host=step.host.name,
    )


def _runs_again(step: CopyStep, left: Domain) -> Conflict:
    where = _run(step).host_name
    return Conflict(
        "COPY_RUNS_AGAIN",
        f"{step.vm_name} is {left.state} on {where} again, with generation {left.generation}",
        next_step=f"`holdfast vm end-copy {step.vm_name} --host {where}` ends it there",
        vm=step.vm_name,
        host=where,
    )
