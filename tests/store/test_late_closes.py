"""A close that Temporal repeats late: it ends the try that it speaks for, and no other."""

from uuid import UUID

import pytest

from domain.operations import OperationState, Outcome, Problem, WorkflowState
from engine.actions.operations import RetryOperation
from engine.actions.vms import StartVm
from store import locks, operations
from store.rows import Row
from tests.store.engine_room import Engine, columns
from tests.store.many import batch, children, several, starts
from tests.store.test_sweeper import Scene

pytestmark = pytest.mark.store


def failed(operation: UUID, attempt: int | None) -> Outcome:
    problem = Problem(code="NO_ROOM", detail="no room")
    return Outcome(
        operation_id=operation, attempt=attempt, state=OperationState.FAILED, problem=problem
    )


async def row_of(engine: Engine, operation: UUID) -> Row:
    row = await engine.world.do(operations.get, operation)
    assert row is not None
    return row


async def in_its_second_try(engine: Engine) -> tuple[UUID, UUID]:
    """A VM and its start, whose first try has failed and whose second is at work."""
    await engine.world.host()
    vm = await engine.world.vm()
    operation = (await engine.act(StartVm(vm_id=vm))).operation_id
    await engine.operations.claim(operation, 1, "run-1")
    await engine.operations.close(failed(operation, 1))
    await engine.act(RetryOperation(operation_id=operation))
    await engine.operations.claim(operation, 2, "run-2")
    return vm, operation


async def test_a_close_of_the_first_try_that_comes_again_leaves_the_second_at_work(
    engine: Engine,
) -> None:
    vm, operation = await in_its_second_try(engine)
    before = await engine.everything()
    await engine.operations.close(failed(operation, 1))
    assert await engine.everything() == before
    holder = await engine.world.do(locks.holder, "vm", vm)
    assert holder is not None
    assert (holder.operation_id, holder.state) == (operation, "running")


@pytest.mark.parametrize("attempt", [2, None])
async def test_a_close_of_the_try_at_work_or_of_whichever_ends_it_and_frees_its_locks(
    engine: Engine, attempt: int | None
) -> None:
    _vm, operation = await in_its_second_try(engine)
    await engine.operations.close(failed(operation, attempt))
    assert (await row_of(engine, operation))["state"] == "failed"
    assert await engine.rows("entity_lock") == []


async def test_a_close_that_comes_again_frees_nothing_that_was_taken_since(
    engine: Engine,
) -> None:
    vm, operation = await in_its_second_try(engine)
    await engine.operations.close(failed(operation, 2))
    await engine.world.lock(vm, operation)
    await engine.operations.close(failed(operation, 2))
    assert len(await engine.rows("entity_lock")) == 1


async def test_children_that_an_ended_batch_still_holds_are_cancelled(engine: Engine) -> None:
    scene = Scene(engine)
    receipt = await batch(engine, starts(await several(engine, 3)), at_once=1)
    await scene.taken(receipt.operation_id)
    first, *held = columns(await children(engine, receipt.operation_id), "id")
    await scene.begun(first)
    assert await scene.sweep() == 0, "their turn comes"
    await engine.operations.close(failed(receipt.operation_id, None))
    assert await scene.sweep() == len(held)
    rows = [await row_of(engine, one) for one in (first, *held)]
    assert columns(rows, "state") == ["running", "cancelled", "cancelled"]
    assert columns(await engine.rows("entity_lock"), "operation_id") == [first]
    assert await scene.sweep() == 0


async def test_one_that_waits_for_locks_in_an_ended_batch_is_cancelled(engine: Engine) -> None:
    scene = Scene(engine)
    (vm,) = await several(engine, 1)
    await scene.begun((await engine.act(StartVm(vm_id=vm))).operation_id)
    receipt = await batch(engine, starts([vm]), lock_wait_s=60.0)
    (child,) = await children(engine, receipt.operation_id)
    assert (child["state"], child["held"]) == ("waiting", True)
    await engine.operations.close(failed(receipt.operation_id, None))
    assert await scene.sweep() == 1
    assert (await row_of(engine, child["id"]))["state"] == "cancelled"


async def test_one_that_temporal_gives_no_answer_about_keeps_no_other_from_being_swept(
    engine: Engine,
) -> None:
    scene = Scene(engine)
    silent = await scene.start()
    gone = (await engine.act(StartVm(vm_id=await engine.world.vm("other")))).operation_id
    scene.is_now(await scene.begun(gone), WorkflowState.TERMINATED)
    describe = scene.temporal.describe

    async def partly(wid: str) -> WorkflowState:
        scene.temporal.away = str(silent) in wid
        return await describe(wid)

    scene.temporal.describe = partly  # type: ignore[method-assign]
    assert await scene.sweep() == 1
    assert (await row_of(engine, gone))["state"] == "cancelled"
    assert (await row_of(engine, silent))["state"] == "running"


async def test_a_row_that_cannot_be_settled_keeps_no_other_from_being_swept(
    engine: Engine,
) -> None:
    scene = Scene(engine)
    strange = await scene.start()
    await engine.world.put("operation", strange, kind="vm.teleport")
    gone = (await engine.act(StartVm(vm_id=await engine.world.vm("other")))).operation_id
    for operation in (strange, await scene.begun(gone)):
        scene.is_now(operation, WorkflowState.TERMINATED)
    assert await scene.sweep() == 1
    assert (await row_of(engine, gone))["state"] == "cancelled"
    assert (await row_of(engine, strange))["state"] == "running"
