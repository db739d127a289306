"""Statements on runs of VMs: the place where "never two copies" is decided.

Each function is one step in a run's life and a compare-and-set: it says False (or raises nothing
and changes nothing) when the row is not where the caller believes. Callers run them in one writing
transaction with whatever belongs together.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.inventory import ACTIVE_RUN_STATES, HostState, RunState
from store import hosts, licences
from store.disarming import starts_known
from store.ids import new_id
from store.made_room import stop_allowed
from store.prebuilt import among, like, prebuilt
from store.rows import Row, changed, in_chunks, inserted, many, one
from store.schema import cluster, host, vm
from store.schema_ha import death_certificate, vm_run

NEVER_STARTED = "never started"
"""Why a run ended that no process can ever have had."""


@prebuilt
def _get(run_id: UUID, /) -> sa.Select[Any]:
    return sa.select(vm_run).where(vm_run.c.id == run_id)


async def get(connection: AsyncConnection, run_id: UUID) -> Row | None:
    """One run by id."""
    return await one(connection, _get(run_id))


@prebuilt
def _active_run(vm_id: UUID, /) -> sa.Select[Any]:
    return sa.select(vm_run).where(vm_run.c.vm_id == vm_id, vm_run.c.active == 1)


async def active_run(connection: AsyncConnection, vm_id: UUID) -> Row | None:
    """The one run of a VM that may have a process, or None."""
    return await one(connection, _active_run(vm_id))


async def unsettled_here(
    connection: AsyncConnection, vm_id: UUID, host_id: UUID, epoch: int
) -> Row | None:
    """The newest run of a VM whose copy may be on this host: active, or lost in this epoch."""
    query = sa.select(vm_run).where(
        vm_run.c.vm_id == vm_id,
        vm_run.c.host_id == host_id,
        sa.or_(
            vm_run.c.active == 1,
            sa.and_(vm_run.c.state == RunState.LOST, vm_run.c.epoch == epoch),
        ),
    )
    return await one(connection, query.order_by(vm_run.c.generation.desc()).limit(1))


ACTIVE_RUNS = sa.select(vm_run).where(vm_run.c.active == 1).order_by(vm_run.c.vm_id)


@prebuilt
def _active_runs_on(host_id: UUID, /) -> sa.Select[Any]:
    return ACTIVE_RUNS.where(vm_run.c.host_id == host_id)


async def active_runs(connection: AsyncConnection, host_id: UUID | None = None) -> list[Row]:
    """Active runs, of one host or of all, by VM."""
    return await many(connection, ACTIVE_RUNS if host_id is None else _active_runs_on(host_id))


@prebuilt
def _active_counts(cluster_id: UUID, /) -> sa.Select[Any]:
    return (
        sa.select(vm_run.c.host_id, sa.func.count().label("runs"))
        .join(host, host.c.id == vm_run.c.host_id)
        .where(host.c.cluster_id == cluster_id, vm_run.c.active == 1)
        .group_by(vm_run.c.host_id)
    )


async def active_counts(connection: AsyncConnection, cluster_id: UUID) -> dict[UUID, int]:
    """How many active runs each host of a cluster has; one without any is left out."""
    rows = await many(connection, _active_counts(cluster_id))
    return {row["host_id"]: row["runs"] for row in rows}


@prebuilt
def _active_runs_of(vm_ids: Sequence[UUID], /) -> sa.Select[Any]:
    return sa.select(vm_run).where(vm_run.c.vm_id.in_(vm_ids), vm_run.c.active == 1)


async def active_runs_of(connection: AsyncConnection, vm_ids: list[UUID]) -> dict[UUID, Row]:
    """The active runs of these VMs."""
    found: dict[UUID, Row] = {}
    for ids in in_chunks(vm_ids):
        found |= {row["vm_id"]: row for row in await many(connection, _active_runs_of(ids))}
    return found


@prebuilt
def _vm(vm_id: UUID, /) -> sa.Select[Any]:
    return sa.select(vm).where(vm.c.id == vm_id)


@prebuilt
def _raise_generation(vm_id: UUID, generation: int, /) -> sa.Update:
    query = vm.update().where(vm.c.id == vm_id, vm.c.generation == generation)
    return query.values(generation=vm.c.generation + 1)


async def place(
    connection: AsyncConnection,
    vm_id: UUID,
    host_id: UUID,
    epoch: int,
    operation_id: UUID,
    now: datetime,
    *,
    licence_id: UUID | None = None,
    incident_id: UUID | None = None,
) -> Row | None:
    """Reserve what a VM takes and write its next run as `placed`; None when there is no room.

    None also when the VM has an active run: looking first only spares a loser its futile retries,
    it is the unique index on active runs that refuses a second one (I1). A run that follows a lost
    one names the certificate that licenses it.
    """
    found = await one(connection, _vm(vm_id))
    if found is None or await active_run(connection, vm_id) is not None:
        return None
    if not await hosts.reserve(connection, host_id, epoch, found):
        return None
    if await changed(connection, _raise_generation(vm_id, found["generation"])) != 1:
        await hosts.release(connection, host_id, found)
        return None
    row = {
        "id": new_id(),
        "vm_id": vm_id,
        "host_id": host_id,
        "epoch": epoch,
        "generation": found["generation"] + 1,
        "state": RunState.PLACED.value,
        "active": 1,
        "memory_mib": found["memory_mib"],
        "vcpus": found["vcpus"],
        "operation_id": operation_id,
        "licence_id": licence_id,
        "incident_id": incident_id,
        "gave_way": None,
        "created_at": now,
    }
    await inserted(connection, vm_run, row)
    return row


async def note_gave_way(connection: AsyncConnection, run: Row, rules: tuple[str, ...]) -> Row:
    """Keep which soft affinity rules a run's place breaks (I6); the run with them."""
    values = {"gave_way": list(rules) or None}
    if rules:
        await changed(connection, vm_run.update().where(vm_run.c.id == run["id"]).values(**values))
    return run | values


