"""A further try of a batch, or of one of its children: in the batch's order, within its limit."""

from typing import Any
from uuid import UUID

import pytest

from engine.actions.operations import RetryOperation
from engine.actions.vm_config import CreateVm
from engine.actions.vms import StartVm
from store.rows import Row
from tests.store.engine_room import Engine, columns
from tests.store.many import Many, batch, children, ends, several, starts
from tests.store.steering import row_of, to_tell

pytestmark = pytest.mark.store


async def a_stopped_batch(engine: Engine, items: Many, *failing: int) -> tuple[UUID, list[UUID]]:
    """A batch that stops on error and has ended, some of its children having failed."""
    receipt = await batch(engine, items, stop_on_error=True)
    ids = columns(await children(engine, receipt.operation_id), "id")
    for number in failing:
        await ends(engine, ids[number], "failed")
    await engine.batches.advance(receipt.operation_id)
    await ends(engine, receipt.operation_id, "failed")
    return receipt.operation_id, ids


def taken(engine: Engine) -> CreateVm:
    """A request that is refused, and that no other try can mend: it has no workflow."""
    return CreateVm(cluster_id=engine.world.cluster_id, name="vm-000", memory_mib=64)


async def retried(engine: Engine, operation_id: UUID) -> Row:
    """Try it again; the row of the retry itself."""
    receipt = await engine.act(RetryOperation(operation_id=operation_id))
    return await row_of(engine, receipt.operation_id)


async def test_what_is_behind_an_action_that_cannot_be_retried_never_begins(
    engine: Engine,
) -> None:
    vms = await several(engine, 2)
    parent, ids = await a_stopped_batch(engine, [taken(engine), *starts(vms)])
    error = await engine.refusal(RetryOperation(operation_id=parent))
    assert error.code == "NOTHING_TO_RETRY"
    assert error.context["blocking_operation_id"] == str(ids[0])
    assert "vm.create of vm-000" in error.detail
    await retried(engine, ids[1])
    assert await to_tell(engine, ids[1]) == [("start", None)], "alone it may be tried again"


async def test_what_is_before_an_action_that_cannot_be_retried_is_tried_again(
    engine: Engine,
) -> None:
    vms = await several(engine, 3)
    items: Many = [StartVm(vm_id=vms[0]), taken(engine), *starts(vms[1:])]
    parent, ids = await a_stopped_batch(engine, items, 0)
    done = await retried(engine, parent)
    assert done["summary"].startswith("1 of its actions are tried again, 2 stay behind vm.create")
    await engine.batches.advance(parent)
    rows = await children(engine, parent)
    assert columns(rows, "state", "attempt") == [
        ("pending", 2),
        ("failed", 1),
        ("cancelled", 1),
        ("cancelled", 1),
    ]
    assert ("start", None) in await to_tell(engine, ids[0])


async def test_what_is_behind_an_action_whose_retry_is_refused_is_left(engine: Engine) -> None:
    vms = await several(engine, 3)
    parent, ids = await a_stopped_batch(engine, starts(vms), 0, 1, 2)
    other = (await engine.act(StartVm(vm_id=vms[1]))).operation_id
    done = await retried(engine, parent)
    assert done["summary"].startswith("1 of its actions are tried again, 1 could not be")
    progress = await engine.batches.advance(parent)
    assert (progress.open, progress.failed, progress.held) == (1, 2, 0)
    assert done["summary"].endswith(", 1 stay behind it")
    await ends(engine, ids[0], "failed", attempt=2)
    await ends(engine, parent, "failed", attempt=2)
    await ends(engine, other, "failed")
    assert (await retried(engine, parent))["summary"] == "3 of its actions are tried again"
    progress = await engine.batches.advance(parent)
    assert (progress.open, progress.stopped) == (3, False)


async def test_without_stop_on_error_all_that_can_be_retried_is(engine: Engine) -> None:
    vms = await several(engine, 2)
    receipt = await batch(engine, [taken(engine), *starts(vms)])
    ids = columns(await children(engine, receipt.operation_id), "id")
    await ends(engine, ids[1], "failed")
    await ends(engine, ids[2], "failed")
    await ends(engine, receipt.operation_id, "failed")
    done = await retried(engine, receipt.operation_id)
    assert done["summary"] == "2 of its actions are tried again"
    progress = await engine.batches.advance(receipt.operation_id)
    assert (progress.open, progress.failed) == (2, 1)


async def one_failed(engine: Engine, **options: Any) -> tuple[UUID, list[UUID]]:
    """A batch at work whose first child has failed; others have had their turns since."""
    receipt = await batch(engine, starts(await several(engine, 4)), **options)
    ids = columns(await children(engine, receipt.operation_id), "id")
    await engine.operations.claim(receipt.operation_id, 1, "run")
    await ends(engine, ids[0], "failed")
    await engine.batches.advance(receipt.operation_id)
    return receipt.operation_id, ids


async def test_a_child_that_is_retried_waits_for_its_turn_in_its_batch(engine: Engine) -> None:
    parent, ids = await one_failed(engine, at_once=2)
    done = await retried(engine, ids[0])
    assert done["summary"].endswith("when its batch lets it go")
    row = await row_of(engine, ids[0])
    assert (row["held"], row["reason_code"], row["attempt"]) == (True, "BATCH_TURN", 2)
    await ends(engine, ids[1])
    progress = await engine.batches.advance(parent)
    assert (progress.open, progress.held) == (2, 1)
    assert not (await row_of(engine, ids[0]))["held"]


async def test_a_child_that_is_retried_takes_a_free_turn_at_once(engine: Engine) -> None:
    _parent, ids = await one_failed(engine, at_once=4)
    await retried(engine, ids[0])
    assert not (await row_of(engine, ids[0]))["held"]
    assert ("start", None) in await to_tell(engine, ids[0])


async def test_a_child_that_is_retried_is_not_let_go_while_its_batch_is_paused(
    engine: Engine,
) -> None:
    parent, ids = await one_failed(engine, at_once=4)
    await engine.world.put("operation", parent, state="paused")
    await retried(engine, ids[0])
    assert (await row_of(engine, ids[0]))["held"]


@pytest.mark.parametrize("state", ["failed", "cancelling"])
async def test_a_child_of_a_batch_that_lets_none_go_any_more_is_retried_at_once(
    engine: Engine, state: str
) -> None:
    parent, ids = await one_failed(engine, at_once=1)
    await engine.world.put("operation", parent, state=state)
    await retried(engine, ids[0])
    assert not (await row_of(engine, ids[0]))["held"]
