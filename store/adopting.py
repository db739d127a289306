"""The statements by which the books follow a VM to the host on which its one copy was read.

The last one asks for what its caller has read: the run is the one whose host was read without a
copy, in the boot that is in service now, and the generation is the one that the copy was marked
with.
"""

from datetime import datetime
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.inventory import RunState
from domain.orders import HostRef, RunRef
from store import hosts, runs
from store.ids import new_id
from store.migrating import source_serves
from store.rows import Row, changed
from store.schema import vm
from store.schema_ha import vm_run

ADOPTED = "copy adopted"
"""Why a run ended whose VM was read as living on another host, and was adopted there."""


async def next_generation(connection: AsyncConnection, vm_id: UUID) -> int | None:
    """Take a VM's next generation; None when somebody took one in the same moment."""
    newest = await runs.newest_generation(connection, vm_id)
    query = vm.update().where(vm.c.id == vm_id, vm.c.generation == newest)
    generation = int(newest or 0) + 1
    return generation if await changed(connection, query.values(generation=generation)) else None


async def adopted(
    connection: AsyncConnection, old: RunRef, there: HostRef, generation: int, now: datetime
) -> Row | None:
    """End a running run and begin the VM's next one on another host, where its copy lives.

    None, and nothing is changed, when that host is not `up` in that epoch or has no room, when the
    run is not `running` in its epoch on a host in service, or the VM has not taken `generation`. A
    number that a late step has taken beyond it is only skipped.
    The new run keeps the time since which the guest runs, and the operation that started it.
    """
    run, place = await runs.get(connection, old.run_id), (there.host_id, there.epoch)
    if run is None or not await hosts.reserve(connection, *place, run):
        return None
    taken = sa.exists().where(vm.c.id == vm_run.c.vm_id, vm.c.generation >= generation)
    query = vm_run.update().where(
        vm_run.c.id == old.run_id,
        vm_run.c.active == 1,
        vm_run.c.state == RunState.RUNNING,
        vm_run.c.epoch == old.epoch,
        vm_run.c.host_id != there.host_id,
        vm_run.c.generation < generation,
        taken,
        source_serves(),
    )
    ended = {"state": "ended", "active": None, "ended_at": now, "end_reason": ADOPTED}
    if await changed(connection, query.values(**ended)) != 1:
        await hosts.release(connection, there.host_id, run)
        return None
    await hosts.release(connection, run["host_id"], run)
    row = {name: run[name] for name in ("vm_id", "memory_mib", "vcpus", "operation_id")} | {
        "id": new_id(),
        "host_id": there.host_id,
        "epoch": there.epoch,
        "generation": generation,
        "state": RunState.RUNNING.value,
        "active": 1,
        "licence_id": None,
        "incident_id": None,
        "gave_way": None,
        "created_at": now,
        "started_at": run["started_at"] or now,
    }
    await changed(connection, vm_run.insert().values(**row))
    return row
