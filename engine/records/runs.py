"""Rows of runs, as the steps on guests keep them."""

from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from activities.guests import PlaceOrder
from domain.capacity import memory_allowed_mib, vcpus_allowed
from domain.disarming import DISARMED, starts_known
from domain.errors import NotFound, Refused, Superseded
from domain.explain_vms import explain_place
from domain.inventory import RunState
from domain.orders import Placement, RunRef
from domain.placement import NoRoom, Room, Told, place_again_and_tell
from domain.start_tries import HOST_LEFT_SERVICE, SHOWN_ELSEWHERE
from domain.unplaced import runs_elsewhere
from engine.affinity import affinity_of
from engine.backend import Backend
from engine.clock import Clock, utc_now
from engine.records.explaining import note_explanations, note_of_operation
from engine.records.making_room import NotMade, Wanting, room_is_made
from engine.records.resting import note_place
from engine.records.start_turns import take_turn, wake_next
from engine.refs import guest_of, run_ref
from store import ended_runs, inventory, locks, made_room, operations, runs, shown, starts, vms
from store.database import Database, Work
from store.rows import Row

END_REASON_MAX = 64
"""As many letters as a run's row has for why it ended."""


class RunRecords:
    """Implements the port of `activities.guests`."""

    def __init__(self, database: Database, backend: Backend, clock: Clock = utc_now) -> None:
        self._database = database
        self._backend = backend
        self._clock = clock

    async def place(self, order: PlaceOrder) -> Placement:
        """Choose a host and write the next run as placed, or say why there is no room."""
        try:
            return await self._database.write(lambda c: self._place(c, order, may_stop=True))
        except NotMade:  # somebody was quicker: it waits, and looks again
            return await self._database.write(lambda c: self._place(c, order, may_stop=False))

    async def _place(
        self, connection: AsyncConnection, order: PlaceOrder, *, may_stop: bool
    ) -> Placement:
        vm = await _row(connection, "vm", order)
        active = await runs.active_run(connection, vm["id"])
        if active is not None and active["operation_id"] != order.operation_id:
            return Placement(already_running=True)
        owner = (order.operation_id, order.attempt)
        if not await locks.holds(connection, "vm", vm["id"], *owner):
            raise Superseded("SUPERSEDED", f"another operation or try took over {vm['name']}")
        if active is not None:
            return Placement(run=await ref_of(connection, active))
        await _refuse_frozen(connection, order, vm)
        rooms = await rooms_of(connection, vm["cluster_id"], but_for=vm["id"])
        if order.host_id is not None:
            rooms = tuple(room for room in rooms if room.host_id == order.host_id)
        rules = await affinity_of(connection, vm["cluster_id"])
        told = place_again_and_tell(guest_of(vm), rooms, rules, order.prefer_id, order.avoid)
        seen = await _shown(connection, vm)
        told = runs_elsewhere(guest_of(vm), seen) if seen else told
        choice = told.choice
        if isinstance(choice, NoRoom):
            await self._explain(connection, order, vm, told)
            made = None
            may_stop = may_stop and not choice.shown_on
            if may_stop and order.incident_id is not None and not order.avoid:
                wanting = Wanting(order, order.incident_id, vm, rooms, rules)
                made = await room_is_made(connection, self._backend, wanting, self._clock())
            return Placement(no_room=made or choice.detail)
        run = await runs.place(
            connection,
            vm["id"],
            choice.host_id,
            choice.epoch,
            order.operation_id,
            self._clock(),
            licence_id=order.licence_id,
            incident_id=order.incident_id,
        )
        if run is None:
            return Placement(no_room=f"the room for {vm['name']} was taken meanwhile")
        await self._explain(connection, order, vm, told)
        await made_room.served(connection, vm["id"])
        own = order.incident_id is not None
        named = order.host_id is not None
        await note_place(connection, vm, choice.host_id, named=named, recovery=own)
        run = await runs.note_gave_way(connection, run, choice.gave_way)
        return Placement(run=await ref_of(connection, run))

    async def _explain(
        self, connection: AsyncConnection, order: PlaceOrder, vm: Row, told: Told
    ) -> None:
        """For its incident, which the report of the incident tells, or for the start itself."""
        now, named = self._clock(), order.host_id is not None
        subject = (vm["id"], vm["name"], explain_place(told, named=named))
        if order.incident_id is None:
            await note_of_operation(connection, order.operation_id, subject, now)
        else:
            await note_explanations(connection, order.incident_id, [subject], now)

    async def expect(self, run: RunRef) -> None:
        """Superseded when the run is not to be started any more; changes nothing.

        Refused (HOST_LEFT_SERVICE) while its host alone speaks against it.
        """

        async def work(connection: AsyncConnection) -> None:
            await _refuse_unexpected(connection, run, "is not to be started any more")

        await self._database.read(work)

    async def begin_start(self, run: RunRef) -> None:
        """Claim the run for `create()`; Superseded when it may not start any more.

        Refused while it has to wait: DISARMED, STARTS_AT_LIMIT; where it has to be placed anew:
        HOST_LEFT_SERVICE, SHOWN_ELSEWHERE.
        """

        async def work(connection: AsyncConnection) -> Refused | None:
            found = await runs.get(connection, run.run_id)
            if found is not None and found["state"] == "running":
                return None  # an earlier try got through and only its answer was lost
            waits = None if found is None else await take_turn(connection, found, self._clock())
            if waits is not None:
                return waits
            await _refuse_shown(connection, run, found)
            if await runs.begin_start(connection, run.run_id, run.operation_id):
                return None
            if await runs.frozen(connection, run.run_id):
                raise frozen(run.spec.name)
            await _refuse_unexpected(connection, run, "may not start any more")
            raise _superseded(run, "may not start any more")

        # That it waits is written down, so this is raised behind the commit.
        refused = await self._database.write(work)
        if refused is not None:
            raise refused

    async def started(self, run: RunRef) -> None:
        """Record the run as running; Superseded when it was closed meanwhile."""
        now = self._clock()

        async def work(connection: AsyncConnection) -> bool:
            if not await runs.started(connection, run.run_id, now):
                return False
            await wake_next(connection, run.host_id, now)
            return True

        await self._must(work, run, "was closed meanwhile")

    async def end_unclaimed(
        self, operation_id: UUID, vm_id: UUID, attempt: int = 1
    ) -> RunRef | None:
        """Close the operation's run if it was never claimed for `create()`; that run."""
        now = self._clock()

        async def work(connection: AsyncConnection) -> RunRef | None:
            run = await runs.active_run(connection, vm_id)
            if run is None or not await _is_in(connection, operation_id, attempt):
                return None
            if not await runs.end_unclaimed(connection, vm_id, operation_id, now):
                return None
            await made_room.keep_again(connection, operation_id)
            return await ref_of(connection, run)

        return await self._database.write(work)

    async def begin_withdraw(
        self, operation_id: UUID, vm_id: UUID, attempt: int = 1
    ) -> RunRef | None:
        """Take back the run that an open operation placed; None when another owner took it."""

        async def work(connection: AsyncConnection) -> RunRef | None:
            run = await runs.active_run(connection, vm_id)
            if run is None or not await _is_in(connection, operation_id, attempt, open_=True):
                return None
            if not await runs.begin_withdraw(connection, run["id"], operation_id):
                return None
            await wake_next(connection, run["host_id"], self._clock())
            return await ref_of(connection, run)

        return await self._database.write(work)

    async def withdrawn(self, run: RunRef) -> None:
        """Close a run that was taken back and read as gone; closed already is success."""
        now = self._clock()

        async def work(connection: AsyncConnection) -> None:
            found = await runs.get(connection, run.run_id)
            reason = found["end_reason"] if found else None
            await runs.end(connection, run.run_id, reason or "withdrawn", now)
            await made_room.keep_again(connection, run.operation_id)

        await self._database.write(work)

    async def begin_stop(self, run: RunRef) -> None:
        """Record that the run's end was asked for; Refused (`DISARMED`) of one that makes room."""

        async def work(connection: AsyncConnection) -> bool:
            if await runs.begin_stop(connection, run.run_id):
                return True
            if await made_room.held_back(connection, run.run_id):
                raise stays(run.spec.name)
            return False

        await self._must(work, run, "is not running any more")

    async def ended(self, run: RunRef, reason: str) -> None:
        """Close the run and free its memory; closed already is success."""
        now = self._clock()

        async def work(connection: AsyncConnection) -> None:
            name = await made_room.made_for(connection, run.run_id)
            why = reason if name is None else f"made room for {name}"[:END_REASON_MAX]
            await runs.end(connection, run.run_id, why, now)

        await self._database.write(work)

    async def _must(self, work: Work[bool], run: RunRef, what: str) -> None:
        if not await self._database.write(work):
            raise _superseded(run, what)


