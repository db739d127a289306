"""What happened: the stream of events to follow, and the audit trail to search."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query

from api.deps import BackendDep, get_principal
from api.problems import RESPONSES
from engine.queries.events import AuditEvents, ListEvents
from engine.views import EventView, Page

router = APIRouter(tags=["events"], dependencies=[Depends(get_principal)], responses=RESPONSES)


@router.get("/events")
async def events(backend: BackendDep, query: Annotated[ListEvents, Query()]) -> Page[EventView]:
    """What happened after a number, oldest first, without gaps."""
    page: Page[EventView] = await backend.run_query(query)
    return page


@router.get("/audit")
async def audit(backend: BackendDep, query: Annotated[AuditEvents, Query()]) -> Page[EventView]:
    """Who did what to which object, why, and what it changed; newest first."""
    page: Page[EventView] = await backend.run_query(query)
    return page
