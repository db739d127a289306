"""A further try of an operation, or of what failed in a batch: what it writes and refuses."""

from uuid import UUID

import pytest

from domain.operations import OperationState, Outcome, StepState
from engine.actions.operations import (
    RetryOperation,
)
from engine.actions.vms import StartVm
from engine.queries.operations import GetOperation
from engine.records.operations import StepRecords
from store import plumbing
from store.ids import new_id
from store.rows import Row
from tests.store.engine_room import Engine, columns
from tests.store.steering import (
    FAILED,
    a_claimed_start,
    a_failed_start,
    a_start,
    cancel,
    claim,
    latest_event,
    recovering,
    row_of,
    to_tell,
)

pytestmark = pytest.mark.store


async def test_a_failed_start_is_tried_again_as_the_same_operation(engine: Engine) -> None:
    operation = await a_failed_start(engine)
    steps = StepRecords(engine.world.database, engine.world.clock)
    await steps.begin(operation, 1, "1", "guest.place", 1, 10.0)
    await steps.finish(operation, 1, "1", tries=1)
    receipt = await engine.act(RetryOperation(operation_id=operation), principal="bob")
    row = await row_of(engine, operation)
    assert (row["state"], row["attempt"], row["run_id"]) == ("pending", 2, None)
    assert (row["problem"], row["finished_at"]) == (None, None)
    assert (row["order"]["attempt"], row["order"]["operation_id"]) == (2, str(operation))
    assert (row["principal"], row["order"]["context"]["principal"]) == ("ann", "ann")
    assert columns(await engine.rows("entity_lock"), "operation_id") == [operation]
    assert await to_tell(engine, operation) == [("start", None)]
    event = await latest_event(engine, "operation.retry.done")
    assert (event["principal"], event["subject_id"]) == ("bob", operation)
    assert event["before"] == {"state": "failed", "attempt": 1}
    assert event["after"] == {"state": "pending", "attempt": 2}
    assert (await row_of(engine, receipt.operation_id))["state"] == "succeeded"
    view = await engine.backend.run_query(GetOperation(operation_id=operation))
    assert [(step.attempt, step.state) for step in view.steps] == [(1, StepState.SUCCEEDED)]
    assert view.workflow_id == f"op/{operation}/2"
    assert not await claim(engine, operation, 1, "run-1"), "the first try is over"
    assert await claim(engine, operation, 2, "run-2")


async def test_a_retry_drops_what_the_last_try_was_still_to_be_told(engine: Engine) -> None:
    operation = await a_claimed_start(engine)
    await cancel(engine, operation)
    await engine.operations.close(
        Outcome(operation_id=operation, state=OperationState.CANCELLED, summary="undone")
    )
    await engine.act(RetryOperation(operation_id=operation))
    await tell_all_starts(engine, operation)
    assert await to_tell(engine, operation) == []


async def tell_all_starts(engine: Engine, operation: UUID) -> None:
    """Temporal has taken the start."""
    (start,) = await engine.world.do(plumbing.waiting_of, operation)
    assert start["kind"] == "start"
    await engine.world.do(plumbing.delivered, start["id"], engine.world.now)


async def test_a_retry_is_judged_by_what_is_there_now(engine: Engine) -> None:
    operation = await a_failed_start(engine)
    vm = (await row_of(engine, operation))["target_id"]
    other = (await engine.act(StartVm(vm_id=vm))).operation_id
    error = await engine.refusal(RetryOperation(operation_id=operation))
    assert (error.code, error.context["holder_operation_id"]) == ("OBJECT_BUSY", str(other))
    host = (await engine.rows("host"))[0]["id"]
    await engine.world.running(vm, host, operation_id=other)
    await engine.operations.close(Outcome(operation_id=other, state=OperationState.SUCCEEDED))
    assert (await engine.refusal(RetryOperation(operation_id=operation))).code == "VM_NOT_DOWN"


