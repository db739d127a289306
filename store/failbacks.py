"""Statements on VMs that go back to their homes.

A row is written by the one statement that holds every condition; two unique keys say that a VM goes
once, and that one VM at a time goes to a home. While it is `open` its migration is under way. One
that failed keeps its row until the next try, or until the VM is at home.

How long a home has been up, and how long ago a try failed, monitors tell by their own clocks
(decision 13): `failback_age` notes their counts when it is first looked at. A home that left `up`
in between has another `since`, so its age begins anew.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.failback import Failback
from domain.inventory import HostState, RunState
from store.bulk import insert_many
from store.hosts import takes_memory, takes_vcpus
from store.operations import IS_OPEN
from store.prebuilt import prebuilt
from store.rows import Row, changed, in_chunks, many, number, one
from store.schema import cluster, entity_lock, host, operation, vm
from store.schema_ha import failback, failback_age, incident, monitor, vm_run

home = host.alias("home")
AUTO = sa.literal(Failback.AUTO.value)
RUNNING = sa.literal(RunState.RUNNING.value)
UP = sa.literal(HostState.UP.value)
RUNS = (vm_run.c.memory_mib.label("run_memory_mib"), vm_run.c.vcpus.label("run_vcpus"))
"""What the run of a VM has taken, which may have been edited since."""


def _watched(subject_id: Any, since: Any, at_least_ms: Any) -> sa.ColumnElement[bool]:
    """Whether some monitor has watched so long since it first saw that."""
    return sa.exists().where(
        failback_age.c.subject_id == subject_id,
        failback_age.c.since == since,
        monitor.c.name == failback_age.c.monitor,
        monitor.c.watched_ms - failback_age.c.since_ms >= at_least_ms,
    )


def _is_held_back() -> sa.ColumnElement[bool]:
    """Whether the wait after the VM's last try, which failed, still lasts."""
    tried = failback.alias("tried")
    return sa.exists().where(
        tried.c.vm_id == vm.c.id,
        tried.c.open.is_(None),
        ~_watched(tried.c.id, tried.c.claimed_at, 1000 * tried.c.wait_s).correlate(tried),
    )


def _others() -> sa.ColumnElement[bool]:
    """Whether nobody is at work on the VM, its home or its cluster, and no try holds it back."""
    struck, going = host.alias("struck"), failback.alias("going")
    opened = sa.exists().where(
        struck.c.cluster_id == vm.c.cluster_id,
        incident.c.host_id == struck.c.id,
        incident.c.open == 1,
    )
    locked = sa.exists().where(
        entity_lock.c.entity_type == sa.literal("vm"), entity_lock.c.entity_id == vm.c.id
    )
    asked = sa.exists().where(operation.c.target_id.in_([vm.c.id, home.c.id]), IS_OPEN)
    goes = sa.exists().where(
        sa.or_(going.c.vm_id == vm.c.id, going.c.home_id == home.c.id), going.c.open == 1
    )
    return sa.and_(~opened, ~locked, ~asked, ~_is_held_back(), ~goes)


def _away(*columns: sa.ColumnElement[Any]) -> sa.Select[Any]:
    """Of VMs that may be moved home now, by all that rows can say: not by the hard rules."""
    stable = _watched(home.c.id, home.c.state_since, 1000 * cluster.c.failback_after_s)
    here = sa.and_(host.c.id == vm_run.c.host_id, host.c.epoch == vm_run.c.epoch)
    there = sa.and_(home.c.id == vm.c.home_id, home.c.cluster_id == vm.c.cluster_id)
    joined = (
        vm.join(vm_run, vm_run.c.vm_id == vm.c.id)
        .join(host, here)
        .join(home, there)
        .join(cluster, cluster.c.id == vm.c.cluster_id)
    )
    return (
        sa.select(*columns)
        .select_from(joined)
        .where(
            *(vm.c.failback == AUTO, vm.c.failback_rests.is_(False), vm.c.removed_at.is_(None)),
            *(vm_run.c.active == 1, vm_run.c.state == RUNNING, vm_run.c.host_id != vm.c.home_id),
            *(host.c.state == UP, home.c.state == UP, cluster.c.armed.is_(True)),
            takes_memory(home, vm_run.c.memory_mib),
            takes_vcpus(home, vm_run.c.vcpus),
            stable.correlate(home, cluster),
            _others(),
        )
    )


@prebuilt
def _due() -> sa.Select[Any]:
    rows = _away(*vm.c, *RUNS, vm_run.c.host_id.label("host_id"))
    return rows.order_by(vm.c.priority.desc(), vm.c.name)


async def due(connection: AsyncConnection) -> list[Row]:
    """VMs that may be moved home as far as rows say so, the most important first.

    All of them: what rules keep away, which no row says, must not hide those behind it. `host_id`
    is where one runs; `run_memory_mib` and `run_vcpus` move with it.
    """
    return await many(connection, _due())


