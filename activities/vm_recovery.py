"""Steps on a VM whose guest is not running any more: look, close its run, have it started again.

Nothing is believed but a reading of the guest's own host, over one connection, in the boot that the
run belongs to. Closing takes the definition away first and reads back that the host knows nothing
of the VM any more: a late `create()` of this run, by a worker that stood still, then finds nothing
to start. What was read is decided on in `domain.ended_guests`.
"""

from contextlib import AbstractAsyncContextManager
from typing import Protocol
from uuid import UUID

from pydantic import Field
from temporalio import activity

from activities.ports import Hypervisor, HypervisorSession
from domain.base import Frozen
from domain.ended_guests import EndedGuest, NextMove, Verdict, judge
from domain.errors import Conflict, OutcomeUnknown, Superseded, Unavailable
from domain.explain import Explanation
from domain.explain_guests import Trouble, explain_alive, explain_verdict
from domain.hung_guests import judge_hung
from domain.operations import is_first
from domain.orders import RunRef
from domain.paused_guests import judge_paused
from domain.readings import AgentState, Domain, DomainState, StateReason

ASKED_AFRESH = 2
"""How often a silent agent is asked again before its guest is ended, 5 s each. Higher: a hung guest
is ended later. Lower: one late answer costs a guest that was coming to."""


class ExamineOrder(Frozen):
    """Look at the guest of one run, on behalf of one try of an operation."""

    operation_id: UUID
    attempt: int = Field(default=1, exclude_if=is_first)
    run: RunRef
    deadline_s: float
    closed: bool = False  # the run is closed: its host is not asked any more
    paused_s: float = 0.0  # for how long it was seen paused
    hung: bool = Field(default=False, exclude_if=lambda hung: not hung)  # its agent was silent


class SettleOrder(Frozen):
    """Close a run as was decided, and have its VM started again where that was decided."""

    examine: ExamineOrder
    verdict: Verdict


class Settled(Frozen):
    """What came of it. `start_id` is the operation that starts the VM again.

    runs_after_all  nothing was touched, and the run is open; `why` where that is known
    """

    runs_after_all: bool = False
    start_id: UUID | None = None
    why: str = Field(default="", exclude_if=lambda why: not why)


class VmRecoveryRecords(Protocol):
    """The rows behind these steps. Every method is one transaction, and repeatable."""

    async def facts(self, order: ExamineOrder, reason: StateReason | None) -> EndedGuest:
        """What the VM is to the engine, given why its guest ended (None: the domain is gone).

        Superseded once the run moved on or the operation lost the VM.
        """
        ...

    async def note_paused(self, order: ExamineOrder, reason: StateReason | None) -> None:
        """Keep on the run why its guest is paused, or that it is not."""
        ...

    async def note_decision(self, order: ExamineOrder, told: Explanation) -> None:
        """Keep with the operation why this was decided; the same again is counted."""
        ...

    async def ordered(self, operation_id: UUID) -> UUID | None:
        """The start that an earlier try of a step has ordered, whose VM is not ours any more."""
        ...

    async def settle(self, order: SettleOrder) -> UUID | None:
        """Close the run and order what was decided; the operation that starts the VM again.

        Superseded as for `facts`; Conflict (DISARMED) while automatic action is switched off.
        """
        ...