def _not_frozen() -> sa.ColumnElement[bool]:
    """Whether a run may start in its cluster: one of a recovery may not while all is frozen.

    What has begun before goes on: a copy may run already.
    """
    allowed = sa.exists().where(
        host.c.id == vm_run.c.host_id, cluster.c.id == host.c.cluster_id, starts_known()
    )
    begun = vm_run.c.state == sa.literal(RunState.STARTING.value)
    return sa.or_(vm_run.c.incident_id.is_(None), begun, allowed)


async def frozen(connection: AsyncConnection, run_id: UUID) -> bool:
    """Whether a placed run waits for its cluster to be armed."""
    placed = vm_run.c.state == RunState.PLACED.value
    query = sa.select(vm_run.c.id).where(vm_run.c.id == run_id, placed, ~_not_frozen())
    return await one(connection, query) is not None


@prebuilt
def _begin_start(run_id: UUID, operation_id: UUID, /) -> sa.Update:
    host_ready = sa.exists().where(
        host.c.id == vm_run.c.host_id,
        host.c.epoch == vm_run.c.epoch,
        among(host.c.state, [HostState.UP.value, HostState.CONNECTING.value]),
    )
    query = vm_run.update().where(
        vm_run.c.id == run_id,
        vm_run.c.operation_id == operation_id,
        among(vm_run.c.state, [RunState.PLACED.value, RunState.STARTING.value]),
        host_ready,
        _not_frozen(),
    )
    return query.values(state=RunState.STARTING.value)


async def begin_start(connection: AsyncConnection, run_id: UUID, operation_id: UUID) -> bool:
    """Claim a placed run for `create()`: the last word before a process may exist (I1, I2).

    True only if the run is still this operation's, its host is `up` at the run's epoch, and valid
    certificates license it: raising `uses` locks their rows until commit, so voiding one and
    starting under it cannot both happen. Repeatable.
    """
    run = await get(connection, run_id)
    if run is None or not await licences.licensed(connection, run):
        return False
    return await changed(connection, _begin_start(run_id, operation_id)) == 1


