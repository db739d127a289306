"""Cancel, pause, resume and prioritise: what they write, and what they refuse."""

from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.context import PriorityClass
from engine.actions.hosts import ActivateHost, RecoverHost
from engine.actions.operations import (
    CancelOperation,
    PauseOperation,
    PrioritiseOperation,
    ResumeOperation,
    RetryOperation,
)
from engine.actions.vms import StopVm
from engine.backend import Options
from store import incidents, locks, operations, plumbing, runs
from store.ids import new_id
from tests.store.engine_room import Engine, columns
from tests.store.steering import (
    a_claimed_start,
    a_failed_start,
    a_start,
    cancel,
    claim,
    latest_event,
    recovering,
    row_of,
    tell_all,
    to_tell,
)
from tests.store.world import PERSON

pytestmark = pytest.mark.store


async def test_a_start_that_has_not_begun_is_cancelled_at_once_and_gives_everything_back(
    engine: Engine,
) -> None:
    host = await engine.world.host()
    operation = await a_start(engine)
    vm = (await row_of(engine, operation))["target_id"]
    run = await engine.world.placed(vm, host, operation_id=operation)
    own = await cancel(engine, operation, principal="bob")
    row = await row_of(engine, operation)
    assert (row["state"], row["reason_code"], row["principal"]) == ("cancelled", "cancelled", "ann")
    assert row["summary"] == "cancelled before it began; its reserved place was given back"
    assert (own["state"], own["principal"], own["summary"]) == ("succeeded", "bob", row["summary"])
    assert (await engine.world.run(run["id"]))["state"] == "ended"
    assert (await engine.world.get("host", host))["memory_reserved_mib"] == 0
    assert await engine.rows("entity_lock") == []
    assert not await claim(engine, operation)
    event = await latest_event(engine, "operation.cancel.done")
    assert (event["before"], event["after"]) == ({"state": "pending"}, {"state": "cancelled"})
    assert (event["subject_id"], event["principal"]) == (operation, "bob")
    assert (await latest_event(engine, "vm.start.cancelled"))["operation_id"] == operation


async def test_a_start_that_has_begun_is_asked_to_cancel_once_however_often_one_asks(
    engine: Engine,
) -> None:
    operation = await a_claimed_start(engine)
    for _ in range(3):
        await cancel(engine, operation)
    row = await row_of(engine, operation)
    assert (row["state"], row["run_id"]) == ("cancelling", "run-1")
    assert await to_tell(engine, operation) == [("cancel", None)]
    assert await claim(engine, operation), "its own workflow goes on to undo it"
    assert (await row_of(engine, operation))["state"] == "cancelling"


async def test_cancelling_what_was_cancelled_is_success_and_writes_nothing_on_it(
    engine: Engine,
) -> None:
    operation = await a_start(engine)
    await cancel(engine, operation)
    before = await row_of(engine, operation)
    assert (await cancel(engine, operation))["summary"] == "it was cancelled already"
    assert await row_of(engine, operation) == before


async def test_cancel_and_claim_at_once_leave_either_a_closed_or_an_asked_operation(
    engine: Engine,
) -> None:
    operation = await a_start(engine)
    world = engine.world

    async def claimed(connection: AsyncConnection) -> bool:
        return await operations.claim(connection, operation, 1, "run-1", world.now)

    async def cancelled(connection: AsyncConnection) -> bool:
        await engine.act(CancelOperation(operation_id=operation))
        return True

    won, _ = await world.together(claimed, cancelled)
    row = await row_of(engine, operation)
    assert row["state"] == ("cancelling" if won else "cancelled")
    posts = {post["kind"] for post in await engine.rows("outbox")}
    assert posts == ({"start", "cancel"} if won else {"start"})


async def test_cancelling_a_wait_for_locks_does_not_undo_what_was_never_done(
    engine: Engine,
) -> None:
    host = await engine.world.host(state="down")
    first = await engine.act(ActivateHost(host_id=host))
    waiting = await engine.backend.run_action(
        ActivateHost(host_id=host), PERSON, options=Options(lock_wait_s=30)
    )
    await cancel(engine, waiting.operation_id)
    row = await row_of(engine, waiting.operation_id)
    assert (row["state"], "waited for its locks" in row["summary"]) == ("cancelled", True)
    assert (await engine.world.get("host", host))["state"] == "reconciling"
    assert columns(await engine.rows("entity_lock"), "operation_id") == [first.operation_id]


