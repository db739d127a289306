"""Questions about clusters, hosts, fence devices and VMs."""

from datetime import datetime, timedelta
from uuid import UUID

from pydantic import Field
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.autostart import names_in
from domain.capacity import memory_allowed_mib, vcpus_allowed
from domain.inventory import ACTIVE_RUN_STATES, HostState, VmState
from domain.profiles import TIMINGS, Profile, predict
from engine.facts import vm_state
from engine.queries.base import Query, QueryParams, missing
from engine.queries.fencing import fencing_of
from engine.queries.pages import NAME_KEY, NamedParams, listed, shown
from engine.views import HostView, Page, VmView
from engine.views_cluster import ClusterView
from engine.views_hosts import FenceDeviceView, HostSampleView
from store import inventory, observations, pages, vms
from store.pages import Activity, List, Named, Slice
from store.rows import Row

ANY = Named()


class ListClusters(NamedParams):
    """Clusters, by name."""


class ListClustersQuery(Query[ListClusters, Page[ClusterView]]):
    """Clusters with what their profile predicts."""

    params = ListClusters

    async def answer(
        self, connection: AsyncConnection, params: ListClusters, now: datetime
    ) -> Page[ClusterView]:
        """By name."""
        return await shown(connection, pages.clusters(params.named), params, NAME_KEY, _cluster)


class GetCluster(QueryParams):
    """One cluster."""

    cluster_id: UUID


class GetClusterQuery(Query[GetCluster, ClusterView]):
    """One cluster with what its profile predicts."""

    params = GetCluster

    async def answer(
        self, connection: AsyncConnection, params: GetCluster, now: datetime
    ) -> ClusterView:
        """NotFound when it is not there."""
        whole = pages.clusters(ANY, cluster_id=params.cluster_id)
        return _cluster(await _only(connection, whole, "cluster", params.cluster_id))


def _cluster(row: Row) -> ClusterView:
    prediction = predict(TIMINGS[Profile(row["profile"])])
    return ClusterView(
        **{field: row[field] for field in set(ClusterView.model_fields) & set(row)},
        predicted_power_cut_s=prediction.power_cut_s,
        predicted_isolation_s=prediction.isolation_s,
    )


class ListHosts(NamedParams):
    """Hosts, by name."""

    cluster_id: UUID | None = None
    state: HostState | None = None


class ListHostsQuery(Query[ListHosts, Page[HostView]]):
    """Hosts with what was last seen of them."""

    params = ListHosts

    async def answer(
        self, connection: AsyncConnection, params: ListHosts, now: datetime
    ) -> Page[HostView]:
        """By name."""
        whole = pages.hosts(params.named, cluster_id=params.cluster_id, state=params.state)
        rows, cursor, total = await listed(connection, whole, params, NAME_KEY)
        return Page(items=await _hosts(connection, rows, now), next_cursor=cursor, total=total)


class GetHost(QueryParams):
    """One host."""

    host_id: UUID


class GetHostQuery(Query[GetHost, HostView]):
    """One host with what was last seen of it."""

    params = GetHost

    async def answer(self, connection: AsyncConnection, params: GetHost, now: datetime) -> HostView:
        """NotFound when it is not there."""
        whole = pages.hosts(ANY, host_id=params.host_id)
        row = await _only(connection, whole, "host", params.host_id)
        (view,) = await _hosts(connection, [row], now)
        return view


