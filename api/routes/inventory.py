"""Clusters, hosts, fence devices and VMs."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict

from api.deps import ACTION, Answer, BackendDep, DoorDep, get_principal
from api.problems import RESPONSES
from engine.actions.clusters import ArmCluster, CreateCluster
from engine.actions.fence_devices import AddFenceDevice
from engine.actions.host_config import AddHost
from engine.actions.hosts import ActivateHost
from engine.actions.vm_config import CreateVm
from engine.actions.vms import StartVm, StopVm
from engine.queries.inventory import (
    HostSamples,
    ListClusters,
    ListFenceDevices,
    ListHosts,
    ListVms,
)
from engine.views import (
    ClusterView,
    FenceDeviceView,
    HostSampleView,
    HostView,
    VmView,
)

router = APIRouter(dependencies=[Depends(get_principal)], responses=RESPONSES)
Name = Annotated[str | None, Query(max_length=64, pattern=r"^[^\x00]*$")]
"""PostgreSQL takes no NUL in text, not even to look for it."""


class Empty(BaseModel):
    """A body without fields."""

    model_config = ConfigDict(extra="forbid")


class StartBody(Empty):
    """Where to start; without a host the engine chooses."""

    host_id: UUID | None = None


class StopBody(Empty):
    """How to stop: gracefully first, or hard at once."""

    force: bool = False


@router.get("/clusters", tags=["clusters"])
async def clusters(backend: BackendDep, name: Name = None) -> list[ClusterView]:
    """Every cluster, or the one of that name, with the recovery time its profile predicts."""
    found: Any = await backend.run_query(ListClusters(name=name))
    return list(found)


@router.post("/clusters", tags=["clusters"], **ACTION)
async def create_cluster(body: CreateCluster, door: DoorDep) -> Answer:
    """Add a cluster."""
    return await door.run(body)


@router.post("/clusters/{cluster_id}/actions/arm", tags=["clusters"], **ACTION)
async def arm(cluster_id: UUID, door: DoorDep, body: Empty | None = None) -> Answer:
    """Allow automatic action."""
    return await door.run(ArmCluster(cluster_id=cluster_id, armed=True))


@router.post("/clusters/{cluster_id}/actions/disarm", tags=["clusters"], **ACTION)
async def disarm(cluster_id: UUID, door: DoorDep, body: Empty | None = None) -> Answer:
    """Stop every automatic action: no fence, no restart."""
    return await door.run(ArmCluster(cluster_id=cluster_id, armed=False))


@router.get("/hosts", tags=["hosts"])
async def hosts(backend: BackendDep, name: Name = None) -> list[HostView]:
    """Every host, or the one of that name."""
    found: Any = await backend.run_query(ListHosts(name=name))
    return list(found)


@router.get("/hosts/{host_id}", tags=["hosts"])
async def host(host_id: UUID, backend: BackendDep) -> HostView:
    """One host."""
    found: Any = await backend.run_query(ListHosts(host_id=host_id))
    view: HostView = found[0]
    return view


@router.get("/hosts/{host_id}/samples", tags=["hosts"])
async def samples(
    host_id: UUID,
    backend: BackendDep,
    minutes: Annotated[int, Query(ge=1, le=60)] = 60,
    limit: Annotated[int, Query(ge=1, le=1800)] = 100,
) -> list[HostSampleView]:
    """What each answered poll of the last hour said, newest first."""
    query = HostSamples(host_id=host_id, minutes=minutes, limit=limit)
    found: Any = await backend.run_query(query)
    return list(found)


@router.post("/hosts", tags=["hosts"], **ACTION)
async def add_host(body: AddHost, door: DoorDep) -> Answer:
    """Add a host and bring it into service."""
    return await door.run(body)


@router.post("/hosts/{host_id}/actions/activate", tags=["hosts"], **ACTION)
async def activate(host_id: UUID, door: DoorDep, body: Empty | None = None) -> Answer:
    """Power a host on, reconcile it and return it to `up`."""
    return await door.run(ActivateHost(host_id=host_id))


@router.get("/fence-devices", tags=["fence devices"])
async def fence_devices(backend: BackendDep, host_id: UUID | None = None) -> list[FenceDeviceView]:
    """Every fence device, or those of one host, without secrets."""
    found: Any = await backend.run_query(ListFenceDevices(host_id=host_id))
    return list(found)


@router.post("/fence-devices", tags=["fence devices"], **ACTION)
async def add_fence_device(body: AddFenceDevice, door: DoorDep) -> Answer:
    """Give a host a power controller; its secrets are stored encrypted."""
    return await door.run(body)


@router.get("/vms", tags=["vms"])
async def vms(backend: BackendDep, name: Name = None) -> list[VmView]:
    """Every VM, or the one of that name."""
    found: Any = await backend.run_query(ListVms(name=name))
    return list(found)


@router.get("/vms/{vm_id}", tags=["vms"])
async def vm(vm_id: UUID, backend: BackendDep) -> VmView:
    """One VM."""
    found: Any = await backend.run_query(ListVms(vm_id=vm_id))
    view: VmView = found[0]
    return view


@router.post("/vms", tags=["vms"], **ACTION)
async def create_vm(body: CreateVm, door: DoorDep) -> Answer:
    """Add a VM; it is not started."""
    return await door.run(body)


@router.post("/vms/{vm_id}/actions/start", tags=["vms"], **ACTION)
async def start_vm(vm_id: UUID, door: DoorDep, body: StartBody | None = None) -> Answer:
    """Start a VM."""
    return await door.run(StartVm(vm_id=vm_id, host_id=body.host_id if body else None))


@router.post("/vms/{vm_id}/actions/stop", tags=["vms"], **ACTION)
async def stop_vm(vm_id: UUID, door: DoorDep, body: StopBody | None = None) -> Answer:
    """Stop a VM."""
    return await door.run(StopVm(vm_id=vm_id, force=body.force if body else False))