async def test_a_retry_of_what_has_not_ended_or_has_succeeded_is_refused(engine: Engine) -> None:
    operation = await a_start(engine)
    wish = RetryOperation(operation_id=operation)
    assert (await engine.refusal(wish)).code == "OPERATION_STATE_FORBIDS"
    await engine.operations.close(Outcome(operation_id=operation, state=OperationState.SUCCEEDED))
    assert (await engine.refusal(wish)).code == "OPERATION_STATE_FORBIDS"


async def test_a_cancelled_recovery_is_retried_with_an_incident_of_its_own(
    engine: Engine,
) -> None:
    operation, first = await recovering(engine)
    await cancel(engine, operation)
    await engine.world.put("host", (await engine.rows("host"))[0]["id"], state="connecting")
    await engine.act(RetryOperation(operation_id=operation))
    row = await row_of(engine, operation)
    (fresh,) = [one for one in await engine.rows("incident") if one["open"]]
    assert fresh["id"] != first
    assert (row["incident_id"], fresh["operation_id"]) == (fresh["id"], operation)
    assert row["order"]["incident_id"] == str(fresh["id"])


async def test_a_fence_is_not_retried_and_says_where_to_look(engine: Engine) -> None:
    parent, incident = await recovering(engine)
    fence = await engine.world.operation(
        kind="host.fence", state="failed", parent_id=parent, incident_id=incident, params={}
    )
    error = await engine.refusal(RetryOperation(operation_id=fence))
    assert error.code == "NOT_RETRYABLE"
    assert f"holdfast incident show {incident}" in error.next_step


async def a_batch(engine: Engine, *names: str) -> tuple[UUID, list[UUID]]:
    """A batch of starts that all failed, as its rows are: parent and children."""
    world = engine.world
    order = {"attempt": 1, "look_every_s": 5.0}
    values: Row = {
        "workflow": "RunBatch",
        "params": {"title": "starts", "total": len(names), "at_once": 50},
        "order": order,
        "state": "failed",
        "target_type": "batch",
    }
    parent = await world.operation(kind="batch", **values)
    children = []
    for name in names:
        child = await a_start(engine, name)
        await world.put("operation", child, parent_id=parent)
        failed = Outcome(operation_id=child, state=OperationState.FAILED, problem=FAILED)
        await engine.operations.close(failed)
        children.append(child)
    return parent, children


async def test_a_retry_of_a_batch_is_one_of_its_failed_children(engine: Engine) -> None:
    parent, (good, again, gone) = await a_batch(engine, "a", "b", "c")
    await engine.world.put("operation", good, state="succeeded")
    busy = (await row_of(engine, gone))["target_id"]
    await engine.act(StartVm(vm_id=busy))
    await engine.world.do(plumbing.post, new_id(), gone, engine.world.now, plumbing.CANCEL)
    receipt = await engine.act(RetryOperation(operation_id=parent))
    waiting = await engine.rows("outbox")
    kept = [row["kind"] for row in waiting if row["operation_id"] == gone and not row["done_at"]]
    assert kept == ["start", "cancel"], "nothing of a child that could not be retried is changed"
    summary = (await row_of(engine, receipt.operation_id))["summary"]
    assert summary.startswith("1 of its actions are tried again, 1 could not be")
    rows = [await row_of(engine, one) for one in (parent, good, again, gone)]
    assert columns(rows, "state", "attempt", "held") == [
        ("pending", 2, False),
        ("succeeded", 1, False),
        ("pending", 2, True),
        ("failed", 1, False),
    ]
    assert rows[0]["order"] == {"attempt": 2, "look_every_s": 5.0}
    assert ("start", None) in await to_tell(engine, parent)
    event = await latest_event(engine, "operation.retry.done")
    assert (event["data"]["retried"], event["data"]["refused"]) == (1, 1)


async def test_a_batch_of_which_nothing_can_be_retried_says_so(engine: Engine) -> None:
    parent, (child,) = await a_batch(engine, "a")
    vm = (await row_of(engine, child))["target_id"]
    await engine.act(StartVm(vm_id=vm))
    assert (await engine.refusal(RetryOperation(operation_id=parent))).code == "OBJECT_BUSY"
    await engine.world.put("operation", child, state="succeeded")
    assert (await engine.refusal(RetryOperation(operation_id=parent))).code == "NOTHING_TO_RETRY"
