"""Batches under way: letting children go, stopping, cancelling, and how a batch shows them."""

import asyncio
from collections import Counter
from uuid import UUID

import pytest

from domain.context import PriorityClass
from domain.errors import EngineError
from engine.actions.hosts import ActivateHost
from engine.actions.operations import PrioritiseOperation
from engine.actions.vms import StopVm
from engine.queries.operations import GetOperation
from engine.views import OperationView
from store import batches, operations
from store.ids import new_id
from tests.store.engine_room import Engine, columns
from tests.store.many import batch, children, ends, several, starts

pytestmark = pytest.mark.store


async def test_children_are_let_go_in_their_order_as_others_end(engine: Engine) -> None:
    vms = await several(engine, 5)
    receipt = await batch(engine, starts(vms), at_once=2)
    ids = columns(await children(engine, receipt.operation_id), "id")
    await ends(engine, ids[1])
    for _ in range(3):
        progress = await engine.batches.advance(receipt.operation_id)
        assert (progress.succeeded, progress.open, progress.held) == (1, 2, 2)
    rows = await children(engine, receipt.operation_id)
    assert columns(rows, "held") == [False, False, False, True, True]
    assert rows[2]["reason_code"] is None
    await engine.backend.close()
    assert engine.deliverer.delivered.count(ids[2]) == 1
    posted = columns(await engine.rows("outbox"), "operation_id", "kind")
    assert posted.count((ids[2], "start")) == 1
    parent = await engine.world.do(operations.get, receipt.operation_id)
    assert parent is not None
    assert (parent["progress_done"], parent["progress_total"]) == (1, 5)


async def test_whoever_is_given_a_more_urgent_class_is_let_go_before_the_others(
    engine: Engine,
) -> None:
    vms = await several(engine, 5)
    receipt = await batch(engine, starts(vms), at_once=1)
    ids = columns(await children(engine, receipt.operation_id), "id")
    await engine.act(PrioritiseOperation(operation_id=ids[3], priority=PriorityClass.PROTECTED))
    await engine.act(PrioritiseOperation(operation_id=ids[1], priority=PriorityClass.BALANCE))
    assert [await go_before(engine, one) for one in ids[1:]] == [3, 1, 0, 2]
    for ended, next_one in ((0, 3), (3, 2), (2, 4), (4, 1)):
        await ends(engine, ids[ended])
        await engine.batches.advance(receipt.operation_id)
        rows = await children(engine, receipt.operation_id)
        assert [row["id"] for row in rows if row["state"] == "pending" and not row["held"]] == [
            ids[next_one]
        ]


async def test_with_stop_on_error_children_are_let_go_in_their_order_whatever_their_class(
    engine: Engine,
) -> None:
    vms = await several(engine, 3)
    receipt = await batch(engine, starts(vms), at_once=1, stop_on_error=True)
    ids = columns(await children(engine, receipt.operation_id), "id")
    await engine.act(PrioritiseOperation(operation_id=ids[2], priority=PriorityClass.PROTECTED))
    assert [await go_before(engine, one) for one in ids[1:]] == [0, 1]
    await ends(engine, ids[0])
    await engine.batches.advance(receipt.operation_id)
    rows = await children(engine, receipt.operation_id)
    assert columns(rows, "held") == [False, False, True]


async def go_before(engine: Engine, operation_id: UUID) -> int:
    """How many children of the same batch an operation is told to wait for."""
    query = GetOperation(operation_id=operation_id)
    view: OperationView = await engine.backend.run_query(query)
    (block,) = view.blocked_by
    assert block.what == "batch"
    assert block.position is not None
    return block.position


async def test_looks_at_the_same_time_let_no_more_go_than_the_limit(engine: Engine) -> None:
    vms = await several(engine, 12)
    receipt = await batch(engine, starts(vms), at_once=3)
    ids = columns(await children(engine, receipt.operation_id), "id")
    await ends(engine, ids[0])
    await ends(engine, ids[1])
    await asyncio.gather(*(engine.batches.advance(receipt.operation_id) for _ in range(4)))
    rows = await children(engine, receipt.operation_id)
    at_work = [row for row in rows if row["state"] == "pending" and not row["held"]]
    assert len(at_work) == 3
    posted = Counter(columns(await engine.rows("outbox"), "operation_id", "kind"))
    assert max(posted[(one, "start")] for one in ids) == 1


