"""Steps that may outlive the workflow of their try: who waits for them, what they may not do."""

from uuid import UUID

import pytest

from domain.operations import OperationState, Outcome, Problem, WorkflowState
from engine.actions.operations import CancelOperation, RetryOperation
from engine.cancelling import STEP_AT_WORK
from engine.records.operations import StepRecords
from store import batches, control, locks, operations, runs
from store.rows import Row
from tests.store.engine_room import Engine
from tests.store.test_imports import Import, ask
from tests.store.test_sweeper import Scene

pytestmark = pytest.mark.store

STEP_S = 60.0


@pytest.fixture
def scene(engine: Engine) -> Scene:
    """A scene without hosts."""
    return Scene(engine)


async def begin_step(scene: Scene, operation: UUID, name: str = "guest.start") -> None:
    """A step of the first try that never says how it ended."""
    steps = StepRecords(scene.world.database, scene.world.clock)
    await steps.begin(operation, 1, "2", name, 1, STEP_S)


async def tried_again(scene: Scene) -> UUID:
    """A start in its second try, which nobody has claimed, while a step of the first is at work."""
    operation = await scene.start()
    await begin_step(scene, operation)
    await scene.world.put("operation", operation, state="failed")
    await scene.world.do(locks.free, operation)
    await scene.engine.act(RetryOperation(operation_id=operation))
    return operation


async def test_a_vanished_operation_is_not_tried_again_before_its_steps_must_have_ended(
    scene: Scene,
) -> None:
    operation = await scene.start()
    await begin_step(scene, operation)
    scene.is_now(operation, WorkflowState.UNKNOWN)
    for _ in range(5):
        assert await scene.sweep() == 0
        row = await scene.row(operation)
        assert (row["state"], row["reason_code"], row["attempt"]) == (
            *("waiting", "WORKFLOW_UNKNOWN"),
            1,
        )
        assert "until 2026-01-02 03:05:05 UTC" in row["waiting_for"]
        assert await scene.to_tell(operation) == []
    assert await scene.sweep() == 1
    row = await scene.row(operation)
    assert (row["state"], row["attempt"], row["run_id"]) == ("pending", 2, None)
    assert await scene.to_tell(operation) == ["start"]


async def test_the_next_try_has_the_locks_and_the_earlier_one_does_not(scene: Scene) -> None:
    operation = await scene.start()
    scene.is_now(operation, WorkflowState.UNKNOWN)
    assert await scene.sweep() == 1
    held = [await scene.world.do(locks.holds, "vm", scene.vm, operation, n) for n in (1, 2)]
    assert held == [False, True]
    assert not await scene.world.do(operations.claim, operation, 1, "run-1", scene.world.now)


async def test_a_claim_of_a_try_that_the_row_does_not_know_yet_takes_the_locks_with_it(
    scene: Scene,
) -> None:
    operation = await scene.start()
    await scene.engine.operations.claim(operation, 2, "run-2")
    held = [await scene.world.do(locks.holds, "vm", scene.vm, operation, n) for n in (1, 2)]
    assert held == [False, True]


async def test_cancelling_before_the_next_try_begins_waits_for_the_steps_of_the_last(
    scene: Scene,
) -> None:
    operation = await tried_again(scene)
    for _ in range(2):
        await scene.engine.act(CancelOperation(operation_id=operation))
        row = await scene.row(operation)
        assert (row["state"], row["reason_code"]) == ("cancelling", STEP_AT_WORK)
        assert len(await scene.engine.rows("entity_lock")) == 1
    assert await scene.to_tell(operation) == []
    assert not await scene.world.do(operations.claim, operation, 2, "run-2", scene.world.now)
    attempt = (await scene.row(operation))["attempt"]
    scene.is_now(operation, WorkflowState.UNKNOWN, attempt)
    for _ in range(5):
        assert await scene.sweep() == 0
        assert len(await scene.engine.rows("entity_lock")) == 1
    assert await scene.sweep() == 1
    row = await scene.row(operation)
    assert (row["state"], row["reason_code"]) == ("cancelled", "cancelled")
    assert await scene.engine.rows("entity_lock") == []


async def test_a_next_try_whose_last_steps_have_ended_is_cancelled_at_once(scene: Scene) -> None:
    operation = await tried_again(scene)
    scene.world.later(STEP_S + 1)
    await scene.engine.act(CancelOperation(operation_id=operation))
    assert (await scene.row(operation))["state"] == "cancelled"
    assert await scene.engine.rows("entity_lock") == []


