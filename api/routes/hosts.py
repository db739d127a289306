"""Hosts."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Response

from api.deps import ACTION, Answer, BackendDep, DoorDep, get_principal
from api.problems import RESPONSES
from api.routes.shared import Empty, VersionDep, said, tagged
from engine.actions.approvals import ApproveFence, Leave, WithdrawApproval
from engine.actions.confirmations import ConfirmHostDead, Word
from engine.actions.fence_tests import CheckFencing
from engine.actions.host_config import AddHost, EditHost, HostChanges, RemoveHost
from engine.actions.hosts import ActivateHost
from engine.actions.maintain_host import MaintainHost
from engine.actions.rehearsals import RehearseFencing
from engine.actions.shut_down_host import RebootHost, ShutdownHost, VmsPolicy
from engine.actions.soft_steps import RestartLibvirtd
from engine.eye_views import EyeView
from engine.queries.eyes import HostMonitors
from engine.queries.forecasts import ForecastLoss
from engine.queries.foreign import ForeignGuests
from engine.queries.inventory import GetHost, HostSamples, ListHosts
from engine.queries.ssh import HostSsh
from engine.soft_views import HostSshView
from engine.views import HostView, Page
from engine.views_explained import ForecastView
from engine.views_hosts import ForeignGuestsView, HostSampleView

router = APIRouter(
    prefix="/hosts", tags=["hosts"], dependencies=[Depends(get_principal)], responses=RESPONSES
)


@router.get("")
async def hosts(backend: BackendDep, query: Annotated[ListHosts, Query()]) -> Page[HostView]:
    """Hosts by name, with what was last seen of them."""
    page: Page[HostView] = await backend.run_query(query)
    return page


@router.get("/{host_id}")
async def host(host_id: UUID, backend: BackendDep, response: Response) -> HostView:
    """One host; its ETag is its version."""
    view: HostView = await backend.run_query(GetHost(host_id=host_id))
    return tagged(response, view)


@router.patch("/{host_id}", **ACTION)
async def edit_host(host_id: UUID, body: HostChanges, door: DoorDep, version: VersionDep) -> Answer:
    """Change what the body names; another address only out of service and without our VMs.

    SSH access (`ssh`) is given as a whole, its private key among it; null takes it away.
    """
    found = {"host_id": host_id, "expected_version": version}
    return await door.run(EditHost(**found, **said(body)))


@router.delete("/{host_id}", **ACTION)
async def remove_host(host_id: UUID, door: DoorDep, version: VersionDep) -> Answer:
    """Remove a host that is out of service and on which none of our VMs may run."""
    return await door.run(RemoveHost(host_id=host_id, expected_version=version))


@router.get("/{host_id}/foreign-guests")
async def foreign_guests(host_id: UUID, backend: BackendDep) -> ForeignGuestsView:
    """Guests that ran there when it last answered and are none of ours; nothing touches them."""
    view: ForeignGuestsView = await backend.run_query(ForeignGuests(host_id=host_id))
    return view


@router.get("/{host_id}/monitors")
async def monitors(host_id: UUID, backend: BackendDep) -> list[EyeView]:
    """Who watches it, since when, and what each said last."""
    found: Any = await backend.run_query(HostMonitors(host_id=host_id))
    return list(found)


@router.get("/{host_id}/ssh")
async def ssh(host_id: UUID, backend: BackendDep) -> HostSshView:
    """How it is reached over SSH, and how its libvirtd was restarted so in the last hour."""
    found: HostSshView = await backend.run_query(HostSsh(host_id=host_id))
    return found


@router.get("/{host_id}/samples")
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


@router.post("", **ACTION)
async def add_host(body: AddHost, door: DoorDep) -> Answer:
    """Add a host and bring it into service."""
    return await door.run(body)


@router.get("/{host_id}/forecast")
async def forecast(host_id: UUID, backend: BackendDep) -> ForecastView:
    """What if this host died now: which VMs come back where and when, and which wait."""
    view: ForecastView = await backend.run_query(ForecastLoss(host_id=host_id))
    return view


@router.post("/{host_id}/actions/activate", **ACTION)
async def activate(host_id: UUID, door: DoorDep, body: Empty | None = None) -> Answer:
    """Power a host on, reconcile it and return it to `up`."""
    return await door.run(ActivateHost(host_id=host_id))


@router.post("/{host_id}/actions/test-fencing", **ACTION)
async def check_fencing(host_id: UUID, door: DoorDep, body: Empty | None = None) -> Answer:
    """Ask every fence device of a host for its status, and which machine it manages."""
    return await door.run(CheckFencing(host_id=host_id))


@router.post("/{host_id}/actions/rehearse-fencing", **ACTION)
async def rehearse_fencing(host_id: UUID, door: DoorDep, body: Empty | None = None) -> Answer:
    """Switch a host in maintenance off and on again through each level of its fence devices."""
    return await door.run(RehearseFencing(host_id=host_id))


@router.post("/{host_id}/actions/restart-libvirtd", **ACTION)
async def restart_libvirtd(host_id: UUID, door: DoorDep, body: Empty | None = None) -> Answer:
    """Restart a host's libvirtd over SSH; its guests run on."""
    return await door.run(RestartLibvirtd(host_id=host_id))


@router.post("/{host_id}/actions/maintain", **ACTION)
async def maintain(host_id: UUID, door: DoorDep, body: Empty | None = None) -> Answer:
    """Move a host's VMs elsewhere, then take it out of service."""
    return await door.run(MaintainHost(host_id=host_id))


@router.post("/{host_id}/actions/shutdown", **ACTION)
async def shutdown(host_id: UUID, door: DoorDep, body: VmsPolicy | None = None) -> Answer:
    """See to a host's VMs, then switch its power off and read that back."""
    return await door.run(ShutdownHost(host_id=host_id, **(body or VmsPolicy()).model_dump()))


@router.post("/{host_id}/actions/reboot", **ACTION)
async def reboot(host_id: UUID, door: DoorDep, body: VmsPolicy | None = None) -> Answer:
    """See to a host's VMs, switch its power off and on, and bring it back into service."""
    return await door.run(RebootHost(host_id=host_id, **(body or VmsPolicy()).model_dump()))


@router.post("/{host_id}/actions/confirm-dead", **ACTION)
async def confirm_dead(host_id: UUID, body: Word, door: DoorDep) -> Answer:
    """A person's word that a silent host is off; refused while anything of it shows life."""
    return await door.run(ConfirmHostDead(host_id=host_id, reason=body.reason))


@router.post("/{host_id}/actions/approve-fence", **ACTION)
async def approve_fence(host_id: UUID, body: Leave, door: DoorDep) -> Answer:
    """Let a host be fenced in its open incident though the storm guard holds it back."""
    return await door.run(ApproveFence(host_id=host_id, **body.model_dump()))


@router.post("/{host_id}/actions/withdraw-approval", **ACTION)
async def withdraw_approval(host_id: UUID, door: DoorDep, body: Empty | None = None) -> Answer:
    """Take back what was approved for a host's open incident."""
    return await door.run(WithdrawApproval(host_id=host_id))
