"""Incidents: failures of hosts."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query

from api.deps import BackendDep, get_principal
from api.problems import RESPONSES
from engine.queries.incidents import GetIncident, ListIncidents
from engine.views import IncidentView, Page

router = APIRouter(
    prefix="/incidents",
    tags=["incidents"],
    dependencies=[Depends(get_principal)],
    responses=RESPONSES,
)


@router.get("")
async def incidents(
    backend: BackendDep, query: Annotated[ListIncidents, Query()]
) -> Page[IncidentView]:
    """Host failures, newest first."""
    page: Page[IncidentView] = await backend.run_query(query)
    return page


@router.get("/{incident_id}")
async def incident(incident_id: UUID, backend: BackendDep) -> IncidentView:
    """One host failure with its evidence, certificate, phases and VMs."""
    view: IncidentView = await backend.run_query(GetIncident(incident_id=incident_id))
    return view
