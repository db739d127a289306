"""Rows of runs that move, as the steps of a migration keep them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from activities.migrating import Deaths, Reservation, ReserveOrder, Settled
from domain.errors import NotFound, Superseded
from domain.explain_vms import explain_lost_on_the_way, explain_target
from domain.inventory import RunState
from domain.migration import Settling
from domain.orders import MigrationRef
from domain.placement import NoRoom, PassedOver, Room, Told, place_again_and_tell
from domain.readings import Migration
from domain.recovery import Fate, fate_of
from engine.acceptance import Terms
from engine.actions.vms import StartVm
from engine.affinity import affinity_of
from engine.backend import Backend
from engine.clock import Clock, utc_now
from engine.closing import look_again
from engine.records.explaining import note_explanations, note_of_operation
from engine.records.resting import note_move
from engine.records.runs import ref_of, rooms_of
from engine.refs import guest_of, host_ref
from store import incidents, inventory, locks, migrating, operations, runs, shown, soft_steps
from store.database import Database
from store.rows import Row


class MigrationRecords:
    """Implements the port of `activities.migrating`."""

    def __init__(self, database: Database, backend: Backend, clock: Clock = utc_now) -> None:
        self._database = database
        self._backend = backend
        self._clock = clock

    async def reserve(self, order: ReserveOrder) -> Reservation:
        """Choose a target and let the VM's run name both hosts; the same again when repeated."""

        async def work(connection: AsyncConnection) -> Reservation:
            vm = await _found(connection, "vm", order.vm_id)
            owner = (order.operation_id, order.attempt)
            if not await locks.holds(connection, "vm", vm["id"], *owner):
                raise Superseded("SUPERSEDED", f"another operation or try took over {vm['name']}")
            run = await runs.active_run(connection, vm["id"])
            if run is None:
                raise _moved_on(vm["name"], "does not run any more")
            if run["moved_by"] == order.operation_id:
                return Reservation(migration=await _ref(connection, run))
            if run["host_id"] == order.host_id:
                return Reservation(summary=f"{vm['name']} runs there already")
            seen = await shown.elsewhere(connection, vm, {run["host_id"]})
            if seen:
                return Reservation(no_room=_elsewhere(vm["name"], seen))
            return await self._choose(connection, order, vm, run)

        return await self._database.write(work)

    async def _choose(
        self, connection: AsyncConnection, order: ReserveOrder, vm: Row, run: Row
    ) -> Reservation:
        leaving, coming = await migrating.under_way(connection)
        if leaving[run["host_id"]] >= order.per_host:
            return Reservation(no_room=_busy(vm["name"], "its host", order.per_host))
        rooms = await rooms_of(connection, vm["cluster_id"])
        restarting = await soft_steps.hosts_restarting(connection)
        if {run["host_id"], order.host_id} & restarting:
            return Reservation(no_room=_restarts(vm["name"]))
        others = tuple(room for room in rooms if room.host_id != run["host_id"])
        if order.host_id is not None:
            others = tuple(room for room in others if room.host_id == order.host_id)
        up = tuple(room for room in others if room.host_id not in restarting)
        free = tuple(room for room in up if coming[room.host_id] < order.per_host)
        if up and not free:
            return Reservation(no_room=_busy(vm["name"], "each other host", order.per_host))
        # It may have been edited since: what moves is what its run has taken.
        guest = guest_of(vm | {"memory_mib": run["memory_mib"], "vcpus": run["vcpus"]})
        rules = await affinity_of(connection, vm["cluster_id"])
        told = place_again_and_tell(guest, free, rules)
        choice = told.choice
        weighed = _Weighed(run, told, _apart(others, restarting, coming, order.per_host))
        if isinstance(choice, NoRoom):
            await self._explain(connection, order, weighed)
            return Reservation(no_room=choice.detail)
        moving = await migrating.begin(
            connection, run["id"], choice.host_id, choice.epoch, order.operation_id
        )
        if moving is None:
            source = await _found(connection, "host", run["host_id"])
            return Reservation(
                no_room=f"{vm['name']} is {run['state']} on {source['name']}, which is "
                f"{source['state']}, or the room for it was taken meanwhile"
            )
        await self._explain(connection, order, weighed)
        moving = await runs.note_gave_way(connection, moving, choice.gave_way)
        return Reservation(migration=await _ref(connection, moving))

    async def _explain(
        self, connection: AsyncConnection, order: ReserveOrder, weighed: "_Weighed"
    ) -> None:
        """Keep with the operation why its VM moves there, or nowhere."""
        guest = weighed.told.guest
        source = await _found(connection, "host", weighed.run["host_id"])
        named = order.host_id is not None
        why = explain_target(weighed.told, source["name"], weighed.apart, named=named)
        subject = (guest.vm_id, guest.name, why)
        await note_of_operation(connection, order.operation_id, subject, self._clock())

    async def claim(self, migration: MigrationRef) -> None:
        """The last word before libvirt is told; Superseded when it is not to be told any more."""
        mine = (migration.run.run_id, migration.operation_id)
        if not await self._database.write(lambda c: migrating.claim(c, *mine)):
            name, target = migration.run.spec.name, migration.target.name
            raise Superseded(
                "MIGRATION_NOT_BEGUN",
                f"{name} is not to be moved to {target} any more: the migration is over, or one of "
                "its hosts is out of service",
                next_step="move it once both hosts are up",
                vm=name,
                host=target,
            )

    async def note_progress(self, migration: MigrationRef, seen: Migration) -> None:
        """Show on the operation how far libvirt is, in MiB; nothing before it has counted."""
        if seen.total_mib == 0:
            return
        told = (migration.operation_id, seen.done_mib, seen.total_mib)
        await self._database.write(lambda c: operations.note_progress(c, *told))

    async def deaths(self, migration: MigrationRef) -> Deaths:
        """The valid certificates of its hosts, at the epochs that its run names now."""

        async def work(connection: AsyncConnection) -> Deaths:
            run = await runs.get(connection, migration.run.run_id)
            if run is None or run["moved_by"] != migration.operation_id:
                return Deaths()
            proof = incidents.valid_certificate
            source = await proof(connection, run["host_id"], run["epoch"])
            target = await proof(connection, run["target_host_id"], run["target_epoch"])
            return Deaths(source=source and source["id"], target=target and target["id"])

        return await self._database.read(work)

    async def conclude(
        self, migration: MigrationRef, move: Settling, deaths: Deaths, generation: int
    ) -> Settled:
        """Write down who owns the VM; of one that neither host runs, order the start if due."""

        async def work(connection: AsyncConnection) -> Settled:
            run = await runs.get(connection, migration.run.run_id)
            if run is None or run["moved_by"] != migration.operation_id:
                return _as_it_is(migration, run)
            if move is Settling.NOWHERE:
                return await self._nowhere(connection, migration, run, deaths)
            mine = (run["id"], migration.operation_id)
            if move is Settling.ON_TARGET:
                now = self._clock()
                new = await migrating.arrived(connection, *mine, generation, now)
                done = new is not None
                if new is not None:
                    vm = await _found(connection, "vm", new["vm_id"])
                    await note_move(connection, vm, new["host_id"], migration.operation_id)
            else:
                proof = deaths.target
                done = await migrating.stayed(connection, *mine, certificate_id=proof)
            return _told(migration, move) if done else _void()

        return await self._database.write(work)

    async def _nowhere(
        self, connection: AsyncConnection, migration: MigrationRef, run: Row, deaths: Deaths
    ) -> Settled:
        """Close the run; a protected VM is started again, where its cluster is armed."""
        vm = await _found(connection, "vm", migration.run.spec.vm_id)
        cluster = await _found(connection, "cluster", vm["cluster_id"])
        fate = fate_of(wanted=vm["wanted"], stop_asked=False, protected=vm["protected"])
        back = fate is Fate.RESTART
        if back and not cluster["armed"]:
            detail = f"{vm['name']} runs on neither host, and {cluster['name']} is disarmed"
            return Settled(move=Settling.WAIT, code="DISARMED", detail=detail)
        both = {run["host_id"], run["target_host_id"]}
        seen = await shown.elsewhere(connection, vm, both)
        if back and seen:
            detail = _elsewhere(vm["name"], seen)
            return Settled(move=Settling.WAIT, code="GUEST_ELSEWHERE", detail=detail)
        closed = await migrating.gone(
            connection,
            migration.run.run_id,
            migration.operation_id,
            self._clock(),
            source_certificate=deaths.source,
            target_certificate=deaths.target,
        )
        if not closed:
            return _void()
        incident_id = await _incident_of(connection, run, deaths)
        if incident_id is not None:
            hosts = (migration.run.host_name, migration.target.name)
            told = explain_lost_on_the_way(guest_of(vm), fate, *hosts)
            subject = (vm["id"], vm["name"], told)
            await note_explanations(connection, incident_id, [subject], self._clock())
        if not back:
            return _told(migration, Settling.NOWHERE)
        parent = await operations.get(connection, migration.operation_id)
        assert parent is not None
        await locks.free(connection, migration.operation_id, "vm")  # its start takes it over
        start = StartVm(vm_id=vm["id"], licence_id=deaths.target or deaths.source)
        why = "its guest was lost while it was moved"
        await self._backend.run_child(start, parent, Terms(), reason=why, incident_id=incident_id)
        return _told(migration, Settling.NOWHERE, "it is started again")


