"""Steps of a recovery: judge the failure, claim its victims, report.

The decision itself is `domain.recovery.decide`; this file only gathers its facts. A vote counts as
fresh when the monitor's sequence number changes while we look, measured on our own clock: an old
row, however recent its time stamp claims to be, is not a vote.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol
from uuid import UUID

from temporalio import activity

from activities.waiting import until
from domain.base import Frozen
from domain.explain import Explanation, explain_move
from domain.inventory import PowerReading
from domain.operations import Outcome
from domain.orders import Evidence, HostRef, RestartPlan
from domain.profiles import Policy
from domain.recovery import Decision, RecoveryFacts, decide
from domain.storm import FenceFacts, Vote, answered, silent_for, speaking
from domain.topology import proven_level


class AssessOrder(Frozen):
    """Judge one incident, given what the power controllers just said."""

    operation_id: UUID
    incident_id: UUID
    host: HostRef
    readings: tuple[Evidence, ...]
    policy: Policy
    doubted: bool = False  # the host has answered while its power read off


class ClaimVictimsOrder(Frozen):
    """Take the VMs of a host that is proven dead."""

    operation_id: UUID
    incident_id: UUID
    host: HostRef
    certificate_id: UUID


class FenceChildOrder(Frozen):
    """Open the child operation that proves the host off."""

    operation_id: UUID
    incident_id: UUID
    host: HostRef


class ReportOrder(Frozen):
    """Close an incident."""

    incident_id: UUID
    host: HostRef
    returned: bool
    outcomes: tuple[Outcome, ...]
    cancelled: bool = False  # before anything was moved


class SeenVote(Frozen):
    """One monitor's row about a host, as it stands; `sequence` None: it is to watch it soon."""

    monitor: str
    sequence: int | None
    heard_sequence: int | None  # of the last round in which the host answered
    live: bool  # the others hear of the monitor
    silent: bool
    silent_s: float
    others_seen: int
    warm: bool
    assigned: bool = True  # the host is its own: others only watch it still


class Known(Frozen):
    """What was known when a decision was made: once there is more, it is judged anew."""

    at: datetime  # when its facts began to be read, for people
    heard: dict[str, int]  # the round in which the host had answered each monitor last
    words: int  # how often somebody had said that it is dead
    eyes: tuple[str, ...] = ()  # the monitors whose silence it rests on


class RecoveryRecords(Protocol):
    """The rows of incidents. Every method is one transaction, and repeatable."""

    async def votes(self, host: HostRef, eyes: int) -> tuple[SeenVote, ...]:
        """What each monitor last wrote about a host, and which are its own `eyes`."""
        ...

    async def words(self, incident_id: UUID) -> tuple[Evidence, ...]:
        """What people have said of the incident's host, oldest first."""
        ...

    async def fence_facts(self, order: AssessOrder, votes: tuple[Vote, ...]) -> FenceFacts:
        """What the storm guard looks at."""
        ...

    async def note_decision(
        self, order: AssessOrder, decision: Decision, told: Explanation, known: Known
    ) -> None:
        """Keep the decision, why it came out so, and enter the phase that follows from it."""
        ...

    async def open_fence(self, order: FenceChildOrder) -> UUID:
        """The child operation of the fence: opened once, then found again."""
        ...

    async def claim_victims(self, order: ClaimVictimsOrder) -> RestartPlan:
        """Close the dead host's runs under its certificate, reserve places, free the host."""
        ...

    async def outcome_of(self, operation_id: UUID) -> Outcome | None:
        """How a part of a recovery ended, or None while it is open."""
        ...

    async def report(self, order: ReportOrder) -> str:
        """Close the incident, give a sentence about it, and bring a returned host to `up`."""
        ...


class Recovery:
    """Judge, claim, report."""

    def __init__(
        self,
        records: RecoveryRecords,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._records = records
        self._now = now

    @activity.defn(name="recovery.assess")
    async def assess(self, order: AssessOrder) -> Decision:
        """Choose the next move and record it with its reasons."""
        judged_at = self._now()
        eyes = order.policy.timing.monitors_per_host
        first = await self._records.votes(order.host, eyes)
        readings = tuple((r.level, PowerReading(r.verdict)) for r in order.readings)
        proven = proven_level(readings, order.policy.timing.proofs_required)
        words = await self._records.words(order.incident_id)
        # Whoever went and looked is believed at once, unless something speaks against it: what
        # follows asks every channel once more.
        believed = bool(words) and all(vote.silent for vote in first if vote.live)
        settled = proven is not None or believed
        votes = await self._votes(order, first, wait=order.doubted or not settled)
        facts = RecoveryFacts(
            host=order.host.name,
            answers=answered(votes),
            readings=readings,
            fence=await self._records.fence_facts(order, votes),
            confirmation=words[-1] if words else None,
        )
        decision = decide(facts, order.policy)
        heard = {v.monitor: v.heard_sequence for v in first if v.heard_sequence is not None}
        told = explain_move(facts, decision, order.policy)
        known = Known(at=judged_at, heard=heard, words=len(words), eyes=speaking(votes))
        await self._records.note_decision(order, decision, told, known)
        return decision

    @activity.defn(name="recovery.open_fence")
    async def open_fence(self, order: FenceChildOrder) -> UUID:
        """Open the fence's operation."""
        return await self._records.open_fence(order)

    @activity.defn(name="recovery.claim_victims")
    async def claim_victims(self, order: ClaimVictimsOrder) -> RestartPlan:
        """Take the dead host's VMs."""
        return await self._records.claim_victims(order)

    @activity.defn(name="recovery.follow")
    async def follow(self, operation_id: UUID) -> Outcome | None:
        """Look how a part stands that an earlier try of this recovery began."""
        return await self._records.outcome_of(operation_id)

    @activity.defn(name="recovery.report")
    async def report(self, order: ReportOrder) -> str:
        """Close the incident."""
        return await self._records.report(order)

    async def _votes(
        self, order: AssessOrder, known: tuple[SeenVote, ...], *, wait: bool
    ) -> tuple[Vote, ...]:
        timing = order.policy.timing
        first = {vote.monitor: vote.sequence for vote in known}
        seen: tuple[SeenVote, ...] = ()

        async def all_told() -> bool:
            nonlocal seen
            found = await self._records.votes(order.host, timing.monitors_per_host)
            seen = tuple(vote for vote in found if vote.live)
            return bool(seen) and all(_told(vote, first, order.policy) for vote in seen)

        limit_s = 2 * (timing.poll_s + timing.poll_deadline_s) if wait else 0.0
        await until(all_told, every_s=timing.poll_s / 10, within_s=limit_s)
        return tuple(
            Vote(
                monitor=vote.monitor,
                fresh=_fresh(vote, first),
                silent=vote.silent,
                silent_s=vote.silent_s,
                others_seen=vote.others_seen,
                warm=vote.warm,
                assigned=vote.assigned,
            )
            for vote in seen
        )


def _fresh(vote: SeenVote, first: dict[str, int | None]) -> bool:
    return vote.sequence is not None and vote.sequence != first.get(vote.monitor)


def _told(vote: SeenVote, first: dict[str, int | None], policy: Policy) -> bool:
    """Whether a monitor has said all that it is waited for: one reaches the limit after another."""
    long = not vote.silent or not vote.warm or silent_for(vote.silent_s, policy)
    return _fresh(vote, first) and long
