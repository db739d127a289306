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
from domain.errors import NotFound, Refused
from domain.explain import Explanation
from domain.hosts import HostEvent
from domain.inventory import Confirmation, HostState, RunState
from domain.liveness import MONITOR_LIVE
from domain.operations import OperationState, Outcome, Problem
from domain.orders import Evidence, HostRef, Restart, RestartPlan
from domain.placement import Guest, Placed, place_and_tell
from domain.recovery import Decision, Move, restart_sequence
from domain.storm import FenceFacts, Vote
from engine.acceptance import Terms
from engine.actions.hosts import FenceHost, FenceHostAction
from engine.actions.vms import StartVm
from engine.affinity import affinity_of
from engine.backend import Backend
from engine.cancelling import supersede
from engine.clock import Clock, utc_now
from engine.records.explaining import note_explanation, note_place
from engine.records.migrating import tell_of_death
from engine.records.runs import guest_of, ref_of, rooms_of
from engine.records.storm import fence_facts_of
from engine.refs import start_limits
from engine.rows import context_of
from store import hosts, incidents, inventory, locks, observations, operations, runs
from store.database import Database
from store.rows import Row


class RecoveryRecords:
    """Implements the port of `activities.recovery`."""

    def __init__(self, database: Database, backend: Backend, clock: Clock = utc_now) -> None:
        self._database = database
        self._backend = backend
        self._clock = clock

    async def votes(self, host: HostRef) -> tuple[SeenVote, ...]:
        """What each monitor last wrote about a host."""

        async def work(connection: AsyncConnection) -> tuple[SeenVote, ...]:
            monitors = {row["name"]: row for row in await observations.monitors(connection)}
            rows = await observations.latest(connection, host.host_id)
            return tuple(self._vote(row, monitors[row["monitor"]]) for row in rows)

        return await self._database.read(work)

    def _vote(self, row: Row, monitor: Row) -> SeenVote:
        return SeenVote(
            monitor=row["monitor"],
            sequence=row["sequence"],
            heard_sequence=row["heard_sequence"],
            live=self._clock() - monitor["seen_at"] < MONITOR_LIVE,
            silent=row["verdict"] not in ("up", "refused"),
            others_seen=row["others_seen"],
            warm=monitor["warm"],
        )

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
            await incidents.note_decision(connection, order.incident_id, plain)
            subject = (order.host.host_id, order.host.name)
            await note_explanation(connection, order.incident_id, subject, told, known.at)
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
            lambda c: _Claim(c, order, self._backend, self._clock()).run()
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
                await hosts.move(connection, order.host.host_id, HostEvent.RETURNED, why, now)
                await incidents.close(connection, order.incident_id, "returned", now)
                return f"{order.host.name} answers again; nothing was moved"
            if order.cancelled:
                return await _abandon(connection, order, now)
            good = [o for o in order.outcomes if o.state is OperationState.SUCCEEDED]
            outcome = "recovered" if len(good) == len(order.outcomes) else "incomplete"
            again = await incidents.runs_of(connection, order.incident_id)
            last = max((run["started_at"] for run in again if run["started_at"]), default=now)
            await incidents.enter_phases(connection, order.incident_id, ready=last, done=now)
            await incidents.close(connection, order.incident_id, outcome, now)
            await _note_progress(connection, order.incident_id, len(good), len(order.outcomes))
            return f"{len(good)} of {len(order.outcomes)} VMs of {order.host.name} run again"

        return await self._database.write(work)


