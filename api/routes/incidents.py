"""Incidents: failures of hosts."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query

from api.deps import BackendDep, get_principal
from api.problems import RESPONSES
from engine.queries.certificates import VerifyCertificates
from engine.queries.incident_stats import IncidentStats, IncidentStatsView
from engine.queries.incidents import ExplainIncident, GetIncident, ListIncidents
from engine.views import IncidentView, Page
from engine.views_explained import ChainView, ExplanationView

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


@router.get("/stats")
async def stats(backend: BackendDep, query: Annotated[IncidentStats, Query()]) -> IncidentStatsView:
    """How long closed incidents took, how many VMs were back in time, and what was waited for."""
    view: IncidentStatsView = await backend.run_query(query)
    return view


@router.get("/certificates/chain")
async def chain(backend: BackendDep) -> ChainView:
    """Whether every death certificate is what it was when it was issued."""
    view: ChainView = await backend.run_query(VerifyCertificates())
    return view


@router.get("/{incident_id}")
async def incident(incident_id: UUID, backend: BackendDep) -> IncidentView:
    """One host failure with its evidence, certificate, phases and VMs."""
    view: IncidentView = await backend.run_query(GetIncident(incident_id=incident_id))
    return view


@router.get("/{incident_id}/explanation")
async def explanation(incident_id: UUID, backend: BackendDep) -> ExplanationView:
    """Why each of its decisions came out as it did: rule, inputs, rejected alternatives."""
    view: ExplanationView = await backend.run_query(ExplainIncident(incident_id=incident_id))
    return view