@prebuilt
def _homebound(cluster_id: UUID, /) -> sa.Select[Any]:
    return (
        sa.select(*vm.c, *RUNS)
        .join(vm_run, vm_run.c.vm_id == vm.c.id)
        .where(
            *(vm.c.cluster_id == cluster_id, vm.c.failback == AUTO, ~_is_held_back()),
            *(vm.c.failback_rests.is_(False), vm.c.removed_at.is_(None)),
            *(vm_run.c.active == 1, vm_run.c.state == RUNNING, vm_run.c.host_id != vm.c.home_id),
        )
    )


async def homebound(connection: AsyncConnection, cluster_id: UUID) -> list[Row]:
    """VMs of a cluster that run away from their homes and go there by themselves.

    One that waits after a try that failed is not among them: nobody is to count on it meanwhile.
    With `run_memory_mib` and `run_vcpus`, which move with it.
    """
    return await many(connection, _homebound(cluster_id))


async def claim(connection: AsyncConnection, values: Row, per_host: int) -> bool:
    """Note that a VM goes home; False when that is not allowed (any more).

    One statement holds every condition; see `_away` and, of the limit of migrations, here.
    """
    moving = vm_run.alias("moving")
    under_way = sa.select(sa.func.count()).where(moving.c.state == RunState.MIGRATING.value)
    leaving = under_way.where(moving.c.host_id == vm_run.c.host_id).scalar_subquery()
    coming = under_way.where(moving.c.target_host_id == home.c.id).scalar_subquery()
    given: dict[str, sa.ColumnElement[Any]] = {
        name: sa.literal(value, failback.c[name].type) for name, value in values.items()
    }
    given |= {"vm_id": vm.c.id, "home_id": home.c.id}
    query = _away(*given.values()).where(
        vm.c.id == values["vm_id"], leaving < per_host, coming < per_host
    )
    return await changed(connection, failback.insert().from_select(list(given), query)) == 1


async def note_operation(connection: AsyncConnection, row_id: UUID, operation_id: UUID) -> None:
    """Name the migration that takes the VM home."""
    query = failback.update().where(failback.c.id == row_id)
    await changed(connection, query.values(operation_id=operation_id))


@prebuilt
def _under_way() -> sa.Select[Any]:
    return sa.select(failback).where(failback.c.open == 1).order_by(failback.c.id)


async def under_way(connection: AsyncConnection) -> list[Row]:
    """Failbacks whose migrations are under way, or have ended without anybody having looked."""
    return await many(connection, _under_way())


@prebuilt
def _of_vm(vm_id: UUID, /) -> sa.Select[Any]:
    return sa.select(failback).where(failback.c.vm_id == vm_id).order_by(failback.c.id.desc())


async def of_vm(connection: AsyncConnection, vm_id: UUID) -> Row | None:
    """The failback of a VM that is under way, or the last one that failed."""
    return await one(connection, _of_vm(vm_id))


async def going_to(connection: AsyncConnection, home_id: UUID) -> str | None:
    """The name of the VM that goes to a home."""
    query = sa.select(vm.c.name).join(failback, failback.c.vm_id == vm.c.id)
    row = await one(connection, query.where(failback.c.home_id == home_id, failback.c.open == 1))
    return None if row is None else row["name"]


async def give_up(connection: AsyncConnection, row_id: UUID, code: str, why: str) -> bool:
    """Note why one under way is given up, once; its operation is to be cancelled with it."""
    query = failback.update().where(
        failback.c.id == row_id, failback.c.open == 1, failback.c.code.is_(None)
    )
    return await changed(connection, query.values(code=code, why=why[:1024])) == 1


async def fail(
    connection: AsyncConnection, row_id: UUID, failures: int, wait_s: int, why: tuple[str, str]
) -> bool:
    """End one as failed, with its code and reason; False when somebody else has ended it."""
    query = failback.update().where(failback.c.id == row_id, failback.c.open == 1)
    values: Row = {"open": None, "failures": failures, "wait_s": wait_s}
    values |= {"code": why[0][:64], "why": why[1][:1024]}
    return await changed(connection, query.values(**values)) == 1


async def forget(connection: AsyncConnection, vm_id: UUID, *, under_way: bool = False) -> None:
    """Forget what has failed of a VM, and with `under_way` what is noted as under way."""
    query = failback.delete().where(failback.c.vm_id == vm_id)
    await changed(connection, query if under_way else query.where(failback.c.open.is_(None)))


async def forget_older(connection: AsyncConnection, vm_id: UUID, row_id: UUID) -> None:
    """Forget the tries of a VM before this one."""
    query = failback.delete().where(failback.c.vm_id == vm_id, failback.c.id != row_id)
    await changed(connection, query.where(failback.c.open.is_(None)))


