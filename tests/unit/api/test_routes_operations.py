"""Cancel, retry, pause, resume and prioritise over HTTP."""

from uuid import UUID

import pytest

from activities.guests import PlaceOrder
from domain.operations import OperationState, Outcome
from engine.records.operations import OperationRecords
from engine.records.runs import RunRecords
from store import operations
from store.ids import new_id
from tests.unit.api.desk import Desk, Json, check_problem

pytestmark = pytest.mark.unit


async def a_start(desk: Desk) -> str:
    """A start that was accepted: its operation."""
    await desk.world.host()
    vm = await desk.world.vm()
    answer = await desk.post(f"/vms/{vm}/actions/start")
    assert answer.status_code == 202, answer.text
    found: str = answer.json()["id"]
    return found


async def ask(desk: Desk, operation: str, verb: str, body: Json | None = None) -> Json:
    """Ask for something about an operation; the view of that request's own operation."""
    answer = await desk.post(f"/operations/{operation}/actions/{verb}", body)
    assert answer.status_code == 202, answer.text
    view: Json = answer.json()
    assert (view["kind"], view["target_id"]) == (f"operation.{verb}", operation)
    assert (view["state"], view["workflow_id"]) == ("succeeded", None)
    return view


async def state_of(desk: Desk, operation: str) -> tuple[str, int]:
    view = (await desk.get(f"/operations/{operation}")).json()
    return view["state"], view["attempt"]


async def claim(desk: Desk, operation: str) -> None:
    claimed = (UUID(operation), 1, "run-1", desk.world.now)
    assert await desk.world.do(operations.claim, *claimed)


async def test_an_operation_is_cancelled_and_tried_again_over_http(desk: Desk) -> None:
    operation = await a_start(desk)
    view = await ask(desk, operation, "cancel")
    assert view["summary"].startswith("cancelled before it began")
    assert await state_of(desk, operation) == ("cancelled", 1)
    await ask(desk, operation, "cancel")
    await ask(desk, operation, "retry", {})
    assert await state_of(desk, operation) == ("pending", 2)


async def test_an_operation_is_paused_and_resumed_over_http(desk: Desk) -> None:
    operation = await a_start(desk)
    refused = await desk.post(f"/operations/{operation}/actions/pause")
    check_problem(refused, 409, "OPERATION_STATE_FORBIDS")
    await claim(desk, operation)
    await ask(desk, operation, "pause")
    await OperationRecords(desk.database).pause(UUID(operation), True)
    assert await state_of(desk, operation) == ("paused", 1)
    await ask(desk, operation, "resume")


async def test_a_priority_is_a_class_from_one_to_five(desk: Desk) -> None:
    operation = await a_start(desk)
    await ask(desk, operation, "prioritise", {"priority": 2})
    assert (await desk.get(f"/operations/{operation}")).json()["priority"] == 2
    path = f"/operations/{operation}/actions/prioritise"
    check_problem(await desk.post(path, {"priority": 1}), 409, "PRIORITY_RESERVED")
    for wrong in ({"priority": 0}, {"priority": 6}, {"priority": "soon"}, {}, {"class": 2}):
        check_problem(await desk.post(path, wrong), 422)


async def test_what_has_succeeded_is_neither_cancelled_nor_retried(desk: Desk) -> None:
    operation = await a_start(desk)
    outcome = Outcome(operation_id=UUID(operation), state=OperationState.SUCCEEDED)
    await OperationRecords(desk.database).close(outcome)
    for verb in ("cancel", "retry", "pause", "resume"):
        refused = await desk.post(f"/operations/{operation}/actions/{verb}")
        document = check_problem(refused, 409, "OPERATION_STATE_FORBIDS")
        assert operation in str(document["context"])


async def test_a_dry_run_of_a_cancel_says_what_it_would_do_and_leaves_it(desk: Desk) -> None:
    operation = await a_start(desk)
    answer = await desk.post(f"/operations/{operation}/actions/cancel?dry_run=true")
    assert (answer.status_code, answer.json()["allowed"]) == (200, True)
    assert await state_of(desk, operation) == ("pending", 1)


async def test_acting_on_an_unknown_operation_is_not_found(desk: Desk) -> None:
    for verb in ("cancel", "retry", "pause", "resume"):
        refused = await desk.post(f"/operations/{new_id()}/actions/{verb}")
        check_problem(refused, 404, "OPERATION_NOT_FOUND")


async def test_what_blocks_a_waiting_operation_stands_in_its_view(desk: Desk) -> None:
    holder = await a_start(desk)
    (vm,) = (await desk.get("/vms")).json()["items"]
    answer = await desk.post(f"/vms/{vm['id']}/actions/start?lock_wait_s=30")
    view = answer.json()
    assert (view["state"], view["reason_code"]) == ("waiting", "LOCK_HELD")
    (block,) = view["blocked_by"]
    assert (block["what"], block["operation_id"], block["kind"]) == ("lock", holder, "vm.start")


async def test_why_a_start_went_where_it_did_is_told_over_http(desk: Desk) -> None:
    operation = await a_start(desk)
    view = (await desk.get(f"/operations/{operation}/explanation")).json()
    assert (view["operation_id"], view["kind"], view["decisions"]) == (operation, "vm.start", [])
    vm = (await desk.get(f"/operations/{operation}")).json()["target_id"]
    runs = RunRecords(desk.database, desk.backend, desk.world.clock)
    order = {"operation_id": operation, "vm_id": vm, "host_id": None}
    order |= {"licence_id": None, "incident_id": None}
    assert (await runs.place(PlaceOrder.model_validate(order))).run
    view = (await desk.get(f"/operations/{operation}/explanation")).json()
    assert (view["target_name"], view["principal"]) == ("db", "admin")
    (one,) = view["decisions"]
    assert (one["question"], one["chosen"], one["rule"]) == ("vm_place", "h1", "BEST_HOST")