@dataclass(frozen=True)
class _Weighed:
    """The choice of a target for a run, and the hosts that could not be chosen from."""

    run: Row
    told: Told
    apart: tuple[PassedOver, ...]


def _apart(
    others: tuple[Room, ...], restarting: set[UUID], coming: Mapping[UUID, int], limit: int
) -> tuple[PassedOver, ...]:
    """Hosts that no VM may move to now, and why."""
    found = []
    for room in others:
        if room.host_id in restarting:
            found.append(PassedOver(name=room.name, why="its libvirtd is being restarted"))
        elif coming[room.host_id] >= limit:
            why = f"{coming[room.host_id]} VMs are being moved there, {limit} is the limit"
            found.append(PassedOver(name=room.name, why=why))
    return tuple(found)


def _elsewhere(name: str, hosts: tuple[str, ...]) -> str:
    where = " and ".join(hosts)
    return (
        f"the last poll of {where} shows a process of {name}, which somebody has moved or started "
        "by hand: it is neither moved nor started beside that. Shut it down there, or let it "
        f"become the VM's run: `holdfast vm adopt-copy {name} --host {hosts[0]}`"
    )


async def _incident_of(connection: AsyncConnection, run: Row, deaths: Deaths) -> UUID | None:
    """The incident that a VM lost on its way counts in; None where both hosts were read.

    Of two dead hosts the one proven dead last: until then nobody could tell that the VM was lost.
    """
    sides = (
        (deaths.source, run["host_id"], run["epoch"]),
        (deaths.target, run["target_host_id"], run["target_epoch"]),
    )
    proofs = [
        await incidents.valid_certificate(connection, host_id, epoch)
        for certificate_id, host_id, epoch in sides
        if certificate_id is not None
    ]
    known = [(proof["issued_at"], proof["id"], proof["incident_id"]) for proof in proofs if proof]
    return max(known)[2] if known else None


