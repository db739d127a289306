"""Operations."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query

from api.deps import ACTION, Answer, BackendDep, DoorDep, get_principal
from api.problems import RESPONSES
from api.routes.shared import Empty
from domain.context import PriorityClass
from engine.actions.operations import (
    CancelOperation,
    PauseOperation,
    PrioritiseOperation,
    ResumeOperation,
    RetryOperation,
)
from engine.queries.explaining import ExplainOperation
from engine.queries.operations import GetOperation, ListOperations
from engine.views import OperationView, Page
from engine.views_explained import OperationExplanationView

router = APIRouter(dependencies=[Depends(get_principal)], responses=RESPONSES)


@router.get("/operations", tags=["operations"])
async def operations(
    backend: BackendDep, query: Annotated[ListOperations, Query()]
) -> Page[OperationView]:
    """Operations, newest first."""
    page: Page[OperationView] = await backend.run_query(query)
    return page


@router.get("/operations/{operation_id}", tags=["operations"])
async def operation(operation_id: UUID, backend: BackendDep) -> OperationView:
    """One operation with its steps and children."""
    view: OperationView = await backend.run_query(GetOperation(operation_id=operation_id))
    return view


@router.get("/operations/{operation_id}/explanation", tags=["operations"])
async def explanation(operation_id: UUID, backend: BackendDep) -> OperationExplanationView:
    """Why each decision of it and its parts came out as it did: rule, inputs, alternatives."""
    asked = ExplainOperation(operation_id=operation_id)
    view: OperationExplanationView = await backend.run_query(asked)
    return view


class PriorityBody(Empty):
    """The class to be: 2 goes first, 5 last; 1 is for fencing and recovery."""

    priority: PriorityClass


@router.post("/operations/{operation_id}/actions/cancel", tags=["operations"], **ACTION)
async def cancel(operation_id: UUID, door: DoorDep, _: Empty | None = None) -> Answer:
    """Stop an operation: at once when it has not begun, else by its workflow's own way."""
    return await door.run(CancelOperation(operation_id=operation_id))


@router.post("/operations/{operation_id}/actions/retry", tags=["operations"], **ACTION)
async def retry(operation_id: UUID, door: DoorDep, _: Empty | None = None) -> Answer:
    """Try an operation again that has not succeeded; of a batch, its children that have not."""
    return await door.run(RetryOperation(operation_id=operation_id))


@router.post("/operations/{operation_id}/actions/pause", tags=["operations"], **ACTION)
async def pause(operation_id: UUID, door: DoorDep, _: Empty | None = None) -> Answer:
    """Let an operation stand still at its next checkpoint."""
    return await door.run(PauseOperation(operation_id=operation_id))


@router.post("/operations/{operation_id}/actions/resume", tags=["operations"], **ACTION)
async def resume(operation_id: UUID, door: DoorDep, _: Empty | None = None) -> Answer:
    """Let a paused operation go on."""
    return await door.run(ResumeOperation(operation_id=operation_id))


@router.post("/operations/{operation_id}/actions/prioritise", tags=["operations"], **ACTION)
async def prioritise(operation_id: UUID, body: PriorityBody, door: DoorDep) -> Answer:
    """Give an operation, and what it has open below it, another priority class."""
    return await door.run(PrioritiseOperation(operation_id=operation_id, priority=body.priority))
