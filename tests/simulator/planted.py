"""Bugs to be planted, each a patch of the product, and the seeds that have to find it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection
from temporalio import activity

from activities import fencing, power
from activities import recovery as activity_recovery
from activities.fencing import FenceStep, Fencing
from activities.guests import GuestOrder, Guests, PlaceOrder
from activities.hosts import CopyVerdict
from activities.recovery import AssessOrder, Recovery, SeenVote
from domain import recovery as domain_recovery
from domain import storm
from domain.errors import Unavailable
from domain.inventory import HostState, PowerReading
from domain.migration import MigrationFacts, Side, Verdict, settle
from domain.orders import Evidence, HostRef, Placement
from domain.readings import Domain
from domain.storm import FenceFacts, Held, Vote
from engine.actions.base import Plan as ActionPlan
from engine.actions.base import Problems, Tx
from engine.actions.hosts import (
    HostFacts,
    RecoverHost,
    RecoverHostAction,
    host_facts,
    host_target,
)
from engine.records.hosts import HostRecords
from engine.records.operations import OperationRecords
from engine.records.runs import RunRecords
from simulator import next_release
from simulator.faults.plan import Plan
from simulator.report import Report
from simulator.setup import Setup
from simulator.world.daemon import Daemon
from simulator.world.host import VirtualDomain
from store import fence_claims, incidents, licences, locks, runs
from store.prebuilt import prebuilt
from store.rows import Row
from tests.simulator.families import (
    disarmed,
    isolated,
    late_create,
    late_cut,
    late_destroy,
    lost_answer,
    moved_while_cut_off,
    one_outlet,
    power_cut,
    rebooted,
    reported_twice,
    two_isolated,
    unheard,
    upgraded,
    voided,
)
from worker.guest_watch import GuestWatch
from worker.reports import Reports

Patch = Callable[[pytest.MonkeyPatch], None]
Family = Callable[[int], tuple[Setup, Plan]]


@dataclass(frozen=True)
class Bug:
    """A patch, where it shows, and how many seeds may pass until it is caught.

    known   the seed that catches it today, tried first
    shows   the checks that are to see it, or the code with which the database's refusal of it is
            told; a defect counts, too
    """

    plant: Patch
    family: Family
    within: int
    known: int
    shows: tuple[str, ...]

    def __str__(self) -> str:
        return self.plant.__name__

    def caught(self, report: Report) -> bool:
        """Whether a run shows it."""
        codes = (told.rpartition(" ")[2] for told in report.refused)
        seen = (*(found.check for found in report.violations), *codes)
        return bool(report.defects) or any(each in self.shows for each in seen)


def no_read_back(patch: pytest.MonkeyPatch) -> None:
    """A power controller that took the command is believed: nothing is read afterwards."""

    class Credulous(Fencing):
        @activity.defn(name="fencing.read_back")
        async def read_back(self, step: FenceStep) -> tuple[Evidence, ...]:
            at = self._now().isoformat()
            return tuple(
                Evidence(device=device.name, verdict=PowerReading.OFF, took_s=0.0, at=at)
                for device in await self._devices(step)
            )

    patch.setattr(Fencing, "read_back", Credulous.read_back)


def no_certificate_check(patch: pytest.MonkeyPatch) -> None:
    """A start does not ask whether the certificate that licenses it is still valid."""

    async def licensed(_connection: AsyncConnection, _run: Row) -> bool:
        return True

    patch.setattr(licences, "licensed", licensed)


def no_generation_check(patch: pytest.MonkeyPatch) -> None:
    """Whoever drives a host's libvirtd does not compare generations before it touches a domain.

    No monitor looks for guests that ended: it would start again what was destroyed.
    """

    def touchable(self: Daemon, vm_id: UUID, _generation: int) -> VirtualDomain | None:
        return self._host.domains.get(vm_id)

    async def unseen(*_given: Any) -> None:
        return None

    patch.setattr(Daemon, "_touchable", touchable)
    patch.setattr(GuestWatch, "compare", unseen)


def no_epoch_check(patch: pytest.MonkeyPatch) -> None:
    """The monitor does not compare the epoch that a boot is marked with with the host's."""

    async def rebooted(*_given: Any) -> None:
        return None

    patch.setattr(Reports, "rebooted", rebooted)