async def _ref(connection: AsyncConnection, run: Row) -> MigrationRef:
    target = await _found(connection, "host", run["target_host_id"])
    target = target | {"epoch": run["target_epoch"]}
    return MigrationRef(
        run=await ref_of(connection, run),
        operation_id=run["moved_by"],
        target=host_ref(target),
        generation=run["target_generation"],
    )


async def _found(connection: AsyncConnection, entity: str, entity_id: UUID) -> Row:
    row = await inventory.get(connection, entity, entity_id)
    if row is None:
        raise NotFound(f"{entity.upper()}_NOT_FOUND", f"there is no {entity} {entity_id}")
    return row


def _busy(name: str, where: str, limit: int) -> str:
    return f"{name} waits its turn: {where} has {limit} migrations under way, which is the limit"


def _restarts(name: str) -> str:
    return f"{name} waits: libvirtd on a host of its is being restarted, which would cut the move"


def _as_it_is(migration: MigrationRef, run: Row | None) -> Settled:
    """What an earlier try has written down already."""
    if run is not None and run["state"] == RunState.RUNNING:
        return _told(migration, Settling.ON_SOURCE)
    if run is not None and run["end_reason"] == migrating.ARRIVED:
        return _told(migration, Settling.ON_TARGET)
    return _told(migration, Settling.NOWHERE)


def _told(migration: MigrationRef, move: Settling, more: str = "") -> Settled:
    run, target = migration.run, migration.target
    sentences = {
        Settling.ON_TARGET: f"{run.spec.name} runs on {target.name}",
        Settling.ON_SOURCE: f"{run.spec.name} runs on {run.host_name} as before",
        Settling.NOWHERE: f"{run.spec.name} runs neither on {run.host_name} nor on {target.name}",
    }
    return Settled(move=move, summary="; ".join(filter(None, (sentences[move], more))))


def _void() -> Settled:
    return Settled(
        move=Settling.WAIT,
        code="CERTIFICATE_VOID",
        detail="the proof that one of its hosts is dead was withdrawn: that host is read again",
    )


def _moved_on(name: str, how: str) -> Superseded:
    return Superseded("SUPERSEDED", f"{name} {how}", next_step="look at the VM", vm=name)


async def tell_of_death(connection: AsyncConnection, host_id: UUID, now: datetime) -> None:
    """Let every migration from or to a host that was proven dead look again at once."""
    for run in await migrating.naming(connection, host_id):
        await look_again(connection, run["moved_by"], now)
