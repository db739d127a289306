"""Rows of a VM whose copy on another host becomes its run, as the steps of that keep them."""

from datetime import datetime
from uuid import UUID, uuid5

from sqlalchemy.ext.asyncio import AsyncConnection

from activities.adoptions import Adoption, Standing
from activities.stray_copies import CopyStep
from domain.errors import Conflict, Unavailable
from domain.inventory import HostState
from domain.orders import RunRef
from domain.placement import NoRoom, Placed, place_one
from domain.stray_copies import no_room
from engine.affinity import affinity_of
from engine.clock import Clock, utc_now
from engine.records.resting import note_move
from engine.records.runs import rooms_of
from engine.records.stray_copies import mine
from engine.refs import guest_of
from store import adopting, inventory, operations, plumbing, runs, shown
from store.database import Database
from store.rows import Row

ADOPTED = "vm.copy_adopted"
"""Event: a copy of a VM that somebody had moved by hand is the VM's run now."""


class AdoptionRecords:
    """Implements the port of `activities.adoptions`."""

    def __init__(self, database: Database, clock: Clock = utc_now) -> None:
        self._database = database
        self._clock = clock

    async def standing(self, step: CopyStep) -> Standing:
        """What the books say, while the VM's run is the one that was ordered."""

        async def work(connection: AsyncConnection) -> Standing:
            vm = await mine(connection, step)
            read = (step.host.host_id, step.run.host_id if step.run else None)
            place = await _place(connection, step, vm)
            return Standing(
                newest=vm["generation"],
                elsewhere=await shown.elsewhere(connection, vm, read, shown.MAY_RUN),
                no_room=place.detail if isinstance(place, NoRoom) else "",
            )

        return await self._database.read(work)

    async def next_generation(self, step: CopyStep) -> int:
        """Take the VM's next generation."""

        async def work(connection: AsyncConnection) -> int:
            vm = await mine(connection, step)
            taken = await adopting.next_generation(connection, vm["id"])
            if taken is None:
                detail = f"another generation of {step.vm_name} was taken in the same moment"
                raise Unavailable("GENERATION_TAKEN", detail)
            return taken

        return await self._database.write(work)

    async def is_adopted(self, adoption: Adoption) -> bool:
        """Whether this adoption has changed the books already, and only its answer was lost."""
        return await self._database.read(lambda c: plumbing.has_event(c, _event_id(adoption)))

    async def adopted(self, adoption: Adoption) -> None:
        """End the run, begin the new one where the copy lives, and tell of it. One transaction."""
        await self._database.write(lambda c: self._adopted(c, adoption))

    async def _adopted(self, connection: AsyncConnection, adoption: Adoption) -> None:
        step = adoption.step
        if await plumbing.has_event(connection, _event_id(adoption)):
            return  # an earlier try got through and only its answer was lost
        vm = await mine(connection, step)
        place = await _place(connection, step, vm)
        if isinstance(place, NoRoom):
            raise no_room(step.vm_name, step.host.name, place.detail)
        assert step.run is not None
        run = await adopting.adopted(
            connection, step.run, step.host, adoption.generation, self._clock()
        )
        if run is None:
            raise await _out_of_service(connection, step.run)
        await runs.note_gave_way(connection, run, place.gave_way)
        await note_move(connection, vm, step.host.host_id, step.operation_id)
        operation = await operations.get(connection, step.operation_id)
        assert operation is not None
        await plumbing.append_event(connection, _told(adoption, operation, self._clock()))


def _event_id(adoption: Adoption) -> UUID:
    # A later try of the operation adopts what the VM has become since, in a generation of its own.
    return uuid5(adoption.step.operation_id, f"{ADOPTED} {adoption.generation}")


def _told(adoption: Adoption, operation: Row, now: datetime) -> Row:
    step = adoption.step
    data = {"name": step.vm_name, "host": step.host.name, "generation": adoption.generation}
    data |= {"was": step.run and step.run.host_name, "reason": operation["reason"]}
    return {
        "id": _event_id(adoption),
        "type": ADOPTED,
        "subject_type": "vm",
        "subject_id": step.vm_id,
        "principal": operation["principal"],
        "correlation_id": operation["correlation_id"],
        "operation_id": operation["id"],
        "data": data,
        "at": now,
    }


async def _place(connection: AsyncConnection, step: CopyStep, vm: Row) -> Placed | NoRoom:
    """Whether the host of the copy may have the VM: in service, room, hard affinity rules.

    The copy has what its run had, whatever was edited since.
    """
    host = await inventory.get(connection, "host", step.host.host_id)
    if host is None or (host["state"], host["epoch"]) != (HostState.UP, step.host.epoch):
        how = f"{host['state']}, in epoch {host['epoch']}" if host else "not there any more"
        return NoRoom(vm_id=step.vm_id, detail=f"{step.host.name} is {how}")
    rooms = await rooms_of(connection, vm["cluster_id"], but_for=vm["id"])
    there = tuple(room for room in rooms if room.host_id == step.host.host_id)
    run = await runs.active_run(connection, vm["id"])
    has = {} if run is None else {name: run[name] for name in ("memory_mib", "vcpus")}
    return place_one(guest_of(vm | has), there, await affinity_of(connection, vm["cluster_id"]))


async def _out_of_service(connection: AsyncConnection, run: RunRef) -> Conflict:
    host = await inventory.get(connection, "host", run.host_id)
    assert host is not None
    return Conflict(
        "HOST_STATE_FORBIDS",
        f"{run.host_name}, where {run.spec.name} should run in epoch {run.epoch}, is "
        f"{host['state']} in epoch {host['epoch']}: that it has no copy is not known any more",
        next_step=f"adopt it once {run.host_name} is up",
        vm=run.spec.name,
        host=run.host_name,
        state=host["state"],
    )
