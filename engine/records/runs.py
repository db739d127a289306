"""Rows of runs, as the steps on guests keep them."""

from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from activities.guests import PlaceOrder
from domain.disarming import DISARMED, starts_known
from domain.errors import NotFound, Refused, Superseded
from domain.explain_vms import explain_place
from domain.orders import Placement, RunRef
from domain.placement import Guest, NoRoom, Room, place_again_and_tell
from engine.affinity import affinity_of
from engine.clock import Clock, utc_now
from engine.records.explaining import note_explanations
from engine.refs import run_ref
from store import inventory, locks, operations, runs, vms
from store.database import Database, Work
from store.rows import Row


class RunRecords:
    """Implements the port of `activities.guests`."""

    def __init__(self, database: Database, clock: Clock = utc_now) -> None:
        self._database = database
        self._clock = clock

    async def place(self, order: PlaceOrder) -> Placement:
        """Choose a host and write the next run as placed, or say why there is no room."""
        return await self._database.write(lambda connection: self._place(connection, order))

    async def _place(self, connection: AsyncConnection, order: PlaceOrder) -> Placement:
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
        rooms = await rooms_of(connection, vm["cluster_id"])
        if order.host_id is not None:
            rooms = tuple(room for room in rooms if room.host_id == order.host_id)
        rules = await affinity_of(connection, vm["cluster_id"])
        told = place_again_and_tell(guest_of(vm), rooms, rules, order.prefer_id, order.avoid)
        if order.incident_id is not None:
            place = (vm["id"], vm["name"], explain_place(told))
            await note_explanations(connection, order.incident_id, [place], self._clock())
        choice = told.choice
        if isinstance(choice, NoRoom):
            return Placement(no_room=choice.detail)
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
        run = await runs.note_gave_way(connection, run, choice.gave_way)
        return Placement(run=await ref_of(connection, run))

    async def begin_start(self, run: RunRef) -> None:
        """Claim the run for `create()`; Superseded when it may not start any more."""

        async def work(connection: AsyncConnection) -> bool:
            found = await runs.get(connection, run.run_id)
            if found is not None and found["state"] == "running":
                return True  # an earlier try got through and only its answer was lost
            if await runs.begin_start(connection, run.run_id, run.operation_id):
                return True
            if await runs.frozen(connection, run.run_id):
                raise frozen(run.spec.name)
            return False

        await self._must(work, run, "may not start any more")

    async def started(self, run: RunRef) -> None:
        """Record the run as running; Superseded when it was closed meanwhile."""
        now = self._clock()
        await self._must(lambda c: runs.started(c, run.run_id, now), run, "was closed meanwhile")

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
            return await ref_of(connection, run)

        return await self._database.write(work)

    async def withdrawn(self, run: RunRef) -> None:
        """Close a run that was taken back and read as gone; closed already is success."""
        now = self._clock()

        async def work(connection: AsyncConnection) -> None:
            found = await runs.get(connection, run.run_id)
            reason = found["end_reason"] if found else None
            await runs.end(connection, run.run_id, reason or "withdrawn", now)

        await self._database.write(work)

    async def begin_stop(self, run: RunRef) -> None:
        """Record that the run's end was asked for."""
        await self._must(lambda c: runs.begin_stop(c, run.run_id), run, "is not running any more")

    async def ended(self, run: RunRef, reason: str) -> None:
        """Close the run and free its memory; closed already is success."""
        now = self._clock()
        await self._database.write(lambda c: runs.end(c, run.run_id, reason, now))

    async def _must(self, work: Work[bool], run: RunRef, what: str) -> None:
        if not await self._database.write(work):
            raise Superseded(
                "SUPERSEDED",
                f"run {run.generation} of {run.spec.name} on {run.host_name} {what}",
                next_step="look at the VM: a recovery or another operation took it over",
                vm=run.spec.name,
                generation=run.generation,
            )


async def _refuse_frozen(connection: AsyncConnection, order: PlaceOrder, vm: Row) -> None:
    if order.incident_id is None:
        return
    cluster = await inventory.get(connection, "cluster", vm["cluster_id"])
    if cluster and not starts_known(armed=cluster["armed"], mode=cluster["disarm_mode"]):
        raise frozen(vm["name"])


def frozen(vm: str) -> Refused:
    """The refusal of a start that belongs to a recovery while everything is frozen."""
    return Refused(
        DISARMED,
        f"{vm} is not started: its cluster is disarmed, and recoveries are frozen",
        next_step="`holdfast cluster arm NAME`, or cancel this start",
        vm=vm,
    )


async def ref_of(connection: AsyncConnection, run: Row) -> RunRef:
    """A run's row with what a step needs of its VM, host and cluster."""
    vm = await vms.of_run(connection, run["id"])
    assert vm is not None
    host = {"id": run["host_id"], "name": vm["host_name"], "uri": vm["host_uri"]}
    nics = await vms.nics_of(connection, [vm["id"]])
    return run_ref(run, vm, host, vm["virt_type"], nics.get(vm["id"], ()))


async def rooms_of(connection: AsyncConnection, cluster_id: UUID) -> tuple[Room, ...]:
    """Hosts of a cluster that may receive VMs, by name."""
    counts = await runs.active_counts(connection, cluster_id)
    hosts = await inventory.listing(connection, "host", cluster_id=cluster_id, state="up")
    return tuple(
        Room(
            host_id=host["id"],
            name=host["name"],
            epoch=host["epoch"],
            memory_mib=host["memory_mib"],
            reserved_mib=host["memory_reserved_mib"],
            vms=counts.get(host["id"], 0),
        )
        for host in hosts
    )


def guest_of(vm: Row, depends_on: tuple[UUID, ...] = ()) -> Guest:
    """A VM as the planner sees it."""
    return Guest(
        vm_id=vm["id"],
        name=vm["name"],
        memory_mib=vm["memory_mib"],
        protected=vm["protected"],
        priority=vm["priority"],
        depends_on=depends_on,
    )


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