def _superseded(run: RunRef, what: str) -> Superseded:
    return Superseded(
        "SUPERSEDED",
        f"run {run.generation} of {run.spec.name} on {run.host_name} {what}",
        next_step="look at the VM: a recovery or another operation took it over",
        vm=run.spec.name,
        generation=run.generation,
    )


async def _refuse_unexpected(connection: AsyncConnection, run: RunRef, what: str) -> None:
    """Refused where a run is not to start: its host alone speaks against it, or it moved on."""
    mine = (run.run_id, run.operation_id)
    if await starts.expected(connection, *mine):
        return
    if await starts.still_of(connection, *mine):
        raise Refused(
            HOST_LEFT_SERVICE,
            f"{run.host_name} left service before {run.spec.name} began to start there",
            next_step="nothing: its place is given back, and another host is looked for",
            vm=run.spec.name,
            host=run.host_name,
        )
    raise _superseded(run, what)


async def _refuse_shown(connection: AsyncConnection, run: RunRef, found: Row | None) -> None:
    """Refused where a VM has waited for its turn, and another host shows a process of it by now."""
    if found is None or found["state"] != RunState.PLACED or found["turn_at"] is None:
        return
    vm = await inventory.get(connection, "vm", run.spec.vm_id)
    seen = () if vm is None else await _shown(connection, vm)
    if seen:
        raise Refused(
            SHOWN_ELSEWHERE,
            f"the last poll of {' and '.join(seen)} shows a process of {run.spec.name}",
            next_step="shut it down there: the start goes on by itself then",
            vm=run.spec.name,
        )


