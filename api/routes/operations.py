"""Operations, incidents and events."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query

from api.deps import BackendDep, get_principal
from api.problems import RESPONSES
from domain.operations import OperationState
from engine.queries.incidents import GetIncident, ListIncidents
from engine.queries.operations import GetOperation, ListEvents, ListOperations
from engine.views import IncidentView, OperationView, Page

router = APIRouter(dependencies=[Depends(get_principal)], responses=RESPONSES)
Limit = Annotated[int, Query(ge=1, le=500)]
CURSOR_MAX = 2**63 - 1
"""What a database holds in a number; a larger one would fail there."""


@router.get("/operations", tags=["operations"])
async def operations(
    backend: BackendDep,
    state: OperationState | None = None,
    kind: Annotated[str | None, Query(max_length=32, pattern=r"^[a-z_.]+$")] = None,
    target_id: UUID | None = None,
    cursor: UUID | None = None,
    limit: Limit = 50,
) -> Page:
    """Operations, newest first."""
    page: Page = await backend.run_query(
        ListOperations(state=state, kind=kind, target_id=target_id, before=cursor, limit=limit)
    )
    return page


@router.get("/operations/{operation_id}", tags=["operations"])
async def operation(operation_id: UUID, backend: BackendDep) -> OperationView:
    """One operation with its steps and children."""
    view: OperationView = await backend.run_query(GetOperation(operation_id=operation_id))
    return view


@router.get("/incidents", tags=["incidents"])
async def incidents(backend: BackendDep, limit: Limit = 50) -> Page:
    """Host failures, newest first."""
    page: Page = await backend.run_query(ListIncidents(limit=limit))
    return page


@router.get("/incidents/{incident_id}", tags=["incidents"])
async def incident(incident_id: UUID, backend: BackendDep) -> IncidentView:
    """One host failure with its evidence, certificate, phases and VMs."""
    view: IncidentView = await backend.run_query(GetIncident(incident_id=incident_id))
    return view


@router.get("/events", tags=["events"])
async def events(
    backend: BackendDep, after: Annotated[int, Query(ge=0, le=CURSOR_MAX)] = 0, limit: Limit = 100
) -> Page:
    """What happened after a cursor, oldest first, without gaps."""
    page: Page = await backend.run_query(ListEvents(after=after, limit=limit))
    return page
