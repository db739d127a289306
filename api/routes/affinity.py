"""Affinity groups."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Response

from api.deps import ACTION, Answer, BackendDep, DoorDep, get_principal
from api.problems import RESPONSES
from api.routes.shared import VersionDep, said, tagged
from engine.actions.affinity import (
    AffinityGroupChanges,
    CreateAffinityGroup,
    DeleteAffinityGroup,
    EditAffinityGroup,
)
from engine.queries.affinity import GetAffinityGroup, ListAffinityGroups
from engine.views import AffinityGroupView, Page

router = APIRouter(
    prefix="/affinity-groups",
    tags=["affinity groups"],
    dependencies=[Depends(get_principal)],
    responses=RESPONSES,
)


@router.get("")
async def affinity_groups(
    backend: BackendDep, query: Annotated[ListAffinityGroups, Query()]
) -> Page[AffinityGroupView]:
    """Affinity groups by name, with their members."""
    page: Page[AffinityGroupView] = await backend.run_query(query)
    return page


@router.get("/{group_id}")
async def affinity_group(
    group_id: UUID, backend: BackendDep, response: Response
) -> AffinityGroupView:
    """One affinity group; its ETag is its version."""
    view: AffinityGroupView = await backend.run_query(GetAffinityGroup(affinity_group_id=group_id))
    return tagged(response, view)


@router.post("", **ACTION)
async def create_affinity_group(body: CreateAffinityGroup, door: DoorDep) -> Answer:
    """Keep VMs together or apart; with hosts, each of them on those hosts or on none of them."""
    return await door.run(body)


@router.patch("/{group_id}", **ACTION)
async def edit_affinity_group(
    group_id: UUID, body: AffinityGroupChanges, door: DoorDep, version: VersionDep
) -> Answer:
    """Change what the body names; VMs that run stay where they are."""
    found = {"affinity_group_id": group_id, "expected_version": version}
    return await door.run(EditAffinityGroup(**found, **said(body)))


@router.delete("/{group_id}", **ACTION)
async def delete_affinity_group(group_id: UUID, door: DoorDep, version: VersionDep) -> Answer:
    """Delete a group; its VMs stay where they are."""
    return await door.run(DeleteAffinityGroup(affinity_group_id=group_id, expected_version=version))