@prebuilt
def _started(run_id: UUID, now: datetime, /) -> sa.Update:
    expected = [RunState.STARTING.value, RunState.RUNNING.value]
    query = vm_run.update().where(vm_run.c.id == run_id, among(vm_run.c.state, expected))
    first = vm_run.c.started_at
    at = sa.func.coalesce(first, like(now, first), type_=first.type)
    return query.values(state="running", started_at=at)


async def started(connection: AsyncConnection, run_id: UUID, now: datetime) -> bool:
    """Record that the run was read back as running. Repeatable."""
    return await changed(connection, _started(run_id, now)) == 1


async def begin_stop(connection: AsyncConnection, run_id: UUID) -> bool:
    """Record that the end of a run was asked for, where it may be (`stop_allowed`). Repeatable."""
    expected = [RunState.STARTING.value, RunState.RUNNING.value, RunState.STOPPING.value]
    which = (vm_run.c.id == run_id, among(vm_run.c.state, expected), stop_allowed())
    return await changed(connection, vm_run.update().where(*which).values(state="stopping")) == 1


async def begin_withdraw(connection: AsyncConnection, run_id: UUID, operation_id: UUID) -> bool:
    """Take back a run by the operation that placed it: nobody claims it any more. Repeatable."""
    query = vm_run.update().where(
        vm_run.c.id == run_id, vm_run.c.active == 1, vm_run.c.operation_id == operation_id
    )
    reason = sa.case(
        (vm_run.c.state == RunState.PLACED.value, NEVER_STARTED),
        else_=sa.func.coalesce(vm_run.c.end_reason, "withdrawn"),
    )
    return await changed(connection, query.values(state="stopping", end_reason=reason)) == 1


async def end(connection: AsyncConnection, run_id: UUID, reason: str, now: datetime) -> bool:
    """Close a run that was read back as gone on its live host, and free what it has taken."""
    run = await get(connection, run_id)
    return await _close(connection, run, now, state="ended", end_reason=reason)


@prebuilt
def _lose_under(certificate_id: UUID, host_id: UUID, epoch: int, /) -> sa.Update:
    query = death_certificate.update().where(
        death_certificate.c.id == certificate_id,
        death_certificate.c.state == "valid",
        death_certificate.c.host_id == host_id,
        death_certificate.c.epoch == epoch,
    )
    return query.values(uses=death_certificate.c.uses + 1)


async def lose(
    connection: AsyncConnection, run_id: UUID, certificate_id: UUID, now: datetime
) -> bool:
    """Close a run whose host is proven dead, under a valid certificate of its host and epoch."""
    run = await get(connection, run_id)
    if run is None or run["active"] is None:
        return False
    if await changed(connection, _lose_under(certificate_id, run["host_id"], run["epoch"])) != 1:
        return False
    return await _close(
        connection, run, now, state="lost", end_reason="host dead", lost=certificate_id
    )


@prebuilt
def _closed(
    run_id: UUID, state: str, now: datetime, end_reason: str, lost: UUID | None, /
) -> sa.Update:
    # Only what has read both of its hosts may close a run that moves: see `store.migrating`.
    states = [s.value for s in ACTIVE_RUN_STATES if s is not RunState.MIGRATING]
    query = vm_run.update().where(
        vm_run.c.id == run_id, vm_run.c.active == 1, among(vm_run.c.state, states)
    )
    return query.values(
        state=state, active=None, ended_at=now, end_reason=end_reason, lost_certificate_id=lost
    )