async def test_what_a_batch_still_holds_waits_for_its_own_steps_too(scene: Scene) -> None:
    world = scene.world
    batch = await world.operation(
        kind="batch", workflow="RunBatch", order={"attempt": 1}, params={"items": []}
    )
    operation = await tried_again(scene)
    await world.put("operation", operation, parent_id=batch, held=True)
    (row,) = await world.do(batches.held, batch, limit=10)
    assert await world.do(control.at_work, [row], world.now) == {operation}
    await scene.engine.act(CancelOperation(operation_id=batch))
    row = await scene.row(operation)
    assert (row["state"], row["held"], row["reason_code"]) == ("cancelling", False, STEP_AT_WORK)
    scene.is_now(operation, WorkflowState.UNKNOWN, row["attempt"])
    world.later(STEP_S)
    assert await scene.sweep() == 1
    assert (await scene.row(operation))["state"] == "cancelled"


async def shown(scene: Scene) -> list[tuple[str, str | None]]:
    """State and problem of each step."""
    return [
        (row["state"], (row["problem"] or {}).get("code"))
        for row in await scene.engine.rows("step")
    ]


async def ended(scene: Scene, operation: UUID, *, attempt: int = 1) -> None:
    """Its own workflow closes it."""
    state = OperationState.FAILED
    outcome = Outcome(operation_id=operation, state=state, attempt=attempt)
    await scene.engine.operations.close(outcome)


UNKNOWN_END = ("failed", "STEP_END_UNKNOWN")


async def test_no_step_is_shown_as_running_once_its_operation_has_ended(scene: Scene) -> None:
    operation = await scene.start()
    await begin_step(scene, operation)
    scene.world.later(5)
    await ended(scene, operation)
    assert await shown(scene) == [UNKNOWN_END]
    (row,) = await scene.engine.rows("step")
    assert row["finished_at"] == scene.world.now


async def test_a_step_that_begins_late_opens_nothing_in_an_operation_that_has_ended(
    scene: Scene,
) -> None:
    operation = await scene.start()
    steps = StepRecords(scene.world.database, scene.world.clock)
    await ended(scene, operation)
    await steps.begin(operation, 1, "3", "guest.withdraw", 1, STEP_S)
    assert await shown(scene) == [UNKNOWN_END]
    await steps.finish(operation, 1, "3", tries=1)
    assert await shown(scene) == [("succeeded", None)]


async def test_a_late_try_of_a_step_that_has_succeeded_is_not_shown_but_waited_for(
    scene: Scene,
) -> None:
    world, operation = scene.world, await scene.start()
    steps = StepRecords(world.database, world.clock)
    await begin_step(scene, operation)
    await steps.finish(operation, 1, "2", tries=1)
    await ended(scene, operation)
    await begin_step(scene, operation)
    assert await shown(scene) == [("succeeded", None)]
    row = (await scene.row(operation)) | {"attempt": 2}
    assert await world.do(control.at_work, [row], world.now) == {operation}
    await steps.finish(
        operation, 1, "2", tries=1, problem=Problem(code="SUPERSEDED", detail="late")
    )
    assert await shown(scene) == [("succeeded", None)]
    assert await world.do(control.at_work, [row], world.now) == set()


async def test_a_step_that_ends_after_its_operation_still_says_how(scene: Scene) -> None:
    operation = await scene.start()
    steps = StepRecords(scene.world.database, scene.world.clock)
    await begin_step(scene, operation)
    await ended(scene, operation)
    await steps.finish(operation, 1, "2", tries=1, detail="running")
    assert await shown(scene) == [("succeeded", None)]
    (row,) = await scene.engine.rows("step")
    assert (row["detail"], row["deadline_at"]) == ("running", None)


async def test_a_step_whose_end_is_unknown_may_be_at_work_until_its_deadline(
    scene: Scene,
) -> None:
    world, operation = scene.world, await scene.start()
    await begin_step(scene, operation)
    await ended(scene, operation)
    await scene.engine.act(RetryOperation(operation_id=operation))
    row = await scene.row(operation)
    assert await world.do(control.at_work, [row], world.now) == {operation}
    world.later(STEP_S)
    assert await world.do(control.at_work, [row], world.now) == set()