async def test_a_second_try_that_never_began_needs_attention_when_a_copy_is_half_started(
    engine: Engine,
) -> None:
    operation = await a_failed_start(engine)
    host = (await engine.rows("host"))[0]["id"]
    vm = (await row_of(engine, operation))["target_id"]
    run = await engine.world.placed(vm, host, operation_id=operation)
    assert await engine.world.do(runs.begin_start, run["id"], operation)
    await engine.act(RetryOperation(operation_id=operation))
    await cancel(engine, operation)
    row = await row_of(engine, operation)
    assert (row["state"], row["problem"]["code"]) == ("needs_attention", "RUN_UNSETTLED")
    assert f"holdfast op retry {operation}" in row["problem"]["next_step"]
    assert "holdfast vm stop db" in row["problem"]["next_step"]
    await engine.act(RetryOperation(operation_id=operation))
    order = (await row_of(engine, operation))["order"]
    assert order["run"]["run_id"] == str(run["id"]), "the retry goes on with the copy it has"


async def test_a_recovery_is_not_cancelled_once_it_has_claimed_the_hosts_vms(
    engine: Engine,
) -> None:
    operation, incident = await recovering(engine)
    assert await claim(engine, operation)
    await cancel(engine, operation)
    assert (await row_of(engine, operation))["state"] == "cancelling"
    await engine.world.do(incidents.enter_phase, incident, "start", engine.world.now)
    error = await engine.refusal(CancelOperation(operation_id=operation))
    assert error.code == "CANCEL_TOO_LATE"
    assert error.next_step


async def test_a_recovery_that_has_not_begun_is_cancelled_with_its_incident(
    engine: Engine,
) -> None:
    operation, incident = await recovering(engine)
    await cancel(engine, operation)
    assert (await row_of(engine, operation))["state"] == "cancelled"
    (row,) = await engine.rows("incident")
    assert (row["id"], row["open"], row["outcome"]) == (incident, None, "cancelled")


async def test_a_parent_that_has_not_begun_takes_its_children_with_it(engine: Engine) -> None:
    world = engine.world
    parent = await world.operation(kind="batch", workflow="RunBatch", order={"attempt": 1})
    fresh, begun = [await world.operation(parent_id=parent, order={"attempt": 1}) for _ in range(2)]
    assert await claim(engine, begun)
    await cancel(engine, parent)
    states = [(await row_of(engine, one))["state"] for one in (parent, fresh, begun)]
    assert states == ["cancelled", "cancelled", "cancelling"]
    assert await to_tell(engine, begun) == [("cancel", None)]


async def test_what_is_told_of_a_workflow_waits_until_it_was_started(engine: Engine) -> None:
    operation = await a_start(engine)
    assert await claim(engine, operation)  # the start arrived, and its note was lost
    await cancel(engine, operation)
    assert await to_tell(engine, operation) == [("start", None)]
    (start,) = await engine.world.do(plumbing.waiting_of, operation)
    await engine.world.do(plumbing.delivered, start["id"], engine.world.now)
    assert await to_tell(engine, operation) == [("cancel", None)]


async def test_pause_and_resume_tell_the_workflow_and_its_word_shows(engine: Engine) -> None:
    operation = await a_claimed_start(engine)
    for _ in range(2):
        await engine.act(PauseOperation(operation_id=operation))
    assert await to_tell(engine, operation) == [("signal", "pause")]
    assert (await row_of(engine, operation))["state"] == "running", "until it stands still"
    await tell_all(engine)
    await engine.operations.pause(operation, True)
    row = await row_of(engine, operation)
    assert (row["state"], row["reason_code"]) == ("paused", "PAUSED")
    assert f"holdfast op resume {operation}" in row["waiting_for"]
    await engine.act(ResumeOperation(operation_id=operation))
    assert await to_tell(engine, operation) == [("signal", "resume")]
    await engine.operations.pause(operation, False)
    row = await row_of(engine, operation)
    assert (row["state"], row["reason_code"], row["waiting_for"]) == ("running", None, None)


async def test_a_pause_does_not_take_a_cancel_back(engine: Engine) -> None:
    operation = await a_claimed_start(engine)
    await cancel(engine, operation)
    await engine.operations.pause(operation, True)
    await engine.operations.pause(operation, False)
    assert (await row_of(engine, operation))["state"] == "cancelling"


