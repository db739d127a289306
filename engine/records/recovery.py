"""Rows of incidents, as the steps of a recovery keep them."""

from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from activities.recovery import (
    AssessOrder,
    ClaimVictimsOrder,
    FenceChildOrder,
    Known,
    ReportOrder,
    SeenVote,
)
from domain.explain import Explanation
from domain.hosts import HostEvent
from domain.inventory import Confirmation, HostState
from domain.operations import OperationState, Outcome
from domain.orders import Evidence, HostRef, RestartPlan
from domain.recovery import Decision, Move
from domain.storm import FenceFacts, Vote
from engine.acceptance import Terms
from engine.actions.hosts import FenceHost, FenceHostAction
from engine.backend import Backend
from engine.clock import Clock, utc_now
from engine.records.claiming import Claim
from engine.records.explaining import note_explanations
from engine.records.hosts import host_row
from engine.records.storm import fence_facts_of
from engine.records.voting import votes_on
from store import hosts, incidents, operations
from store.database import Database
from store.rows import Row


class RecoveryRecords:
    """Implements the port of `activities.recovery`."""

    def __init__(self, database: Database, backend: Backend, clock: Clock = utc_now) -> None:
        self._database = database
        self._backend = backend
        self._clock = clock

    async def votes(self, host: HostRef, eyes: int) -> tuple[SeenVote, ...]:
        """What each monitor last wrote about a host, and which are its own `eyes`."""
        return await self._database.read(lambda c: votes_on(c, host.host_id, eyes))

    async def words(self, incident_id: UUID) -> tuple[Evidence, ...]:
        """What people have said of the incident's host, oldest first."""
        rows = await self._database.read(lambda c: incidents.words_of(c, incident_id))
        return tuple(
            Evidence(
                kind=row["kind"],
                device=row["device"],
                verdict=Confirmation(row["verdict"]),
                took_s=row["took_s"],
                at=row["at"].isoformat(),
                detail=row["detail"],
            )
            for row in rows
        )

    async def fence_facts(self, order: AssessOrder, votes: tuple[Vote, ...]) -> FenceFacts:
        """What the storm guard looks at."""

        now = self._clock()
        return await self._database.read(lambda c: fence_facts_of(c, order, votes, now))

    async def note_decision(
        self, order: AssessOrder, decision: Decision, told: Explanation, known: Known
    ) -> None:
        """Keep the decision, why it came out so, and enter the phase that follows from it."""

        async def work(connection: AsyncConnection) -> None:
            plain = decision.model_dump(mode="json")
            plain |= {"at": known.at.isoformat(), "heard": known.heard, "words": known.words}
            plain |= {"eyes": list(known.eyes)}
            await incidents.note_decision(connection, order.incident_id, plain)
            subject = (order.host.host_id, order.host.name, told)
            await note_explanations(connection, order.incident_id, [subject], known.at)
            if decision.move in (Move.ACCEPT, Move.CONFIRMED, Move.FENCE):
                await incidents.enter_phase(connection, order.incident_id, "prove", self._clock())

        await self._database.write(work)

    async def open_fence(self, order: FenceChildOrder) -> UUID:
        """The child operation of the fence: opened once, then found again while it is open."""

        async def work(connection: AsyncConnection) -> UUID:
            for child in await operations.children(connection, order.operation_id):
                if child["kind"] == "host.fence" and child["state"] in operations.OPEN:
                    known: UUID = child["id"]
                    return known
            parent = await operations.get(connection, order.operation_id)
            assert parent is not None
            fence = await _fence_of(connection, order)
            return await self._backend.run_child(fence, parent, Terms(by_parent=True))

        return await self._database.write(work)

    async def claim_victims(self, order: ClaimVictimsOrder) -> RestartPlan:
        """Close the dead host's runs under its certificate, reserve places, free the host.

        One transaction; repeating it finds the children that it wrote.
        """
        return await self._database.write(
            lambda c: Claim(c, order, self._backend, self._clock()).run()
        )

    async def outcome_of(self, operation_id: UUID) -> Outcome | None:
        """How a part of a recovery ended, or None while it is open."""

        async def work(connection: AsyncConnection) -> Outcome | None:
            row = await operations.get(connection, operation_id)
            if row is None or row["state"] in operations.OPEN:
                return None
            return Outcome(
                operation_id=operation_id,
                attempt=row["attempt"],
                state=OperationState(row["state"]),
                problem=row["problem"],
                summary=row["summary"] or "",
                certificate_id=await _certificate_of(connection, row),
            )

        return await self._database.read(work)

    async def report(self, order: ReportOrder) -> str:
        """Close the incident, give a sentence about it, and bring a returned host to `up`."""

        async def work(connection: AsyncConnection) -> str:
            now = self._clock()
            if order.returned:
                why = "it answers again; nothing was moved"
                # A late word about a closed incident says nothing of the host as it is now.
                if await incidents.close(connection, order.incident_id, "returned", now):
                    await hosts.move(connection, order.host.host_id, HostEvent.RETURNED, why, now)
                return f"{order.host.name} answers again; nothing was moved"
            if order.cancelled:
                return await _abandon(connection, order, now)
            good = [o for o in order.outcomes if o.state is OperationState.SUCCEEDED]
            outcome = "recovered" if len(good) == len(order.outcomes) else "incomplete"
            again = await incidents.runs_of(connection, order.incident_id)
            last = max((run["started_at"] for run in again if run["started_at"]), default=now)
            await incidents.note_ready(connection, order.incident_id, last)
            await incidents.enter_phases(connection, order.incident_id, done=now)
            await incidents.close(connection, order.incident_id, outcome, now)
            await _note_progress(connection, order.incident_id, len(good), len(order.outcomes))
            return f"{len(good)} of {len(order.outcomes)} VMs of {order.host.name} run again"

        return await self._database.write(work)