async def test_a_next_try_has_its_own_steps_beside_those_of_the_last(scene: Scene) -> None:
    operation = await scene.start()
    await begin_step(scene, operation)
    await ended(scene, operation)
    await scene.engine.act(RetryOperation(operation_id=operation))
    steps = StepRecords(scene.world.database, scene.world.clock)
    await steps.begin(operation, 2, "2", "guest.start", 1, STEP_S)
    assert await shown(scene) == [UNKNOWN_END, ("running", None)]


async def importing(scene: Scene) -> Import:
    """An import that has recorded its guest, and whose workflow a person has terminated."""
    one = await ask(scene.engine, await scene.world.host(), await scene.world.operation())
    operation = await scene.begun(one.step.operation_id)
    await one.record()
    scene.is_now(operation, WorkflowState.TERMINATED)
    return one


async def test_an_import_that_was_ended_takes_its_rows_back(scene: Scene) -> None:
    one = await importing(scene)
    assert await scene.sweep() == 1
    row = await scene.row(one.step.operation_id)
    assert (row["state"], row["reason_code"]) == ("cancelled", "terminated")
    assert row["summary"] == f"{one.step.guest_id} is left on h1, and is no VM of ours"
    assert (await scene.engine.rows("vm"), await scene.engine.rows("vm_run")) == ([], [])
    assert await one.reserved() == 0


async def test_an_import_that_was_ended_once_it_marked_needs_a_person(scene: Scene) -> None:
    one = await importing(scene)
    operation = one.step.operation_id
    await begin_step(scene, operation, "import.adopt")
    assert await scene.sweep() == 0, "it may be marking just now"
    scene.world.later(STEP_S)
    assert await scene.sweep() == 1
    row = await scene.row(operation)
    assert (row["state"], row["problem"]["code"]) == ("needs_attention", "GUEST_MARKED")
    assert f"holdfast op retry {operation}" in row["problem"]["next_step"]
    assert (await scene.engine.rows("vm"), await one.reserved()) == ([], 0)
    await scene.engine.act(RetryOperation(operation_id=operation))
    one.step = one.step.model_copy(update={"attempt": 2})
    assert (await one.record()).generation == 1


async def test_an_import_whose_run_was_lost_since_is_left_to_its_new_owner(scene: Scene) -> None:
    one = await importing(scene)
    (run,) = await scene.engine.rows("vm_run")
    certificate = await scene.world.certificate(one.step.host.host_id)
    assert await scene.world.do(runs.lose, run["id"], certificate, scene.world.now)
    assert await scene.sweep() == 1
    row: Row = await scene.row(one.step.operation_id)
    assert (row["state"], len(await scene.engine.rows("vm"))) == ("cancelled", 1)


async def test_a_step_that_renews_its_lease_keeps_its_operation_and_one_that_ended_does_not(
    scene: Scene,
) -> None:
    operation = await scene.start()
    await begin_step(scene, operation)
    scene.is_now(operation, WorkflowState.UNKNOWN)
    steps = StepRecords(scene.world.database, scene.world.clock)
    before = await scene.world.do(control.steps_until, operation)
    assert before is not None
    for _ in range(3):
        assert await scene.sweep() == 0
        assert await steps.renew(operation, 1, "2", 1, STEP_S)
        until = await scene.world.do(control.steps_until, operation)
        assert until is not None
        assert until > before
        before = until
    await steps.finish(operation, 1, "2", tries=1)
    assert not await steps.renew(operation, 1, "2", 1, STEP_S)
    assert await scene.world.do(control.steps_until, operation) is None
    assert await scene.sweep() == 1


async def test_an_earlier_try_of_a_step_neither_renews_nor_ends_the_lease_of_the_next(
    scene: Scene,
) -> None:
    operation = await scene.start()
    await begin_step(scene, operation)
    steps = StepRecords(scene.world.database, scene.world.clock)
    await steps.begin(operation, 1, "2", "guest.start", 2, STEP_S)
    until = await scene.world.do(control.steps_until, operation)
    assert not await steps.renew(operation, 1, "2", 1, 10 * STEP_S)
    await steps.finish(operation, 1, "2", tries=1)
    assert await scene.world.do(control.steps_until, operation) == until
    await steps.finish(operation, 1, "2", tries=2)
    assert await scene.world.do(control.steps_until, operation) is None