async def _refuse_frozen(connection: AsyncConnection, order: PlaceOrder, vm: Row) -> None:
    again = order.incident_id is None and await made_room.starts_again(
        connection, order.operation_id
    )
    if order.incident_id is None and not again:
        return
    cluster = await inventory.get(connection, "cluster", vm["cluster_id"])
    if cluster is None or cluster["armed"]:
        return
    # What was stopped for others belongs to no recovery: it starts by itself only where all may.
    if again or not starts_known(armed=cluster["armed"], mode=cluster["disarm_mode"]):
        raise frozen(vm["name"])


def frozen(vm: str) -> Refused:
    """The refusal of a start that belongs to a recovery while everything is frozen."""
    return Refused(
        DISARMED,
        f"{vm} is not started: its cluster is disarmed, and recoveries are frozen",
        next_step="`holdfast cluster arm NAME`, or cancel this start",
        vm=vm,
    )


def stays(vm: str) -> Refused:
    """The refusal to stop a VM for another while its cluster is disarmed."""
    return Refused(
        DISARMED,
        f"{vm} is not stopped for another: its cluster is disarmed",
        next_step="`holdfast cluster arm NAME`: it is decided anew",
        vm=vm,
    )


async def ref_of(connection: AsyncConnection, run: Row) -> RunRef:
    """A run's row with what a step needs of its VM, host and cluster."""
    vm = await vms.of_run(connection, run["id"])
    assert vm is not None
    host = {"id": run["host_id"], "name": vm["host_name"], "uri": vm["host_uri"]}
    nics = await vms.nics_of(connection, [vm["id"]])
    return run_ref(run, vm, host, vm["virt_type"], nics.get(vm["id"], ()))