async def rest(connection: AsyncConnection, vm_id: UUID, host_id: UUID) -> None:
    """Leave a VM where a person has put it, if that is not its home."""
    query = vm.update().where(
        vm.c.id == vm_id, vm.c.failback == AUTO, vm.c.home_id.is_not(None), vm.c.home_id != host_id
    )
    await changed(connection, query.values(failback_rests=True))


async def rest_away(connection: AsyncConnection, vm_id: UUID) -> None:
    """Leave a VM where it runs: a person has called its move home off."""
    query = vm.update().where(vm.c.id == vm_id, vm.c.failback == AUTO)
    await changed(connection, query.values(failback_rests=True))


async def wake(connection: AsyncConnection, vm_id: UUID) -> None:
    """Let a VM go home by itself again, as if no try had failed."""
    query = vm.update().where(vm.c.id == vm_id, vm.c.failback_rests.is_(True))
    await changed(connection, query.values(failback_rests=False))
    await forget(connection, vm_id)


async def wake_all(connection: AsyncConnection, vm_ids: Sequence[UUID]) -> None:
    """The same for many."""
    for some in in_chunks(vm_ids):
        query = vm.update().where(vm.c.id.in_(some), vm.c.failback_rests.is_(True))
        await changed(connection, query.values(failback_rests=False))
        tried = failback.delete().where(failback.c.vm_id.in_(some), failback.c.open.is_(None))
        await changed(connection, tried)


async def forget_home(connection: AsyncConnection, host_id: UUID) -> list[str]:
    """Take a host away from the VMs whose home it is; their names."""
    mine = sa.select(vm.c.name).where(vm.c.home_id == host_id, vm.c.removed_at.is_(None))
    names = [row["name"] for row in await many(connection, mine.order_by(vm.c.name))]
    raised = {"home_id": None, "version": vm.c.version + 1}
    await changed(connection, vm.update().where(vm.c.home_id == host_id).values(**raised))
    return names


def _subjects() -> sa.CompoundSelect[Any]:
    """What ages now: homes that are up, and tries that have failed."""
    is_home = sa.exists().where(vm.c.home_id == host.c.id, vm.c.failback == AUTO)
    homes = sa.select(host.c.id, host.c.state_since.label("since")).where(
        host.c.state == UP, is_home
    )
    tried = sa.select(failback.c.id, failback.c.claimed_at.label("since"))
    return homes.union_all(tried.where(failback.c.open.is_(None)))


@prebuilt
def _unnoted() -> sa.Select[Any]:
    ages = _subjects().subquery("ages")
    noted = sa.exists().where(
        failback_age.c.subject_id == ages.c.id,
        failback_age.c.monitor == monitor.c.name,
        failback_age.c.since == ages.c.since,
    )
    every = sa.select(ages.c.id, ages.c.since, monitor.c.name, monitor.c.watched_ms)
    return every.select_from(ages.join(monitor, sa.true())).where(~noted)


@prebuilt
def _over() -> sa.Select[Any]:
    ages = _subjects().subquery("ages")
    still = sa.exists().where(
        ages.c.id == failback_age.c.subject_id, ages.c.since == failback_age.c.since
    )
    return sa.select(failback_age.c.subject_id, failback_age.c.monitor).where(~still)


async def ages_to_note(connection: AsyncConnection) -> bool:
    """Whether a monitor has not begun to count something yet, or counts what is over."""
    return any([await one(connection, query) for query in (_unnoted(), _over())])


async def note_ages(connection: AsyncConnection) -> None:
    """Begin to count, on each monitor's clock, what it has not counted before. Repeatable."""
    for row in await many(connection, _over()):
        await changed(connection, _of_age(row["subject_id"], row["monitor"]))
    ages: list[Row] = [
        {"subject_id": row["id"], "monitor": row["name"]}
        | {"since": row["since"], "since_ms": row["watched_ms"]}
        for row in await many(connection, _unnoted())
    ]
    await insert_many(connection, failback_age, ages)


def _of_age(subject_id: UUID, name: str) -> sa.Delete:
    mine = (failback_age.c.subject_id == subject_id, failback_age.c.monitor == name)
    return failback_age.delete().where(*mine)


async def age_s(connection: AsyncConnection, subject_id: UUID, since: Any) -> float:
    """For how many seconds some monitor has watched since it first saw that; 0 where none has."""
    age = sa.func.max(monitor.c.watched_ms - failback_age.c.since_ms)
    query = (
        sa.select(age)
        .select_from(failback_age.join(monitor, monitor.c.name == failback_age.c.monitor))
        .where(failback_age.c.subject_id == subject_id, failback_age.c.since == since)
    )
    return await number(connection, query) / 1000


async def under_way_on(connection: AsyncConnection, target_id: UUID) -> str | None:
    """The kind of an open operation on a VM or host, or None."""
    query = sa.select(operation.c.kind).where(operation.c.target_id == target_id, IS_OPEN)
    row = await one(connection, query.order_by(operation.c.id))
    return None if row is None else row["kind"]
