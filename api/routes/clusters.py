"""Clusters."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Response

from api.deps import ACTION, Answer, BackendDep, DoorDep, get_principal
from api.problems import RESPONSES
from api.routes.shared import Empty, VersionDep, said, tagged
from domain.disarming import DisarmMode
from engine.actions.clusters import (
    ArmCluster,
    ClusterChanges,
    CreateCluster,
    EditCluster,
    RemoveCluster,
)
from engine.queries.inventory import GetCluster, ListClusters
from engine.views import Page
from engine.views_cluster import ClusterView

router = APIRouter(
    prefix="/clusters",
    tags=["clusters"],
    dependencies=[Depends(get_principal)],
    responses=RESPONSES,
)


@router.get("")
async def clusters(
    backend: BackendDep, query: Annotated[ListClusters, Query()]
) -> Page[ClusterView]:
    """Clusters by name, with the recovery time their profiles predict."""
    page: Page[ClusterView] = await backend.run_query(query)
    return page


@router.get("/{cluster_id}")
async def cluster(cluster_id: UUID, backend: BackendDep, response: Response) -> ClusterView:
    """One cluster; its ETag is its version."""
    view: ClusterView = await backend.run_query(GetCluster(cluster_id=cluster_id))
    return tagged(response, view)


@router.patch("/{cluster_id}", **ACTION)
async def edit_cluster(
    cluster_id: UUID, body: ClusterChanges, door: DoorDep, version: VersionDep
) -> Answer:
    """Change what the body names."""
    found: dict[str, Any] = {"cluster_id": cluster_id, "expected_version": version}
    return await door.run(EditCluster(**found, **said(body)))


@router.delete("/{cluster_id}", **ACTION)
async def remove_cluster(cluster_id: UUID, door: DoorDep, version: VersionDep) -> Answer:
    """Remove a cluster in which nothing is left."""
    return await door.run(RemoveCluster(cluster_id=cluster_id, expected_version=version))


@router.post("", **ACTION)
async def create_cluster(body: CreateCluster, door: DoorDep) -> Answer:
    """Add a cluster."""
    return await door.run(body)


@router.post("/{cluster_id}/actions/arm", **ACTION)
async def arm(cluster_id: UUID, door: DoorDep, body: Empty | None = None) -> Answer:
    """Allow automatic action."""
    return await door.run(ArmCluster(cluster_id=cluster_id, armed=True))


class DisarmBody(Empty):
    """What becomes of failures and recoveries meanwhile (`domain.disarming`)."""

    mode: DisarmMode = DisarmMode.HOLD


@router.post("/{cluster_id}/actions/disarm", **ACTION)
async def disarm(cluster_id: UUID, door: DoorDep, body: DisarmBody | None = None) -> Answer:
    """Stop automatic action: no fence; `freeze`: no restart either; `ignore`: no new recovery."""
    mode = (body or DisarmBody()).mode
    return await door.run(ArmCluster(cluster_id=cluster_id, armed=False, mode=mode))
