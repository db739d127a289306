"""Approvals: what the storm guard holds back until a person says go on."""

from fastapi import APIRouter, Depends

from api.deps import BackendDep, get_principal
from api.problems import RESPONSES
from engine.queries.approvals import ListApprovals
from engine.views_explained import WaitingFenceView

router = APIRouter(
    prefix="/approvals",
    tags=["approvals"],
    dependencies=[Depends(get_principal)],
    responses=RESPONSES,
)


@router.get("")
async def approvals(backend: BackendDep) -> tuple[WaitingFenceView, ...]:
    """Open incidents whose fence a person may approve, or has approved."""
    found: tuple[WaitingFenceView, ...] = await backend.run_query(ListApprovals())
    return found
