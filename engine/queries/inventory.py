"""Questions about clusters, hosts, fence devices and VMs."""

from datetime import datetime, timedelta
from uuid import UUID

from pydantic import Field
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.profiles import TIMINGS, Profile, predict
from engine.facts import vm_state
from engine.queries.base import Query, QueryParams, missing
from engine.views import ClusterView, FenceDeviceView, HostSampleView, HostView, VmView
from store import incidents, inventory, observations, runs
from store.rows import Row


class ListClusters(QueryParams):
    """Every cluster, or the one of that name."""

    name: str | None = None


class ListClustersQuery(Query[ListClusters, tuple[ClusterView, ...]]):
    """Clusters with what their profile predicts."""

    params = ListClusters

    async def answer(
        self, connection: AsyncConnection, params: ListClusters, now: datetime
    ) -> tuple[ClusterView, ...]:
        """By name."""
        rows = await inventory.listing(connection, "cluster", **_named(params.name))
        return tuple(_cluster(row) for row in rows)


def _cluster(row: Row) -> ClusterView:
    prediction = predict(TIMINGS[Profile(row["profile"])])
    fields = ("id", "name", "profile", "virt_type", "armed", "version")
    return ClusterView(
        **{field: row[field] for field in fields},
        predicted_power_cut_s=prediction.power_cut_s,
        predicted_isolation_s=prediction.isolation_s,
    )


class ListHosts(QueryParams):
    """Every host, or the one with that name or id."""

    name: str | None = None
    host_id: UUID | None = None


class ListHostsQuery(Query[ListHosts, tuple[HostView, ...]]):
    """Hosts with what was last seen of them."""

    params = ListHosts

    async def answer(
        self, connection: AsyncConnection, params: ListHosts, now: datetime
    ) -> tuple[HostView, ...]:
        """By name; asking for an id that is not there is an error."""
        rows = await inventory.listing(connection, "host", **_named(params.name, params.host_id))
        if params.host_id is not None and not rows:
            raise missing("host", params.host_id)
        counts: dict[UUID, int] = {}
        for run in await runs.active_runs(connection):
            counts[run["host_id"]] = counts.get(run["host_id"], 0) + 1
        return tuple([await self._view(connection, row, counts) for row in rows])

    async def _view(
        self, connection: AsyncConnection, row: Row, counts: dict[UUID, int]
    ) -> HostView:
        opened = await incidents.find_open(connection, row["id"], row["epoch"])
        fields = set(HostView.model_fields) & set(row)
        return HostView(
            **{field: row[field] for field in fields},
            vms=counts.get(row["id"], 0),
            last_answer_at=await observations.last_answer(connection, row["id"]),
            open_incident_id=None if opened is None else opened["id"],
        )


class HostSamples(QueryParams):
    """A host's figures of the last minutes, newest first."""

    host_id: UUID
    minutes: int = Field(default=60, ge=1, le=60)
    limit: int = Field(default=100, ge=1, le=1800)


class HostSamplesQuery(Query[HostSamples, tuple[HostSampleView, ...]]):
    """What each answered poll said."""

    params = HostSamples

    async def answer(
        self, connection: AsyncConnection, params: HostSamples, now: datetime
    ) -> tuple[HostSampleView, ...]:
        """Newest first."""
        if await inventory.get(connection, "host", params.host_id) is None:
            raise missing("host", params.host_id)
        since = now - timedelta(minutes=params.minutes)
        rows = await observations.samples(connection, params.host_id, since, params.limit)
        fields = tuple(HostSampleView.model_fields)
        return tuple(HostSampleView(**{f: row[f] for f in fields}) for row in rows)


class ListFenceDevices(QueryParams):
    """Every fence device, or those of one host."""

    host_id: UUID | None = None


class ListFenceDevicesQuery(Query[ListFenceDevices, tuple[FenceDeviceView, ...]]):
    """Fence devices without their secrets."""

    params = ListFenceDevices

    async def answer(
        self, connection: AsyncConnection, params: ListFenceDevices, now: datetime
    ) -> tuple[FenceDeviceView, ...]:
        """By name."""
        names = {row["id"]: row["name"] for row in await inventory.listing(connection, "host")}
        equal = {} if params.host_id is None else {"host_id": params.host_id}
        rows = await inventory.listing(connection, "fence_device", **equal)
        fields = set(FenceDeviceView.model_fields) - {"host_name"}
        return tuple(
            FenceDeviceView(**{f: row[f] for f in fields}, host_name=names[row["host_id"]])
            for row in rows
        )


class ListVms(QueryParams):
    """Every VM, or the one with that name or id."""

    name: str | None = None
    vm_id: UUID | None = None


class ListVmsQuery(Query[ListVms, tuple[VmView, ...]]):
    """VMs and where they run."""

    params = ListVms

    async def answer(
        self, connection: AsyncConnection, params: ListVms, now: datetime
    ) -> tuple[VmView, ...]:
        """By name; asking for an id that is not there is an error."""
        rows = await inventory.listing(connection, "vm", **_named(params.name, params.vm_id))
        if params.vm_id is not None and not rows:
            raise missing("vm", params.vm_id)
        hosts = {row["id"]: row for row in await inventory.listing(connection, "host")}
        active = {run["vm_id"]: run for run in await runs.active_runs(connection)}
        depends = await inventory.dependencies(connection)
        return tuple(
            _vm(row, active.get(row["id"]), hosts, depends.get(row["id"], ())) for row in rows
        )


def _vm(row: Row, run: Row | None, hosts: dict[UUID, Row], depends_on: tuple[UUID, ...]) -> VmView:
    host = None if run is None else hosts[run["host_id"]]
    fields = ("id", "cluster_id", "name", "memory_mib", "vcpus", "protected", "priority")
    return VmView(
        **{field: row[field] for field in (*fields, "generation", "version")},
        state=vm_state(run, host["state"] if host else None),
        host_id=host["id"] if host else None,
        host_name=host["name"] if host else None,
        depends_on=depends_on,
        run_state=run["state"] if run else None,
        running_since=run["started_at"] if run else None,
        operation_id=run["operation_id"] if run else None,
    )


def _named(name: str | None, entity_id: UUID | None = None) -> Row:
    given = {"name": name, "id": entity_id}
    return {key: value for key, value in given.items() if value is not None}