async def _close(
    connection: AsyncConnection,
    run: Row | None,
    now: datetime,
    *,
    state: str,
    end_reason: str,
    lost: UUID | None = None,
) -> bool:
    if run is None:
        return False
    if await changed(connection, _closed(run["id"], state, now, end_reason, lost)) != 1:
        return False
    await hosts.release(connection, run["host_id"], run)
    return True


@prebuilt
def _lost_without_successor(host_id: UUID, epoch: int, /) -> sa.Select[Any]:
    other = vm_run.alias("other")
    followed = sa.exists().where(other.c.vm_id == vm_run.c.vm_id, other.c.active == 1)
    removed = sa.exists().where(vm.c.id == vm_run.c.vm_id, vm.c.removed_at.is_not(None))
    query = sa.select(vm_run).where(
        vm_run.c.host_id == host_id,
        vm_run.c.epoch == epoch,
        vm_run.c.state == RunState.LOST,
        sa.not_(followed),
        sa.not_(removed),
    )
    return query.order_by(vm_run.c.vm_id)


async def lost_without_successor(
    connection: AsyncConnection, host_id: UUID, epoch: int
) -> list[Row]:
    """Lost runs of a host's epoch whose VMs are there and have no active run, by VM."""
    return await many(connection, _lost_without_successor(host_id, epoch))


async def end_unclaimed(
    connection: AsyncConnection, vm_id: UUID, operation_id: UUID, now: datetime
) -> bool:
    """Close an operation's run that was never claimed for `create()`: no copy of it can exist."""
    run = await active_run(connection, vm_id)
    if run is None or run["operation_id"] != operation_id or run["state"] != RunState.PLACED:
        return False
    query = vm_run.update().where(vm_run.c.id == run["id"], vm_run.c.state == RunState.PLACED)
    values = {"state": "ended", "active": None, "ended_at": now, "end_reason": NEVER_STARTED}
    if await changed(connection, query.values(**values)) != 1:
        return False
    await hosts.release(connection, run["host_id"], run)
    return True


@prebuilt
def _adopt(host_id: UUID, epoch: int, /) -> sa.Update:
    query = vm_run.update().where(vm_run.c.host_id == host_id, vm_run.c.active == 1)
    return query.values(epoch=epoch)


async def adopt(connection: AsyncConnection, host_id: UUID, epoch: int) -> int:
    """Carry a reconciled host's surviving runs into its new epoch; how many there are."""
    return await changed(connection, _adopt(host_id, epoch))


async def newest_generation(connection: AsyncConnection, vm_id: UUID) -> int | None:
    """The VM's generation, or None when the engine does not know the VM."""
    found = await one(connection, _vm(vm_id))
    return None if found is None else int(found["generation"])


async def revive(connection: AsyncConnection, vm_id: UUID, host_id: UUID, generation: int) -> bool:
    """Make a lost run active again whose copy was found alive on its host; False if it may not.

    Only while the VM has no active run (I1), and no newer one ever had a process: a newer run that
    was placed and taken back again changed nothing. Nor once the VM was removed. What the copy
    takes counts whether there is room or not: the copy is there.
    """
    other = vm_run.alias("other")
    newer = sa.and_(
        other.c.generation > generation,
        sa.func.coalesce(other.c.end_reason, "") != NEVER_STARTED,
    )
    query = vm_run.update().where(
        vm_run.c.vm_id == vm_id,
        vm_run.c.host_id == host_id,
        vm_run.c.generation == generation,
        vm_run.c.state == RunState.LOST,
        ~sa.exists().where(other.c.vm_id == vm_id, sa.or_(other.c.active == 1, newer)),
        ~sa.exists().where(vm.c.id == vm_id, vm.c.removed_at.is_not(None)),
    )
    values = {
        "state": "running",
        "active": 1,
        "lost_certificate_id": None,
        "ended_at": None,
        "end_reason": None,
    }
    if await changed(connection, query.values(**values)) != 1:
        return False
    run = await active_run(connection, vm_id)
    assert run is not None, "the statement above has made it active"
    return await hosts.take(connection, host_id, run)