def double_recovery(patch: pytest.MonkeyPatch) -> None:
    """A second report of a failure looks for no open incident and takes no lock."""

    async def accepted(
        _self: RecoverHostAction, tx: Tx, params: RecoverHost, _problems: Problems
    ) -> ActionPlan[HostFacts]:
        facts = await host_facts(tx, params.host_id)
        state = HostState(facts.host["state"])
        return ActionPlan(target=host_target(facts.host), facts=facts, state=state)

    patch.setattr(RecoverHostAction, "plan", accepted)


def lock_freed_early(patch: pytest.MonkeyPatch) -> None:
    """An operation's locks are freed when its workflow begins, not when it ends."""
    claim = OperationRecords.claim

    async def early(self: OperationRecords, operation_id: UUID, attempt: int, run_id: str) -> None:
        await claim(self, operation_id, attempt, run_id)
        await self._database.write(lambda connection: locks.free(connection, operation_id))

    patch.setattr(OperationRecords, "claim", early)


def age_by_wall_clock(patch: pytest.MonkeyPatch) -> None:
    """A vote is fresh when its row is recent, though its sequence did not change."""

    async def votes(
        self: Recovery, order: AssessOrder, known: tuple[SeenVote, ...], *, wait: bool
    ) -> tuple[Vote, ...]:
        return tuple(
            Vote(
                monitor=vote.monitor,
                fresh=vote.live,
                silent=vote.silent,
                silent_s=vote.silent_s,
                others_seen=vote.others_seen,
                warm=vote.warm,
                assigned=vote.assigned,
            )
            for vote in known
        )

    patch.setattr(Recovery, "_votes", votes)


def missing_vote_is_silence(patch: pytest.MonkeyPatch) -> None:
    """A monitor that gives no fresh vote is counted as one that hears nothing."""
    judge = storm._votes

    def counted(facts: FenceFacts) -> tuple[Held, ...]:
        silent = {"fresh": True, "silent": True}
        votes = tuple(v if v.fresh else v.model_copy(update=silent) for v in facts.votes)
        return judge(facts.model_copy(update={"votes": votes}))

    patch.setattr(storm, "_votes", counted)


def reconnects_before_create(patch: pytest.MonkeyPatch) -> None:
    """A `create()` without an answer is sent again on a new connection, under the same claim."""

    class Reconnecting(Guests):
        @activity.defn(name="guest.start")
        async def start(self, order: GuestOrder) -> str:
            wanted = (order.run.spec.vm_id, order.run.generation)
            async with self._session(order) as session:
                await self._runs.begin_start(order.run)
                try:
                    await session.create(*wanted)
                except Unavailable:
                    async with self._session(order) as again:
                        await again.create(*wanted)
                await self._runs.started(order.run)
            return "running"

    patch.setattr(Guests, "start", Reconnecting.start)


def reconcile_skips_stale_copies(patch: pytest.MonkeyPatch) -> None:
    """Reconciling leaves copies alone whose run has moved on."""
    judge = HostRecords.judge_copies

    async def kept(
        self: HostRecords, host: HostRef, domains: tuple[Domain, ...]
    ) -> tuple[CopyVerdict, ...]:
        return tuple(v for v in await judge(self, host, domains) if v.keep)

    patch.setattr(HostRecords, "judge_copies", kept)


def claim_ignores_armed(patch: pytest.MonkeyPatch) -> None:
    """The claim of a fence takes every cluster for armed."""
    claim = fence_claims.claim_fence

    async def always(connection: AsyncConnection, *given: Any, **more: Any) -> bool:
        was = (await connection.exec_driver_sql("SELECT id, armed FROM cluster")).all()
        await connection.exec_driver_sql("UPDATE cluster SET armed = 1")
        claimed = await claim(connection, *given, **more)
        again = "UPDATE cluster SET armed = ? WHERE id = ?"
        for row in was:
            await connection.exec_driver_sql(again, (row.armed, row.id))
        return claimed

    patch.setattr(fence_claims, "claim_fence", always)