class VmRecovery:
    """Look, settle."""

    def __init__(self, hypervisor: Hypervisor, records: VmRecoveryRecords) -> None:
        self._hypervisor = hypervisor
        self._records = records

    @activity.defn(name="vm.examine")
    async def examine(self, order: ExamineOrder) -> Verdict:
        """Read the guest where it should run, and decide; noted is why, and that it is paused."""
        if order.closed:
            return await self._judge_ended(order, None)
        async with self._session(order) as session:
            found = await read_own(session, order.run)
            hangs = order.hung and await _hangs(session, order.run, found)
        if found is not None and found.alive:
            return await self._judge_alive(order, found, hangs=hangs)
        return await self._judge_ended(order, found.reason if found else None)

    async def _judge_ended(self, order: ExamineOrder, reason: StateReason | None) -> Verdict:
        facts = await self._records.facts(order, reason)
        verdict = judge(facts)
        told = explain_verdict(facts, verdict, Trouble.ENDED)
        await self._note(order, told)
        return verdict

    async def _judge_alive(self, order: ExamineOrder, found: Domain, *, hangs: bool) -> Verdict:
        paused = _is_paused(order.run, found)
        await self._records.note_paused(order, found.reason if paused else None)
        if not (hangs or paused):
            return await self._runs_after_all(order)
        facts = await self._records.facts(order, found.reason)
        return await self._judge_stuck(order, facts, hangs=hangs)

    async def _judge_stuck(self, order: ExamineOrder, facts: EndedGuest, *, hangs: bool) -> Verdict:
        verdict = judge_hung(facts) if hangs else judge_paused(facts, order.paused_s)
        trouble = Trouble.HUNG if hangs else Trouble.PAUSED
        told = explain_verdict(facts, verdict, trouble, order.paused_s)
        await self._note(order, told)
        return verdict

    async def _runs_after_all(self, order: ExamineOrder) -> Verdict:
        verdict = _alive(order)
        await self._note(order, explain_alive(verdict))
        return verdict

    async def _note(self, order: ExamineOrder, told: Explanation) -> None:
        """Keep why it came out so; a restart does not wait until that can be written."""
        try:
            await self._records.note_decision(order, told)
        except (Unavailable, OutcomeUnknown) as error:
            activity.logger.warning("decision not kept", extra={"code": error.code})

    @activity.defn(name="vm.resume")
    async def resume(self, order: ExamineOrder) -> bool:
        """Let a paused guest go on; whether it still runs when it is read back."""
        run = order.run
        async with self._session(order) as session:
            found = await read_own(session, run)
            if found is None or not found.alive:
                return False
            await session.resume(run.spec.vm_id, run.generation)
            found = await read_own(session, run)
        goes_on = found is not None and found.alive and not _is_paused(run, found)
        if goes_on:
            await self._records.note_paused(order, None)
        return goes_on

    @activity.defn(name="vm.settle")
    async def settle(self, order: SettleOrder) -> Settled:
        """Take the definition away, read back that nothing is left, and close the run."""
        run = order.examine.run
        if order.verdict.move not in (NextMove.CLOSE, NextMove.RESTART, NextMove.LATER):
            raise Conflict("NOTHING_TO_SETTLE", f"{run.spec.name}: {order.verdict.why}")
        done = await self._records.ordered(order.examine.operation_id)
        if done is not None:
            return Settled(start_id=done)
        async with self._session(order.examine) as session:
            found = await read_own(session, run)
            if found is not None and found.alive:
                if not await _may_end(session, order, found):
                    await self._runs_after_all(order.examine)
                    return Settled(runs_after_all=True)
                # Behind the open connection, too: what holds it back must not find it ended.
                spared = await self._spared(order, found)
                if spared is not None:
                    return Settled(runs_after_all=True, why=spared)
                await session.destroy(run.spec.vm_id, run.generation)
                found = await read_own(session, run)
            # Asked behind the open connection, for the last time before anything is changed.
            facts = await self._records.facts(order.examine, found.reason if found else None)
            _refuse_held(judge(facts))
            await session.undefine(run.spec.vm_id, run.generation)
            await _read_back_gone(session, run)
        return Settled(start_id=await self._records.settle(order))

    async def _spared(self, order: SettleOrder, found: Domain) -> str | None:
        """Why a guest is not ended after all: its policy and its VM's, as they are by now."""
        examine = order.examine
        facts = await self._records.facts(examine, found.reason)
        paused = _is_paused(examine.run, found)
        now = judge_paused(facts, examine.paused_s) if paused else judge_hung(facts)
        _refuse_held(now)
        if now.kill:  # noted already, and nothing is to lie between this reading and the end
            return None
        trouble = Trouble.PAUSED if paused else Trouble.HUNG
        told = explain_verdict(facts, now, trouble, examine.paused_s)
        await self._note(examine, told)
        return now.why

    @activity.defn(name="vm.restart")
    async def restart(self, order: SettleOrder) -> Settled:
        """Have a VM whose run is closed started again; repeatable."""
        return Settled(start_id=await self._records.settle(order))

    def _session(self, order: ExamineOrder) -> AbstractAsyncContextManager[HypervisorSession]:
        return self._hypervisor.session(order.run.uri, order.deadline_s)


async def read_own(session: HypervisorSession, run: RunRef) -> Domain | None:
    """What a run's host has of its VM; Superseded in another boot than the run's own."""
    mark = await session.boot_mark()
    if mark != run.epoch:
        raise Superseded(
            "SUPERSEDED",
            f"{run.host_name} is marked with epoch {mark}, {run.spec.name} ran there in epoch "
            f"{run.epoch}: what its host says now is about another boot",
            next_step="the host is reconciled by itself; look at the VM after that",
            vm=run.spec.name,
        )
    return await session.lookup(run.spec.vm_id)


async def _read_back_gone(session: HypervisorSession, run: RunRef) -> None:
    left = await session.lookup(run.spec.vm_id)
    if left is not None:
        raise OutcomeUnknown(
            "GUEST_STILL_THERE",
            f"{run.spec.name} is still known to {run.host_name} ({left.state}) after its "
            "definition was taken away",
            next_step="look at the host's libvirtd log",
        )


def _refuse_held(verdict: Verdict) -> None:
    """What was decided may be out of date by now."""
    if verdict.move is NextMove.HOLD:
        raise Conflict(verdict.code, verdict.why, next_step="it is looked at again by itself")


def _is_paused(run: RunRef, found: Domain) -> bool:
    """Whether it is this run's guest, and QEMU has paused it by itself."""
    paused = found.state is DomainState.PAUSED and found.reason is StateReason.IO_ERROR
    return paused and found.generation == run.generation


async def _may_end(session: HypervisorSession, order: SettleOrder, found: Domain) -> bool:
    """Whether a guest that is alive is to be ended: it is as bad as when that was decided."""
    if not order.verdict.kill:
        return False
    run = order.examine.run
    if _is_paused(run, found):
        return True
    return order.examine.hung and await _hangs(session, run, found)


async def _hangs(session: HypervisorSession, run: RunRef, found: Domain | None) -> bool:
    """Whether this run's guest runs and its agent stays silent, however often it is asked."""
    if found is None or found.state is not DomainState.RUNNING:
        return False
    if found.generation != run.generation:
        return False
    for _ in range(ASKED_AFRESH):
        if await session.ask_agent(run.spec.vm_id) is not AgentState.SILENT:
            return False
    return True


def _alive(order: ExamineOrder) -> Verdict:
    run = order.run
    why = f"{run.spec.name} runs on {run.host_name} after all"
    if order.hung:
        why = f"{why}: its guest agent answers, or its guest has closed it"
    return Verdict(move=NextMove.NOTHING, why=why)