async def test_what_cannot_stand_still_is_not_paused_and_says_why(engine: Engine) -> None:
    operation = await a_start(engine)
    assert (await engine.refusal(PauseOperation(operation_id=operation))).code == (
        "OPERATION_STATE_FORBIDS"
    )
    vm = (await row_of(engine, operation))["target_id"]
    waiting = await engine.backend.run_action(
        StopVm(vm_id=vm), PERSON, options=Options(lock_wait_s=30)
    )
    error = await engine.refusal(PauseOperation(operation_id=waiting.operation_id))
    assert error.code == "OPERATION_NOT_BEGUN"
    recovery, _ = await recovering_beside(engine)
    assert (await engine.refusal(PauseOperation(operation_id=recovery))).code == "NOT_PAUSABLE"
    assert (await engine.refusal(ResumeOperation(operation_id=recovery))).code == (
        "OPERATION_STATE_FORBIDS"
    )


async def recovering_beside(engine: Engine) -> tuple[UUID, UUID]:
    """Another host whose recovery has been claimed."""
    host = await engine.world.host("h9", state="connecting")
    wish = RecoverHost(host_id=host, epoch=1, why="silent", reported_by="m1")
    receipt = await engine.act(wish, principal="monitor:m1")
    assert await claim(engine, receipt.operation_id)
    return receipt.operation_id, host


async def test_another_priority_reaches_the_row_its_children_and_temporal(engine: Engine) -> None:
    world = engine.world
    parent = await world.operation(kind="batch", workflow="RunBatch", priority=4)
    follows = await world.operation(parent_id=parent, priority=4)
    own = await world.operation(parent_id=parent, priority=2)
    ended = await world.operation(parent_id=parent, priority=4, state="failed")
    wish = PrioritiseOperation(operation_id=parent, priority=PriorityClass.PERSON)
    receipt = await engine.act(wish)
    rows = [await row_of(engine, one) for one in (parent, follows, own, ended)]
    assert columns(rows, "priority") == [3, 3, 2, 4]
    told = {row["operation_id"] for row in await engine.rows("outbox")}
    assert told == {parent, follows}
    event = await latest_event(engine, "operation.prioritise.done")
    assert (event["before"], event["after"]) == ({"priority": 4}, {"priority": 3})
    summary = (await row_of(engine, receipt.operation_id))["summary"]
    assert summary == "priority 4 → 3, with 1 below it"


async def test_an_urgent_start_overtakes_in_the_outbox(engine: Engine) -> None:
    first, second = await a_start(engine, "a"), await a_start(engine, "b")
    await engine.act(PrioritiseOperation(operation_id=second, priority=PriorityClass.PROTECTED))
    due = await engine.world.do(plumbing.due, engine.world.later(10), 10)
    starts = [row["operation_id"] for row in due if row["kind"] == "start"]
    assert starts == [second, first]


async def test_class_one_stays_for_fencing_and_recovery(engine: Engine) -> None:
    operation = await a_start(engine)
    wish = PrioritiseOperation(operation_id=operation, priority=PriorityClass.RECOVERY)
    assert (await engine.refusal(wish)).code == "PRIORITY_RESERVED"
    recovery, _ = await recovering_beside(engine)
    for priority in (PriorityClass.BALANCE, PriorityClass.RECOVERY):
        await engine.act(PrioritiseOperation(operation_id=recovery, priority=priority))
        assert (await row_of(engine, recovery))["priority"] == priority


async def test_an_unknown_operation_is_named_in_the_refusal(engine: Engine) -> None:
    nobody = new_id()
    error = await engine.refusal(CancelOperation(operation_id=nobody))
    assert (error.code, str(nobody) in error.detail) == ("OPERATION_NOT_FOUND", True)


async def test_locks_go_with_a_cancelled_operation_and_come_with_a_retried_one(
    engine: Engine,
) -> None:
    operation = await a_start(engine)
    vm = (await row_of(engine, operation))["target_id"]
    await cancel(engine, operation)
    assert await engine.world.do(locks.holder, "vm", vm) is None
    await engine.act(RetryOperation(operation_id=operation))
    assert await engine.world.do(locks.holds, "vm", vm, operation, 2)