async def _fence_of(connection: AsyncConnection, order: FenceChildOrder) -> FenceHost:
    """The fence that was decided on: it is bound to what was heard of the host by then.

    A later decision does not count for its late steps.
    """
    incident = await incidents.get(connection, order.incident_id)
    known = (incident or {}).get("decision") or {}
    bound = {"heard": known.get("heard"), "words": known.get("words", 0)}
    bound |= {"eyes": known.get("eyes", ())}
    return FenceHost(host_id=order.host.host_id, incident_id=order.incident_id, **bound)


async def _certificate_of(connection: AsyncConnection, fence: Row) -> UUID | None:
    """The proof that a fence led to, while it is valid; None of another kind of operation."""
    if fence["kind"] != FenceHostAction.kind or fence["incident_id"] is None:
        return None
    incident = await incidents.get(connection, fence["incident_id"])
    if incident is None:
        return None
    proof = await incidents.valid_certificate(connection, incident["host_id"], incident["epoch"])
    return None if proof is None else proof["id"]


async def _note_progress(
    connection: AsyncConnection, incident_id: UUID, done: int, total: int
) -> None:
    """Keep how many VMs run again: until now it was counted from their starts."""
    incident = await incidents.get(connection, incident_id)
    if total and incident is not None and incident["operation_id"] is not None:
        await operations.note_progress(connection, incident["operation_id"], done, total)


async def _abandon(connection: AsyncConnection, order: ReportOrder, now: datetime) -> str:
    closed = await incidents.close(connection, order.incident_id, "cancelled", now)
    host = await host_row(connection, order.host.host_id)
    if closed and host["state"] == HostState.FENCING:
        why = "its recovery was cancelled while its power was being cut"
        await hosts.move(connection, host["id"], HostEvent.FAILED, why, now)
        host = await host_row(connection, host["id"])
    return f"nothing was moved; {host['name']} is left {host['state']}, with its VMs"
