"""VMs."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Response

from api.deps import ACTION, Answer, BackendDep, DoorDep, get_principal
from api.problems import RESPONSES
from api.routes.shared import Empty, VersionDep, said, tagged
from engine.actions.adoptions import AdoptCopy
from engine.actions.imports import ImportVm
from engine.actions.migrate_vm import MigrateVm
from engine.actions.stray_copies import EndCopy
from engine.actions.vm_config import CreateVm, DeleteVm, EditVm, VmChanges
from engine.actions.vms import StartVm, StopVm
from engine.queries.inventory import ListVms
from engine.queries.vms import ShowVm
from engine.views import Page, VmDetailView, VmView

router = APIRouter(
    prefix="/vms", tags=["vms"], dependencies=[Depends(get_principal)], responses=RESPONSES
)


class StartBody(Empty):
    """Where to start; without a host the engine chooses."""

    host_id: UUID | None = None


class MigrateBody(Empty):
    """Where to; without a host the engine chooses."""

    host_id: UUID | None = None


class StopBody(Empty):
    """How to stop: gracefully first, or hard at once."""

    force: bool = False


class EndCopyBody(Empty):
    """Where the copy runs, and whether it may be the VM's last one."""

    host_id: UUID
    last_copy: bool = False


class AdoptCopyBody(Empty):
    """Where the VM's one living copy runs."""

    host_id: UUID


@router.get("")
async def vms(backend: BackendDep, query: Annotated[ListVms, Query()]) -> Page[VmView]:
    """VMs by name, with where they run."""
    page: Page[VmView] = await backend.run_query(query)
    return page


@router.get("/{vm_id}")
async def vm(vm_id: UUID, backend: BackendDep, response: Response) -> VmDetailView:
    """One VM with all that it is made of; its ETag is its version."""
    view: VmDetailView = await backend.run_query(ShowVm(vm_id=vm_id))
    return tagged(response, view)


@router.post("", **ACTION)
async def create_vm(body: CreateVm, door: DoorDep) -> Answer:
    """Add a VM; it is not started."""
    return await door.run(body)


@router.post("/import", **ACTION)
async def import_vm(body: ImportVm, door: DoorDep) -> Answer:
    """Take over a guest that runs (or is defined) on a host and is none of ours; it runs on."""
    return await door.run(body)


@router.patch("/{vm_id}", **ACTION)
async def edit_vm(vm_id: UUID, body: VmChanges, door: DoorDep, version: VersionDep) -> Answer:
    """Change what the body names; what the guest is made of it sees at its next start."""
    return await door.run(EditVm(vm_id=vm_id, expected_version=version, **said(body)))


@router.delete("/{vm_id}", **ACTION)
async def delete_vm(vm_id: UUID, door: DoorDep, version: VersionDep) -> Answer:
    """Delete a VM that is known to be down; its disks stay where they are."""
    return await door.run(DeleteVm(vm_id=vm_id, expected_version=version))


@router.post("/{vm_id}/actions/start", **ACTION)
async def start_vm(vm_id: UUID, door: DoorDep, body: StartBody | None = None) -> Answer:
    """Start a VM."""
    return await door.run(StartVm(vm_id=vm_id, host_id=body.host_id if body else None))


@router.post("/{vm_id}/actions/stop", **ACTION)
async def stop_vm(vm_id: UUID, door: DoorDep, body: StopBody | None = None) -> Answer:
    """Stop a VM."""
    return await door.run(StopVm(vm_id=vm_id, force=body.force if body else False))


@router.post("/{vm_id}/actions/migrate", **ACTION)
async def migrate_vm(vm_id: UUID, door: DoorDep, body: MigrateBody | None = None) -> Answer:
    """Move a running VM to another host without stopping it."""
    return await door.run(MigrateVm(vm_id=vm_id, host_id=body.host_id if body else None))


@router.post("/{vm_id}/actions/end-copy", **ACTION)
async def end_copy(vm_id: UUID, door: DoorDep, body: EndCopyBody) -> Answer:
    """End a copy of a VM on a host where it should not run."""
    wish = EndCopy(vm_id=vm_id, host_id=body.host_id, last_copy=body.last_copy)
    return await door.run(wish)


@router.post("/{vm_id}/actions/adopt-copy", **ACTION)
async def adopt_copy(vm_id: UUID, door: DoorDep, body: AdoptCopyBody) -> Answer:
    """Make the copy of a VM that somebody moved to another host the VM's run."""
    return await door.run(AdoptCopy(vm_id=vm_id, host_id=body.host_id))
