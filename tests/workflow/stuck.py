"""What an operation that never ended hangs on: its row, its workflow and the steps under way."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

from temporalio.api.enums.v1 import EventType, PendingActivityState
from temporalio.client import Client, WorkflowExecutionDescription
from temporalio.service import RPCError

from domain.operations import workflow_id
from store import operations
from store.database import Database

LAST = 12
"""Events of the history that are told, the newest ones."""


@asynccontextmanager
async def explained(database: Database, client: Client, operation_id: UUID) -> AsyncIterator[None]:
    """Adds to an AssertionError of the body how the operation and its workflow stand."""
    try:
        yield
    except AssertionError as error:
        error.add_note("\n".join(await _told(database, client, operation_id)))
        raise


async def _told(database: Database, client: Client, operation_id: UUID) -> list[str]:
    row = await database.read(lambda c: operations.get(c, operation_id))
    assert row is not None
    shown = {key: row[key] for key in ("kind", "state", "reason_code", "attempt")}
    handle = client.get_workflow_handle(workflow_id(operation_id, row["attempt"]))
    try:
        about = await handle.describe()
        events = [event async for event in handle.fetch_history_events()]
    except RPCError as error:
        return [f"{shown}; of its workflow: {error}"]
    last = [
        f"  {event.event_id} {event.event_time.ToDatetime():%T.%f} "
        f"{EventType.Name(event.event_type).removeprefix('EVENT_TYPE_')}"
        for event in events[-LAST:]
    ]
    return [str(shown), *_under_way(about), *last]


def _under_way(about: WorkflowExecutionDescription) -> list[str]:
    raw = about.raw_description
    found = [f"workflow {about.status.name if about.status else '?'}"]
    if raw.HasField("pending_workflow_task"):
        found.append(f"workflow task pending: {raw.pending_workflow_task}")
    return found + [
        f"step {each.activity_type.name}: {PendingActivityState.Name(each.state)}, "
        f"attempt {each.attempt}, scheduled {each.scheduled_time.ToDatetime():%T.%f}, "
        f"started {each.last_started_time.ToDatetime():%T.%f}, "
        f"last failure {each.last_failure.message!r}"
        for each in raw.pending_activities
    ]