class _Claim:
    """One transaction that takes a dead host's VMs."""

    def __init__(
        self,
        connection: AsyncConnection,
        order: ClaimVictimsOrder,
        backend: Backend,
        now: datetime,
    ) -> None:
        self._connection = connection
        self._order = order
        self._backend = backend
        self._now = now

    async def run(self) -> RestartPlan:
        """Take them, or give what an earlier try took."""
        connection, order = self._connection, self._order
        parent = await operations.get(connection, order.operation_id)
        host = await _host(connection, order.host.host_id)
        assert parent is not None
        victims = await runs.active_runs(connection, host["id"])
        # One that moves may run on its target: its migration reads that, and settles it.
        left = [run for run in victims if run["state"] != RunState.MIGRATING]
        lost = [run for run in left if run["epoch"] == order.host.epoch]
        for run in lost:
            if not await runs.lose(connection, run["id"], order.certificate_id, self._now):
                raise Refused(
                    "CERTIFICATE_VOID",
                    f"the certificate of {host['name']} is not valid any more",
                    next_step="a sign of life voided it: look at the host before anything else",
                    host=host["name"],
                )
        guests = await self._guests(await self._without_child(lost))
        if any(guest.protected for guest in guests):
            await self._open_children(parent, guests)
        await tell_of_death(connection, host["id"], self._now)
        await locks.free(connection, order.operation_id, "host")
        await incidents.enter_phase(connection, order.incident_id, "start", self._now)
        return await self._plan()

    async def _without_child(self, lost: list[Row]) -> list[Row]:
        """Every VM to judge: those lost now, and those lost before under a proof since withdrawn.

        `lost` are the runs as they were; what an earlier try opened a child for is left out.
        """
        order = self._order
        children = await operations.children(self._connection, order.operation_id)
        taken = {child["target_id"] for child in children if child["kind"] == "vm.start"}
        taken |= {run["vm_id"] for run in lost}
        host = order.host
        before = await runs.lost_without_successor(self._connection, host.host_id, host.epoch)
        return lost + [run for run in before if run["vm_id"] not in taken]

    async def _guests(self, lost: list[Row]) -> tuple[Guest, ...]:
        depends = await inventory.dependencies(self._connection)
        vms = await inventory.get_many(self._connection, "vm", [run["vm_id"] for run in lost])
        guests = []
        for run in lost:
            vm = vms.get(run["vm_id"])
            if vm is None:
                continue
            # A run that its own start was taking back is no stop that somebody asked for.
            asked_to_end = run["state"] == "stopping" and run["end_reason"] is None
            guest = guest_of(vm, depends.get(vm["id"], ()))
            if vm["wanted"] and not asked_to_end:
                guests.append(guest)
                if guest.protected:
                    continue  # its own start takes its lock over
            loser = await locks.holder(self._connection, "vm", vm["id"])
            if loser is not None:
                await self._supersede(loser.operation_id)
        return tuple(guests)

    async def _supersede(self, operation_id: UUID) -> None:
        problem = Problem(
            code="SUPERSEDED",
            detail=f"{self._order.host.name} is dead; its recovery took the VM over",
            next_step=f"follow it: `holdfast op show {self._order.operation_id}`",
        )
        loser = await operations.get(self._connection, operation_id)
        assert loser is not None
        tx = self._backend.transaction(self._connection, context_of(loser))
        await supersede(tx, operation_id, problem)
        await self._backend.write_out(tx)

    async def _open_children(self, parent: Row, guests: tuple[Guest, ...]) -> None:
        host = await _host(self._connection, self._order.host.host_id)
        rooms = await rooms_of(self._connection, host["cluster_id"])
        wanted = restart_sequence(tuple(guest for guest in guests if guest.protected))
        rules = await affinity_of(self._connection, host["cluster_id"])
        places = {told.guest.vm_id: told for told in place_and_tell(wanted, rooms, rules)}
        for guest in wanted:
            start = StartVm(vm_id=guest.vm_id, licence_id=self._order.certificate_id)
            terms = Terms(by_parent=True, preempt=True)
            child_id = await self._backend.run_child(start, parent, terms)
            told = places[guest.vm_id]
            await note_place(self._connection, self._order.incident_id, told, self._now)
            choice = told.choice
            if isinstance(choice, Placed):
                run = await runs.place(
                    self._connection,
                    guest.vm_id,
                    choice.host_id,
                    choice.epoch,
                    child_id,
                    self._now,
                    licence_id=self._order.certificate_id,
                    incident_id=self._order.incident_id,
                )
                if run is not None:
                    await runs.note_gave_way(self._connection, run, choice.gave_way)

    async def _plan(self) -> RestartPlan:
        depends = await inventory.dependencies(self._connection)
        children = [
            child
            for child in await operations.children(self._connection, self._order.operation_id)
            if child["kind"] == "vm.start"
        ]
        lost = await incidents.runs_lost(self._connection, self._order.incident_id)
        named = dict.fromkeys([child["target_id"] for child in children])
        named |= dict.fromkeys([run["vm_id"] for run in lost])
        # A person may have cancelled a restart, and deleted its VM since.
        vms = await inventory.get_many(self._connection, "vm", list(named))
        taken = {child["target_id"] for child in children if child["target_id"] in vms}
        active = await runs.active_runs_of(self._connection, sorted(taken))
        waits = {
            vm_id: tuple(other for other in depends.get(vm_id, ()) if other in taken)
            for vm_id in taken
        }
        restarts = [
            await self._restart(
                child, vms[child["target_id"]], waits, active.get(child["target_id"])
            )
            for child in children
            if child["target_id"] in taken
        ]
        left = [run["vm_id"] for run in lost if run["vm_id"] not in taken]
        return RestartPlan(
            restarts=tuple(restarts),
            left_down=tuple(vms[vm_id]["name"] for vm_id in left if vm_id in vms),
        )

    async def _restart(
        self, child: Row, vm: Row, waits: dict[UUID, tuple[UUID, ...]], run: Row | None
    ) -> Restart:
        mine = run if run is not None and run["operation_id"] == child["id"] else None
        return Restart(
            operation_id=child["id"],
            vm_id=vm["id"],
            vm_name=vm["name"],
            protected=vm["protected"],
            depends_on=waits[vm["id"]],
            run=None if mine is None else await ref_of(self._connection, mine),
            licence_id=self._order.certificate_id,
            limits=start_limits(vm),
        )


async def _fence_of(connection: AsyncConnection, order: FenceChildOrder) -> FenceHost:
    """The fence that was decided on: it is bound to what was heard of the host by then.

    A later decision does not count for its late steps.
    """
    incident = await incidents.get(connection, order.incident_id)
    known = (incident or {}).get("decision") or {}
    bound = {"heard": known.get("heard"), "words": known.get("words", 0)}
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
    host = await _host(connection, order.host.host_id)
    if host["state"] == HostState.FENCING:
        why = "its recovery was cancelled while its power was being cut"
        await hosts.move(connection, host["id"], HostEvent.FAILED, why, now)
        host = await _host(connection, host["id"])
    await incidents.close(connection, order.incident_id, "cancelled", now)
    return f"nothing was moved; {host['name']} is left {host['state']}, with its VMs"


async def _host(connection: AsyncConnection, host_id: UUID) -> Row:
    host = await inventory.get(connection, "host", host_id)
    if host is None:
        raise NotFound("HOST_NOT_FOUND", f"there is no host {host_id}")
    return host