async def test_a_failure_stops_those_behind_it_and_frees_their_locks(engine: Engine) -> None:
    vms = await several(engine, 150)
    receipt = await batch(engine, starts(vms), at_once=3, stop_on_error=True)
    ids = columns(await children(engine, receipt.operation_id), "id")
    await ends(engine, ids[1], "failed")
    progress = await engine.batches.advance(receipt.operation_id)
    assert (progress.open, progress.held, progress.failed) == (2, 0, 1)
    assert (progress.cancelled, progress.stopped) == (147, True)
    last = (await children(engine, receipt.operation_id))[-1]
    assert (last["state"], last["reason_code"]) == ("cancelled", "stopped_on_error")
    assert last["summary"] == "never began: an action before it failed; nothing was done yet"
    assert len(await engine.rows("entity_lock")) == 2
    events = Counter(columns(await engine.rows("event"), "type"))
    assert events["vm.start.cancelled"] == 147


async def test_without_stop_on_error_a_failure_stops_nothing(engine: Engine) -> None:
    vms = await several(engine, 4)
    receipt = await batch(engine, starts(vms), at_once=1)
    ids = columns(await children(engine, receipt.operation_id), "id")
    await ends(engine, ids[0], "failed")
    progress = await engine.batches.advance(receipt.operation_id)
    assert (progress.failed, progress.open, progress.held) == (1, 1, 2)
    assert not progress.stopped


async def test_cancelling_the_rest_ends_what_has_not_begun_and_asks_what_has(
    engine: Engine,
) -> None:
    vms = await several(engine, 150)
    receipt = await batch(engine, starts(vms), at_once=4)
    ids = columns(await children(engine, receipt.operation_id), "id")
    await ends(engine, ids[0])
    await engine.operations.claim(ids[1], 1, "run")
    said = await engine.batches.cancel_rest(receipt.operation_id)
    assert said == "146 cancelled before they began, 3 asked to cancel"
    states = Counter(columns(await children(engine, receipt.operation_id), "state"))
    assert states == {"succeeded": 1, "cancelling": 1, "cancelled": 148}
    asked = [row for row in await engine.rows("outbox") if row["kind"] == "cancel"]
    assert columns(asked, "operation_id") == [ids[1]]
    assert columns(await engine.rows("entity_lock"), "operation_id") == [ids[1]]


async def test_cancelling_the_rest_again_changes_nothing(engine: Engine) -> None:
    vms = await several(engine, 5)
    receipt = await batch(engine, starts(vms), at_once=2)
    ids = columns(await children(engine, receipt.operation_id), "id")
    await engine.operations.claim(ids[0], 1, "run")
    await engine.batches.cancel_rest(receipt.operation_id)
    before = await engine.everything()
    await engine.batches.cancel_rest(receipt.operation_id)
    assert await engine.everything() == before


@pytest.mark.parametrize("was", ["maintenance", "down", "non_responsive", "error"])
async def test_a_held_activation_that_is_cancelled_gives_its_host_back_the_state_it_had(
    engine: Engine, was: str
) -> None:
    hosts = [await engine.world.host(f"h{n}", state=was) for n in range(2)]
    receipt = await batch(engine, [ActivateHost(host_id=one) for one in hosts], at_once=1)
    before = await engine.world.get("host", hosts[1])
    await engine.batches.cancel_rest(receipt.operation_id)
    after = await engine.world.get("host", hosts[1])
    assert (before["state"], after["state"]) == ("reconciling", was)


async def test_nothing_is_let_go_while_the_batch_is_being_cancelled(engine: Engine) -> None:
    vms = await several(engine, 3)
    receipt = await batch(engine, starts(vms), at_once=1)
    ids = columns(await children(engine, receipt.operation_id), "id")
    await ends(engine, ids[0])
    await engine.world.put("operation", receipt.operation_id, state="cancelling")
    progress = await engine.batches.advance(receipt.operation_id)
    assert (progress.open, progress.held) == (0, 2)


async def test_what_is_no_batch_cannot_be_advanced(engine: Engine) -> None:
    single = await engine.world.operation()
    for unknown in (new_id(), single):
        with pytest.raises(EngineError) as raised:
            await engine.batches.advance(unknown)
        assert raised.value.code == "OPERATION_NOT_FOUND"


async def test_a_child_that_ends_makes_its_batch_look_again_once(engine: Engine) -> None:
    vms = await several(engine, 3)
    receipt = await batch(engine, starts(vms))
    for one in columns(await children(engine, receipt.operation_id), "id"):
        await ends(engine, one)
    signals = [row for row in await engine.rows("outbox") if row["kind"] == "signal"]
    assert columns(signals, "operation_id", "signal") == [(receipt.operation_id, "look_again")]


async def test_a_batch_shows_how_its_children_stand(engine: Engine) -> None:
    vms = await several(engine, 3)
    receipt = await batch(engine, [*starts(vms), StopVm(vm_id=vms[0])])
    view = await engine.backend.run_query(GetOperation(operation_id=receipt.operation_id))
    assert [child.state for child in view.children] == ["pending", "pending", "pending", "failed"]
    counted = await engine.world.do(batches.counts, receipt.operation_id)
    assert sorted(counted) == [("failed", False, 1), ("pending", False, 3)]
