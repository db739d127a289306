"""Statements that read one page of a list: filtered, joined, sorted and cut off in the database.

A page begins after the sort key of the page before, never at an offset: rows that come or go
meanwhile make none show twice or be left out, and a late page costs what the first does. What
belongs to a row is joined or read for the whole page at once, so a page is the same small number of
statements however long it or the list is. Texts are matched byte by byte on every database.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from store.rows import Row, many, number
from store.schema import cluster, event, fence_device, host, operation, vm
from store.schema_ha import incident, observation, vm_run

Query: TypeAlias = sa.Select[Any]
Condition: TypeAlias = sa.ColumnElement[bool]
Keys: TypeAlias = tuple[sa.Column[Any], ...]


@dataclass(frozen=True)
class Slice:
    """Which part of a list: at most `limit` rows, past the row whose sort key is `after`."""

    limit: int
    after: tuple[Any, ...] | None = None


@dataclass(frozen=True)
class List:
    """A list that can be read by pages: its rows and the unique key that sorts them.

    `counted` gives the number of rows with less joined, where that is quicker.
    """

    query: Query
    keys: Keys
    newest_first: bool = False
    counted: Query | None = None


async def page(connection: AsyncConnection, whole: List, part: Slice) -> tuple[list[Row], bool]:
    """The rows of one page, and whether more follow: one statement."""
    query = whole.query
    if part.after is not None:
        query = query.where(_past(whole.keys, part.after, newest_first=whole.newest_first))
    order = [key.desc() if whole.newest_first else key.asc() for key in whole.keys]
    rows = await many(connection, query.order_by(*order).limit(part.limit + 1))
    return rows[: part.limit], len(rows) > part.limit


async def total(connection: AsyncConnection, whole: List) -> int:
    """How many rows the whole list has: one statement."""
    if whole.counted is not None:
        return await number(connection, whole.counted)
    counted = whole.query.with_only_columns(sa.func.count(), maintain_column_froms=True)
    return await number(connection, counted)


def _past(keys: Keys, after: tuple[Any, ...], *, newest_first: bool) -> Condition:
    # (a, b) > (x, y), written so that every database can begin at x in an index on a.
    def beyond(key: sa.Column[Any], value: Any) -> Condition:
        return key.__lt__(value) if newest_first else key.__gt__(value)

    first, value = keys[0], after[0]
    if len(keys) == 1:
        return beyond(first, value)
    rest = _past(keys[1:], after[1:], newest_first=newest_first)
    not_before = first <= value if newest_first else first >= value
    return sa.and_(not_before, sa.or_(beyond(first, value), rest))


@dataclass(frozen=True)
class Named:
    """Which names: this one, those that begin so, those with this somewhere in them."""

    name: str | None = None
    prefix: str | None = None
    contains: str | None = None

    def of(self, column: sa.Column[str]) -> list[Condition]:
        """The conditions on a column of names. LIKE would fold case on SQLite alone."""
        found: list[Condition] = []
        if self.name is not None:
            found.append(column == self.name)
        if self.prefix:
            found.append(sa.func.substr(column, 1, len(self.prefix)) == self.prefix)
        if self.contains:
            found.append(sa.func.replace(column, self.contains, "") != column)
        return found


def _equal(table: sa.Table, **values: Any) -> list[Condition]:
    return [table.c[name] == value for name, value in values.items() if value is not None]


def _there(table: sa.Table) -> list[Condition]:
    return [table.c.removed_at.is_(None)] if "removed_at" in table.c else []


def clusters(named: Named, *, cluster_id: UUID | None = None) -> List:
    """Clusters, by name."""
    query = sa.select(cluster).where(
        *_there(cluster), *named.of(cluster.c.name), *_equal(cluster, id=cluster_id)
    )
    return List(query, (cluster.c.name, cluster.c.id))


def hosts(
    named: Named,
    *,
    host_id: UUID | None = None,
    cluster_id: UUID | None = None,
    state: str | None = None,
) -> List:
    """Hosts by name, each with its number of VMs, its last answer and its open incident.

    `vcpu_overcommit` and `memory_overcommit` are the limits of its cluster.
    """
    running = sa.select(sa.func.count()).where(vm_run.c.host_id == host.c.id, vm_run.c.active == 1)
    answer = sa.select(sa.func.max(observation.c.last_answer_at)).where(
        observation.c.host_id == host.c.id
    )
    opened = sa.select(incident.c.id).where(
        incident.c.host_id == host.c.id, incident.c.epoch == host.c.epoch, incident.c.open == 1
    )
    limits = (
        sa.select(limit).where(cluster.c.id == host.c.cluster_id).scalar_subquery().label(limit.key)
        for limit in (cluster.c.vcpu_overcommit, cluster.c.memory_overcommit)
    )
    query = sa.select(
        host,
        running.scalar_subquery().label("vms"),
        answer.scalar_subquery().label("last_answer_at"),
        opened.scalar_subquery().label("open_incident_id"),
        *limits,
    ).where(
        *_there(host),
        *named.of(host.c.name),
        *_equal(host, id=host_id, cluster_id=cluster_id, state=state),
    )
    return List(query, (host.c.name, host.c.id))


def fence_devices(
    named: Named, *, device_id: UUID | None = None, host_id: UUID | None = None
) -> List:
    """Fence devices by name, each with its host's name."""
    query = (
        sa.select(fence_device, host.c.name.label("host_name"))
        .join(host, host.c.id == fence_device.c.host_id)
        .where(
            *_there(fence_device),
            *named.of(fence_device.c.name),
            *_equal(fence_device, id=device_id, host_id=host_id),
        )
    )
    return List(query, (fence_device.c.name, fence_device.c.id))


