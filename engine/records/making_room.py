"""Room for a VM that a recovery could place nowhere: others are stopped, and started again later.

Whom to stop is `domain.make_room`'s choice; what allows it stands in the statement that claims it.
Until the VM has its place nobody else gets the room. Those that were stopped are started again by
operations of their own, which wait for room like any other start.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from activities.guests import PlaceOrder
from domain.affinity import Affinity
from domain.disarming import acts_on_known
from domain.errors import Refused
from domain.explain_vms import explain_room
from domain.inventory import HostState, RunState
from domain.make_room import (
    MakeRoom,
    RoomMade,
    Running,
    make_room,
    needed_most,
    stop_again_after_s,
)
from domain.placement import Guest, Room
from engine.acceptance import Terms
from engine.actions.vms import StartVm, StopVm
from engine.backend import Backend
from engine.clock import Clock, utc_now
from engine.records.explaining import note_explanations
from engine.refs import guest_of
from store import inventory, locks, made_room, operations, runs
from store.database import Database
from store.ids import new_id
from store.rows import Row

log = structlog.get_logger()

LOOKED_AT = 200
"""VMs that one look starts again. Higher: a longer round. Lower: the last start later."""


class NotMade(Exception):
    """What was planned was not allowed any more: nothing of it is to be written."""


@dataclass(frozen=True)
class Wanting:
    """A VM of an incident without a place, and what its placing looked at."""

    order: PlaceOrder
    incident_id: UUID
    vm: Row
    rooms: tuple[Room, ...]
    affinity: Affinity


async def room_is_made(
    connection: AsyncConnection, backend: Backend, wanting: Wanting, now: datetime
) -> str | None:
    """Have others stopped for a VM; a sentence about what is awaited, or None: nobody may be.

    In the transaction that is open. `NotMade` when somebody else was quicker: then that is to be
    rolled back.
    """
    pending = await made_room.awaited(connection, wanting.order.operation_id)
    if stopping := [row for row in pending if row["stopping"]]:
        names = ", ".join(row["name"] for row in stopping)
        return _awaits(wanting.vm, names, stopping[0]["host_name"])
    if pending:  # they have ended, and it did not help
        await made_room.served(connection, wanting.vm["id"])
    cluster = await inventory.get(connection, "cluster", wanting.vm["cluster_id"])
    if cluster is None or not _allowed(cluster):
        return None
    guest = guest_of(wanting.vm)
    left = cluster["make_room_max"] - await made_room.stopped_in(connection, wanting.incident_id)
    running = await _running(connection, wanting.vm["cluster_id"])
    known = tuple(one for one, _run in running.values())
    found = make_room(guest, wanting.rooms, wanting.affinity, known, left)
    told = (guest.vm_id, guest.name, explain_room(guest, found, left))
    await note_explanations(connection, wanting.incident_id, [told], now)
    if not isinstance(found, RoomMade) or not found.stop:
        return None
    for one in found.stop:
        await _stop(connection, backend, wanting, (one, running[one.vm_id][1], found.host_id), now)
    return _awaits(wanting.vm, found.names, found.host)


def _allowed(cluster: Row) -> bool:
    acts = acts_on_known(armed=cluster["armed"], mode=cluster["disarm_mode"])
    return bool(cluster["make_room"] == MakeRoom.SHUTDOWN and acts)


def _awaits(vm: Row, names: str, host: str) -> str:
    return f"{names} on {host} is being stopped to make room for {vm['name']}"


async def _running(
    connection: AsyncConnection, cluster_id: UUID
) -> dict[UUID, tuple[Running, UUID]]:
    """VMs that run in a cluster as the planner sees them, each with its run."""
    rows = await made_room.running(connection, cluster_id)
    held = await locks.held(connection, [("vm", row["id"]) for row in rows])
    every = await inventory.listing(connection, "vm", cluster_id=cluster_id)
    wanted = {row["id"]: row["priority"] for row in every if row["wanted"]}
    needed = needed_most(await inventory.dependencies(connection), wanted)
    return {
        row["id"]: (
            Running(
                # It may have been edited since: its end frees what its run has taken.
                guest=guest_of(
                    row | {"memory_mib": row["run_memory_mib"], "vcpus": row["run_vcpus"]}
                ),
                host_id=row["host_id"],
                may_be_stopped=row["may_be_stopped"],
                needed_by=needed.get(row["id"]),
                in_hands=bool(row["is_owed"]) or ("vm", row["id"]) in held,
            ),
            row["run_id"],
        )
        for row in rows
    }


async def _stop(
    connection: AsyncConnection,
    backend: Backend,
    wanting: Wanting,
    which: tuple[Guest, UUID, UUID],
    now: datetime,
) -> None:
    guest, run_id, host_id = which
    parent = await operations.get(connection, wanting.order.operation_id)
    assert parent is not None
    row = {
        "id": new_id(),
        "incident_id": wanting.incident_id,
        "for_vm_id": wanting.vm["id"],
        "for_operation_id": parent["id"],
        "vm_id": guest.vm_id,
        "run_id": run_id,
        "host_id": host_id,
        "waiting": 1,
        "owed": 1,
        "created_at": now,
    }
    if not await made_room.claim(connection, row):
        raise NotMade
    reason = f"made room for {wanting.vm['name']}, incident {wanting.incident_id}"
    stop = StopVm(vm_id=guest.vm_id, for_vm_id=wanting.vm["id"])
    try:
        stop_id = await backend.run_child(stop, parent, Terms(), reason=reason)
    except Refused as error:
        raise NotMade from error
    await made_room.note_stop(connection, row["id"], stop_id)


class StoppedForOthers:
    """Starts the VMs again that were stopped for others."""

    def __init__(self, database: Database, backend: Backend, clock: Clock = utc_now) -> None:
        self._database = database
        self._backend = backend
        self._clock = clock

    async def start_again(self) -> int:
        """Order the starts that are due; how many. Repeatable, and safe beside others."""
        waiting = await self._database.read(lambda c: made_room.due(c, LOOKED_AT))
        started = 0
        for row in waiting:
            try:
                started += await self._database.write(partial(self._settle, row["id"]))
            except Refused as error:  # the others are to be started all the same
                log.warning("not started again", vm_id=str(row["vm_id"]), code=error.code)
        return started

    async def _settle(self, row_id: UUID, connection: AsyncConnection) -> bool:
        rows = await made_room.due(connection, 1, row_id=row_id)
        if not rows or await locks.holder(connection, "vm", rows[0]["vm_id"]) is not None:
            return False
        row = rows[0]
        active = await runs.active_run(connection, row["vm_id"])
        if active is not None and active["state"] != RunState.RUNNING:
            due_at = await _stops_again_at(connection, row, active)
            if due_at is not None and due_at <= self._clock():
                await self._stop_again(connection, row)
            return False  # it is still owed a start, once it has ended
        start_id = None
        if active is None and await _is_wanted(connection, row):
            start_id = await self._start(connection, row)
        return await made_room.settle(connection, row_id, start_id) and start_id is not None

    async def _start(self, connection: AsyncConnection, row: Row) -> UUID:
        reason = f"it was stopped to make room for {row['for_name']}, which has its place"
        return await self._backend.run_child(
            StartVm(vm_id=row["vm_id"]), await _parent(connection, row), Terms(), reason=reason
        )

    async def _stop_again(self, connection: AsyncConnection, row: Row) -> None:
        stop = StopVm(vm_id=row["vm_id"], for_vm_id=row["for_vm_id"])
        reason = f"its stop for {row['for_name']} was left half done"
        parent = await _parent(connection, row)
        stop_id = await self._backend.run_child(stop, parent, Terms(), reason=reason)
        await made_room.note_stop(connection, row["id"], stop_id)


async def _parent(connection: AsyncConnection, row: Row) -> Row:
    stop = await operations.get(connection, row["stop_id"])
    assert stop is not None, "the archive leaves a stop that is owed a start"
    # It is no part of the recovery: that goes on without it, and it stops nobody itself.
    return stop | {"incident_id": None}


async def stops_again_at(connection: AsyncConnection, vm_id: UUID, run: Row) -> datetime | None:
    """When a VM's stop for another that failed half way is ordered again; None for any other."""
    if run["state"] != RunState.STOPPING:
        return None
    row = await made_room.owed_to(connection, vm_id)
    return None if row is None else await _stops_again_at(connection, row, run)


async def _stops_again_at(connection: AsyncConnection, row: Row, active: Row) -> datetime | None:
    """When a run that was asked to end, and that nobody sees to, is asked again.

    None where that is not so, or its host cannot be told.
    """
    if active["id"] != row["run_id"] or active["state"] != RunState.STOPPING:
        return None
    host = await inventory.get(connection, "host", active["host_id"])
    if host is None or host["state"] != HostState.UP:
        return None
    failures, last_at = await made_room.failed_stops(connection, row)
    assert last_at is not None, "the archive leaves a stop that is owed a start"
    return last_at + timedelta(seconds=stop_again_after_s(failures))


async def _is_wanted(connection: AsyncConnection, row: Row) -> bool:
    """Whether the VM is still to run; an unprotected one whose host died first is left down."""
    vm = await inventory.get(connection, "vm", row["vm_id"])
    if vm is None or not vm["wanted"]:
        return False
    run = await runs.get(connection, row["run_id"])
    lost = run is not None and run["state"] == RunState.LOST
    return bool(vm["protected"]) or not lost