def budget_ignored(patch: pytest.MonkeyPatch) -> None:
    """Neither the decision nor the claim of a fence counts the fences of the window."""
    patch.setattr(fence_claims, "has_room", sa.true)
    patch.setattr(storm, "_budget", lambda *_given: ())


def lost_answer_starts_again(patch: pytest.MonkeyPatch) -> None:
    """A step whose answer was lost places its VM under a new id: it does not look for its run."""
    place = RunRecords.place
    look = runs.active_run
    again = False

    async def nothing(connection: AsyncConnection, vm_id: UUID) -> Row | None:
        return None if again else await look(connection, vm_id)

    async def blind(self: RunRecords, order: PlaceOrder) -> Placement:
        nonlocal again
        again = True
        try:
            return await place(self, order)
        finally:
            again = False

    patch.setattr(runs, "active_run", nothing)
    patch.setattr(RunRecords, "place", blind)


def late_cut_is_accepted(patch: pytest.MonkeyPatch) -> None:
    """A step that wakes up late claims its fence whether the host was heard since or not."""
    for place in (incidents, fence_claims):
        patch.setattr(place, "heard_since", lambda *_given: sa.false())
    patch.setattr(fence_claims, "still_silent", lambda *_given: sa.true())
    stands: Any = incidents._stands
    patch.setattr(incidents, "_stands", prebuilt(stands.__wrapped__))  # built anew, with that


def silent_host_counts_as_read(patch: pytest.MonkeyPatch) -> None:
    """A host of a migration that cannot be read is taken for one without the guest."""

    def credulous(facts: MigrationFacts) -> Verdict:
        sides = {"source": facts.source, "target": facts.target}
        read = {k: Side.GONE if side is Side.SILENT else side for k, side in sides.items()}
        return settle(facts.model_copy(update=read))

    patch.setattr("activities.migrating.settle", credulous)


def change_without_a_patch(patch: pytest.MonkeyPatch) -> None:
    """The next release adds steps to workflows, and runs that began without them are not asked."""
    patch.setattr(next_release, "patched", lambda _change: True)


def one_device_of_a_level_is_enough(patch: pytest.MonkeyPatch) -> None:
    """A level of which one device reads off counts as read off: the other outlet feeds the host."""

    def lenient(readings: Iterable[tuple[int, PowerReading]], proofs: int = 1) -> int | None:
        off = [level for level, word in readings if word is PowerReading.OFF]
        return min(off, default=None) if len(off) >= proofs else None

    for user in (fencing, power, domain_recovery, activity_recovery):
        patch.setattr(user, "proven_level", lenient)


BUGS = (
    Bug(no_read_back, isolated, 5, 1, ("certified_dead",)),
    Bug(no_certificate_check, voided, 10, 1, ("proof_of_start",)),
    Bug(no_generation_check, late_destroy, 30, 2, ("every_running_run_has_its_copy", "liveness")),
    Bug(no_epoch_check, rebooted, 5, 1, ("explained", "liveness")),
    Bug(double_recovery, reported_twice, 5, 1, ("DATABASE_BUSY",)),
    Bug(lock_freed_early, power_cut, 5, 1, ("who_works_holds_its_lock",)),
    Bug(age_by_wall_clock, unheard, 5, 1, ("votes",)),
    Bug(missing_vote_is_silence, unheard, 5, 1, ("votes",)),
    Bug(reconnects_before_create, late_create, 30, 1, ("one_copy",)),
    Bug(reconcile_skips_stale_copies, power_cut, 5, 1, ("stale_copy",)),
    Bug(claim_ignores_armed, disarmed, 10, 1, ("disarmed",)),
    Bug(budget_ignored, two_isolated, 10, 1, ("fence_budget",)),
    Bug(lost_answer_starts_again, lost_answer, 10, 1, ("explained", "liveness")),
    Bug(late_cut_is_accepted, late_cut, 20, 1, ("heard",)),
    Bug(one_device_of_a_level_is_enough, one_outlet, 5, 1, ("certified_dead",)),
    Bug(silent_host_counts_as_read, moved_while_cut_off, 10, 1, ("closed_alive", "one_copy")),
    Bug(change_without_a_patch, upgraded, 5, 1, ("NonDeterminism",)),
)