@dataclass(frozen=True)
class Activity:
    """What a VM's active run has to be: in one of these states, on a host in one of those.

    No states: the VM has no active run.
    """

    runs: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()

    def conditions(self) -> list[Condition]:
        """The conditions on a VM's row that its active run and host are joined to."""
        if not self.runs:
            # Not "the joined run is null": PostgreSQL expects one row of that, and sorts them all.
            other = vm_run.alias("other")
            return [~sa.exists().where(other.c.vm_id == vm.c.id, other.c.active == 1)]
        return [vm_run.c.state.in_(self.runs), host.c.state.in_(self.hosts)]


def vms(
    named: Named,
    *,
    vm_id: UUID | None = None,
    cluster_id: UUID | None = None,
    host_id: UUID | None = None,
    protected: bool | None = None,
    activity: Activity | None = None,
) -> List:
    """VMs by name, each with its active run and that run's host."""
    of_run = ("state", "started_at", "operation_id")
    of_host = ("id", "name", "state")
    of_vm = named.of(vm.c.name)
    of_vm += _equal(vm, id=vm_id, cluster_id=cluster_id, protected=protected)
    running = _equal(vm_run, host_id=host_id)
    running += [] if activity is None else activity.conditions()
    query = (
        sa.select(
            vm,
            *(vm_run.c[name].label(f"run_{name}") for name in of_run),
            *(host.c[name].label(f"host_{name}") for name in of_host),
        )
        .outerjoin(vm_run, sa.and_(vm_run.c.vm_id == vm.c.id, vm_run.c.active == 1))
        .outerjoin(host, host.c.id == vm_run.c.host_id)
        .where(*_there(vm), *of_vm, *running)
    )
    down = activity is not None and not activity.runs
    counted = None if down and host_id is not None else _counted(of_vm, running, down=down)
    return List(query, (vm.c.name, vm.c.id), counted=counted)


def _counted(of_vm: list[Condition], running: list[Condition], *, down: bool) -> Query:
    """How many rows the list of VMs has."""
    count = sa.func.count()
    those = sa.select(count).select_from(vm).where(*_there(vm), *of_vm)
    if not down and not running:
        return those
    joined = vm_run if down else vm_run.join(host, host.c.id == vm_run.c.host_id)
    joined = joined.join(vm, vm.c.id == vm_run.c.vm_id) if of_vm else joined
    active = sa.select(count).select_from(joined)
    active = active.where(vm_run.c.active == 1, *([] if down else running), *of_vm)
    if not down:
        return active
    # A VM has one active run or none, and one that has a run cannot be removed: the rest is down.
    return sa.select(those.scalar_subquery() - active.scalar_subquery())


def operations(
    *, since: datetime | None = None, until: datetime | None = None, **equal: Any
) -> List:
    """Operations, newest first. An id says when it was made, so it is the whole sort key."""
    query = sa.select(operation).where(*_equal(operation, **equal))
    if since is not None:
        query = query.where(operation.c.created_at >= since)
    if until is not None:
        query = query.where(operation.c.created_at < until)
    return List(query, (operation.c.id,), newest_first=True)


def incidents(*, host_id: UUID | None = None, still_open: bool | None = None) -> List:
    """Incidents, newest first, with their hosts' names."""
    query = (
        sa.select(incident, host.c.name.label("host_name"))
        .join(host, host.c.id == incident.c.host_id)
        .where(*_equal(incident, host_id=host_id))
    )
    if still_open is not None:
        query = query.where(incident.c.open == 1 if still_open else incident.c.open.is_(None))
    return List(query, (incident.c.id,), newest_first=True)


def events(*, since: datetime | None = None, until: datetime | None = None, **equal: Any) -> List:
    """Events by time, newest first, from `since` on and before `until`."""
    query = sa.select(event).where(*_equal(event, **equal))
    if since is not None:
        query = query.where(event.c.at >= since)
    if until is not None:
        query = query.where(event.c.at < until)
    return List(query, (event.c.at, event.c.id), newest_first=True)