async def rooms_of(
    connection: AsyncConnection, cluster_id: UUID, *, but_for: UUID | None = None
) -> tuple[Room, ...]:
    """Hosts of a cluster that may receive VMs, by name.

    Room that others were stopped for counts as taken, but for the VM that it is kept for.
    """
    cluster = await inventory.get(connection, "cluster", cluster_id)
    kept = await made_room.promised(connection, cluster_id, but_for)
    counts = await runs.active_counts(connection, cluster_id)
    hosts = await inventory.listing(connection, "host", cluster_id=cluster_id, state="up")
    rooms = (_room(host, counts.get(host["id"], 0), cluster) for host in hosts if cluster)
    return tuple(
        _without(room, kept[room.host_id]) if room.host_id in kept else room for room in rooms
    )


def _room(host: Row, vms: int, cluster: Row) -> Room:
    return Room(
        host_id=host["id"],
        name=host["name"],
        epoch=host["epoch"],
        has_mib=host["memory_mib"],
        memory_mib=memory_allowed_mib(host["memory_mib"], cluster["memory_overcommit"]),
        reserved_mib=host["memory_reserved_mib"],
        vms=vms,
        vcpus_reserved=host["vcpus_reserved"],
        vcpus_most=vcpus_allowed(host["cpus"], cluster["vcpu_overcommit"]),
    )


def _without(room: Room, kept: made_room.Kept) -> Room:
    """The room that is left beside what is kept for others, as if that was reserved."""
    taken = {"reserved_mib": _raised(room.reserved_mib, kept.memory_mib, room.memory_mib)}
    if room.vcpus_most is not None:
        taken["vcpus_reserved"] = _raised(room.vcpus_reserved, kept.vcpus, room.vcpus_most)
    return room.model_copy(update=taken)


def _raised(reserved: int, kept: int, most: int) -> int:
    return max(reserved, min(most, reserved + kept))


async def _shown(connection: AsyncConnection, vm: Row) -> tuple[str, ...]:
    """Hosts that show a process of a VM that has run before, whoever starts it now.

    Where it was read as gone, a poll of before that says nothing: who starts a VM that has just
    ended is not made to wait for the next one.
    """
    if vm["generation"] == 0:
        return ()
    found = await shown.shown(connection, vm["cluster_id"], [vm["id"]])
    if vm["id"] not in found:
        return ()
    last = await ended_runs.last(connection, vm["id"])
    return tuple(one.name for one in found[vm["id"]] if not _left(one, last))


def _left(seen: shown.Shower, last: Row | None) -> bool:
    """Whether a VM was read as gone from a host since that host was polled."""
    if last is None or last["state"] != RunState.ENDED or last["host_id"] != seen.host_id:
        return False
    return bool(seen.at <= last["ended_at"])


async def _is_in(
    connection: AsyncConnection, operation_id: UUID, attempt: int, *, open_: bool = False
) -> bool:
    """Whether an operation is in this try, the last word of an older one being refused."""
    row = await operations.get(connection, operation_id)
    if row is None or row["attempt"] != attempt:
        return False
    return not open_ or row["state"] in operations.OPEN


async def _row(connection: AsyncConnection, entity: str, order: PlaceOrder) -> Row:
    row = await inventory.get(connection, entity, order.vm_id)
    if row is None:
        raise NotFound("VM_NOT_FOUND", f"there is no VM {order.vm_id}")
    return row