async def _hosts(
    connection: AsyncConnection, rows: list[Row], now: datetime
) -> tuple[HostView, ...]:
    ids = [row["id"] for row in rows]
    fencing = await fencing_of(connection, ids)
    made = {"fencing", "memory_allowed_mib", "vcpus_allowed", "autostart"}
    same = set(HostView.model_fields) - made
    return tuple(
        HostView(
            **{field: row[field] for field in same},
            memory_allowed_mib=memory_allowed_mib(row["memory_mib"], row["memory_overcommit"]),
            vcpus_allowed=vcpus_allowed(row["cpus"], row["vcpu_overcommit"]),
            fencing=fencing[row["id"]],
            autostart=names_in(row["autostart"]),
        )
        for row in rows
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


class ListFenceDevices(NamedParams):
    """Fence devices by name, of all hosts or of one."""

    host_id: UUID | None = None


class ListFenceDevicesQuery(Query[ListFenceDevices, Page[FenceDeviceView]]):
    """Fence devices without their secrets."""

    params = ListFenceDevices

    async def answer(
        self, connection: AsyncConnection, params: ListFenceDevices, now: datetime
    ) -> Page[FenceDeviceView]:
        """By name."""
        whole = pages.fence_devices(params.named, host_id=params.host_id)
        rows, cursor, total = await listed(connection, whole, params, NAME_KEY)
        return Page(items=await _fence_devices(connection, rows), next_cursor=cursor, total=total)


class GetFenceDevice(QueryParams):
    """One fence device."""

    device_id: UUID


class GetFenceDeviceQuery(Query[GetFenceDevice, FenceDeviceView]):
    """One fence device without its secrets."""

    params = GetFenceDevice

    async def answer(
        self, connection: AsyncConnection, params: GetFenceDevice, now: datetime
    ) -> FenceDeviceView:
        """NotFound when it is not there."""
        whole = pages.fence_devices(ANY, device_id=params.device_id)
        row = await _only(connection, whole, "fence device", params.device_id)
        (view,) = await _fence_devices(connection, [row])
        return view


async def _fence_devices(
    connection: AsyncConnection, rows: list[Row]
) -> tuple[FenceDeviceView, ...]:
    fencing = await fencing_of(connection, [row["host_id"] for row in rows])
    same = set(FenceDeviceView.model_fields) & set(rows[0] if rows else ())
    return tuple(
        FenceDeviceView(
            **{field: row[field] for field in same}, host_budget_s=fencing[row["host_id"]].budget_s
        )
        for row in rows
    )


class ListVms(NamedParams):
    """VMs, by name."""

    cluster_id: UUID | None = None
    host_id: UUID | None = None
    state: VmState | None = None
    protected: bool | None = None


class ListVmsQuery(Query[ListVms, Page[VmView]]):
    """VMs and where they run."""

    params = ListVms

    async def answer(
        self, connection: AsyncConnection, params: ListVms, now: datetime
    ) -> Page[VmView]:
        """By name."""
        whole = pages.vms(
            params.named,
            cluster_id=params.cluster_id,
            host_id=params.host_id,
            protected=params.protected,
            activity=None if params.state is None else activity(params.state),
        )
        rows, cursor, total = await listed(connection, whole, params, NAME_KEY)
        return Page(items=await _vms(connection, rows), next_cursor=cursor, total=total)


class GetVm(QueryParams):
    """One VM."""

    vm_id: UUID


class GetVmQuery(Query[GetVm, VmView]):
    """One VM and where it runs."""

    params = GetVm

    async def answer(self, connection: AsyncConnection, params: GetVm, now: datetime) -> VmView:
        """NotFound when it is not there."""
        whole = pages.vms(ANY, vm_id=params.vm_id)
        (view,) = await _vms(connection, [await _only(connection, whole, "VM", params.vm_id)])
        return view


def activity(state: VmState) -> Activity:
    """What a VM's active run has to be for the VM to show a state, asked of `vm_state` itself."""
    if state is vm_state(None, None):
        return Activity()
    pairs = [
        (run.value, host.value)
        for run in ACTIVE_RUN_STATES
        for host in HostState
        if vm_state({"state": run}, host) is state
    ]
    runs, hosts = (tuple(dict.fromkeys(side)) for side in zip(*pairs, strict=True))
    assert len(pairs) == len(runs) * len(hosts), "each run's state asks for the same host's states"
    return Activity(runs, hosts)


async def _vms(connection: AsyncConnection, rows: list[Row]) -> tuple[VmView, ...]:
    depends = await vms.dependencies_of(connection, [row["id"] for row in rows])
    return tuple(_vm(row, depends.get(row["id"], ())) for row in rows)


def _vm(row: Row, depends_on: tuple[UUID, ...]) -> VmView:
    run = None if row["run_state"] is None else {"state": row["run_state"]}
    derived: Row = {
        "state": vm_state(run, row["host_state"]),
        "depends_on": depends_on,
        "running_since": row["run_started_at"],
        "operation_id": row["run_operation_id"],
    }
    same = set(VmView.model_fields) & set(row) - set(derived)
    return VmView(**{field: row[field] for field in same}, **derived)


async def _only(connection: AsyncConnection, whole: List, word: str, entity_id: UUID) -> Row:
    rows, _more = await pages.page(connection, whole, Slice(1))
    if not rows:
        raise missing(word, entity_id)
    return rows[0]
