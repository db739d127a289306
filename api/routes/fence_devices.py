"""Fence devices: the power controllers of hosts."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Response

from api.deps import ACTION, Answer, BackendDep, DoorDep, get_principal
from api.problems import RESPONSES
from api.routes.shared import VersionDep, said, tagged
from engine.actions.fence_devices import (
    AddFenceDevice,
    EditFenceDevice,
    FenceDeviceChanges,
    RemoveFenceDevice,
)
from engine.queries.inventory import GetFenceDevice, ListFenceDevices
from engine.views import Page
from engine.views_hosts import FenceDeviceView

router = APIRouter(
    prefix="/fence-devices",
    tags=["fence devices"],
    dependencies=[Depends(get_principal)],
    responses=RESPONSES,
)


@router.get("")
async def fence_devices(
    backend: BackendDep, query: Annotated[ListFenceDevices, Query()]
) -> Page[FenceDeviceView]:
    """Fence devices by name, of all hosts or of one, without secrets."""
    page: Page[FenceDeviceView] = await backend.run_query(query)
    return page


@router.get("/{device_id}")
async def fence_device(device_id: UUID, backend: BackendDep, response: Response) -> FenceDeviceView:
    """One fence device, without secrets; its ETag is its version."""
    view: FenceDeviceView = await backend.run_query(GetFenceDevice(device_id=device_id))
    return tagged(response, view)


@router.patch("/{device_id}", **ACTION)
async def edit_fence_device(
    device_id: UUID, body: FenceDeviceChanges, door: DoorDep, version: VersionDep
) -> Answer:
    """Change what the body names; of options and secrets only those it names, null removes one."""
    found = {"fence_device_id": device_id, "expected_version": version}
    return await door.run(EditFenceDevice(**found, **said(body)))


@router.delete("/{device_id}", **ACTION)
async def remove_fence_device(device_id: UUID, door: DoorDep, version: VersionDep) -> Answer:
    """Take a power controller away from its host."""
    params = RemoveFenceDevice(fence_device_id=device_id, expected_version=version)
    return await door.run(params)


@router.post("", **ACTION)
async def add_fence_device(body: AddFenceDevice, door: DoorDep) -> Answer:
    """Give a host a power controller; its secrets are stored encrypted."""
    return await door.run(body)
