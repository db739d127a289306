"""Takes a dead host's VMs, in one transaction."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from activities.recovery import ClaimVictimsOrder
from domain.affinity import companies
from domain.errors import Refused
from domain.explain import Explanation
from domain.explain_vms import explain_fate, explain_place
from domain.inventory import RunState
from domain.operations import Problem
from domain.orders import AwaitedVm, Restart, RestartPlan
from domain.placement import Guest, Placed, Told, place_and_tell
from domain.recovery import Fate, fate_of, restart_sequence
from domain.unplaced import runs_elsewhere, that_wait, waits_for
from engine.acceptance import Terms
from engine.actions.vms import StartVm
from engine.affinity import affinity_of
from engine.backend import Backend
from engine.cancelling import supersede
from engine.records.dependencies import awaited_of
from engine.records.explaining import note_explanations
from engine.records.hosts import host_row
from engine.records.migrating import tell_of_death
from engine.records.runs import ref_of, rooms_of
from engine.refs import guest_of, ready_rule, start_limits
from engine.rows import context_of
from store import failbacks, incidents, inventory, locks, operations, planned, runs, shown
from store.rows import Row


@dataclass(frozen=True)
class Judged:
    """A VM of the dead host, as it was, and what becomes of it."""

    guest: Guest
    fate: Fate
    run_state: str


class Claim:
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
        host = await host_row(connection, order.host.host_id)
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
        judged = await self._judged(await self._without_child(lost))
        wanted = restart_sequence(tuple(j.guest for j in judged if j.fate is Fate.RESTART))
        places = await self._open_children(parent, host, wanted) if wanted else {}
        await self._explain(judged, wanted, places)
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
        # What was lost under this very proof was judged by whoever took it: a person may have
        # started since then what was left down.
        left = [run for run in before if run["lost_certificate_id"] != order.certificate_id]
        return lost + [run for run in left if run["vm_id"] not in taken]

    async def _judged(self, lost: list[Row]) -> list[Judged]:
        depends = await inventory.dependencies(self._connection)
        vms = await inventory.get_many(self._connection, "vm", [run["vm_id"] for run in lost])
        coming_back = await planned.remembered_vms(self._connection)
        judged = []
        for run in lost:
            vm = vms.get(run["vm_id"])
            if vm is None:
                continue
            # A run that its own start was taking back is no stop that somebody asked for, nor is
            # the shutdown of its host.
            asked_to_end = run["state"] == RunState.STOPPING and run["end_reason"] is None
            asked_to_end = asked_to_end and run["vm_id"] not in coming_back
            fate = fate_of(wanted=vm["wanted"], stop_asked=asked_to_end, protected=vm["protected"])
            guest = guest_of(vm, depends.get(vm["id"], ()))
            judged.append(Judged(guest, fate, str(run["state"])))
            if fate is Fate.RESTART:
                continue  # its own start takes its lock over
            loser = await locks.holder(self._connection, "vm", vm["id"])
            if loser is not None:
                await self._supersede(loser.operation_id)
        return judged

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

    async def _open_children(
        self, parent: Row, host: Row, wanted: tuple[Guest, ...]
    ) -> dict[UUID, Told]:
        """A start for each VM, with a place where there is room: where each goes, and why."""
        places = await self._places(host["cluster_id"], wanted)
        await failbacks.wake_all(self._connection, [guest.vm_id for guest in wanted])
        for guest in wanted:
            start = StartVm(vm_id=guest.vm_id, licence_id=self._order.certificate_id)
            terms = Terms(by_parent=True, preempt=True)
            child_id = await self._backend.run_child(start, parent, terms)
            choice = places[guest.vm_id].choice
            if isinstance(choice, Placed):
                await self._place(choice, child_id)
        return places

    async def _places(self, cluster_id: UUID, wanted: tuple[Guest, ...]) -> dict[UUID, Told]:
        """Where each goes, and why; none that another host shows already."""
        rooms = await rooms_of(self._connection, cluster_id)
        rules = await affinity_of(self._connection, cluster_id)
        seen = await shown.shown(self._connection, cluster_id, [guest.vm_id for guest in wanted])
        waiting = await self._waiting(wanted, companies(rules.rules))
        here = tuple(g for g in wanted if g.vm_id not in seen and g.vm_id not in waiting)
        told = [
            runs_elsewhere(guest, tuple(one.name for one in seen[guest.vm_id]))
            for guest in wanted
            if guest.vm_id in seen
        ]
        told += [
            waits_for(guest, waiting[guest.vm_id])
            for guest in wanted
            if guest.vm_id in waiting and guest.vm_id not in seen
        ]
        return {one.guest.vm_id: one for one in (*place_and_tell(here, rooms, rules), *told)}

    async def _waiting(
        self, wanted: tuple[Guest, ...], bound: Mapping[UUID, frozenset[UUID]]
    ) -> dict[UUID, tuple[str, ...]]:
        """Those that wait for VMs which something else brings back, and these VMs' names.

        Without those that hard rules keep with others of them: such a VM has to have its place
        when these get theirs, or it may never be able to join them.
        """
        depends = await inventory.dependencies(self._connection)
        taken = {guest.vm_id for guest in wanted}
        awaits = await self._awaits({i: set(depends.get(i, ())) - taken for i in taken})
        names = {vm_id: [one.vm_name for one in found] for vm_id, found in awaits.items()}
        waiting = that_wait(wanted, names)
        return {i: why for i, why in waiting.items() if not bound.get(i, frozenset()) & taken - {i}}

    async def _place(self, choice: Placed, child_id: UUID) -> None:
        run = await runs.place(
            self._connection,
            choice.vm_id,
            choice.host_id,
            choice.epoch,
            child_id,
            self._now,
            licence_id=self._order.certificate_id,
            incident_id=self._order.incident_id,
        )
        if run is not None:
            await runs.note_gave_way(self._connection, run, choice.gave_way)

    async def _explain(
        self, judged: list[Judged], wanted: tuple[Guest, ...], places: dict[UUID, Told]
    ) -> None:
        names = {guest.vm_id: guest.name for guest in wanted}
        turns = {guest.vm_id: turn for turn, guest in enumerate(wanted, start=1)}
        told: list[tuple[UUID, str, Explanation]] = []
        for one in sorted(judged, key=lambda one: (turns.get(one.guest.vm_id, 0), one.guest.name)):
            guest, turn = one.guest, turns.get(one.guest.vm_id, 0)
            after = tuple(names[other] for other in guest.depends_on if turn and other in names)
            fate = explain_fate(guest, one.fate, one.run_state, turn, len(wanted), after)
            told.append((guest.vm_id, guest.name, fate))
        told += [(g.vm_id, g.name, explain_place(places[g.vm_id])) for g in wanted]
        await note_explanations(self._connection, self._order.incident_id, told, self._now)

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
        awaits = await self._awaits({i: set(depends.get(i, ())) - taken for i in taken})
        restarts = [
            await self._restart(
                child,
                vms[child["target_id"]],
                active.get(child["target_id"]),
                waits[child["target_id"]],
                awaits[child["target_id"]],
            )
            for child in children
            if child["target_id"] in taken
        ]
        left = [run["vm_id"] for run in lost if run["vm_id"] not in taken]
        return RestartPlan(
            restarts=tuple(restarts),
            left_down=tuple(vms[vm_id]["name"] for vm_id in left if vm_id in vms),
        )

    async def _awaits(self, outside: dict[UUID, set[UUID]]) -> dict[UUID, tuple[AwaitedVm, ...]]:
        """For each VM those that it depends on, are not of this recovery, and do not run."""
        found = await awaited_of(self._connection, set[UUID]().union(*outside.values()))
        return {
            vm_id: tuple(found[other] for other in sorted(others & found.keys()))
            for vm_id, others in outside.items()
        }

    async def _restart(
        self,
        child: Row,
        vm: Row,
        run: Row | None,
        depends_on: tuple[UUID, ...],
        awaits: tuple[AwaitedVm, ...],
    ) -> Restart:
        mine = run if run is not None and run["operation_id"] == child["id"] else None
        return Restart(
            operation_id=child["id"],
            vm_id=vm["id"],
            vm_name=vm["name"],
            protected=vm["protected"],
            depends_on=depends_on,
            run=None if mine is None else await ref_of(self._connection, mine),
            licence_id=self._order.certificate_id,
            limits=start_limits(vm),
            ready=ready_rule(vm),
            awaits=awaits,
        )
