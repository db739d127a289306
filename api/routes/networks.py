"""Networks of clusters."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Response

from api.deps import ACTION, Answer, BackendDep, DoorDep, get_principal
from api.problems import RESPONSES
from api.routes.shared import VersionDep, said, tagged
from engine.actions.networks import CreateNetwork, EditNetwork, NetworkChanges, RemoveNetwork
from engine.queries.networks import GetNetwork, ListNetworks
from engine.views import NetworkView, Page

router = APIRouter(
    prefix="/networks",
    tags=["networks"],
    dependencies=[Depends(get_principal)],
    responses=RESPONSES,
)


@router.get("")
async def networks(
    backend: BackendDep, query: Annotated[ListNetworks, Query()]
) -> Page[NetworkView]:
    """Networks by name, of all clusters or of one."""
    page: Page[NetworkView] = await backend.run_query(query)
    return page


@router.get("/{network_id}")
async def network(network_id: UUID, backend: BackendDep, response: Response) -> NetworkView:
    """One network; its ETag is its version."""
    view: NetworkView = await backend.run_query(GetNetwork(network_id=network_id))
    return tagged(response, view)


@router.post("", **ACTION)
async def create_network(body: CreateNetwork, door: DoorDep) -> Answer:
    """Add a network: a bridge that every host of the cluster has, or QEMU's own NAT."""
    return await door.run(body)


@router.patch("/{network_id}", **ACTION)
async def edit_network(
    network_id: UUID, body: NetworkChanges, door: DoorDep, version: VersionDep
) -> Answer:
    """Change what the body names; running VMs stay connected as they are."""
    found = {"network_id": network_id, "expected_version": version}
    return await door.run(EditNetwork(**found, **said(body)))


@router.delete("/{network_id}", **ACTION)
async def remove_network(network_id: UUID, door: DoorDep, version: VersionDep) -> Answer:
    """Remove a network that no VM has a card on."""
    return await door.run(RemoveNetwork(network_id=network_id, expected_version=version))
