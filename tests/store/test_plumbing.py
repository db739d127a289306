"""Operations and their steps, locks, idempotency keys, the outbox and events."""

import asyncio
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.operations import OperationState, StepState
from engine.delivery import RETRY_S, TAKEN_S
from engine.writes import DIRECT_START_S
from store import control, operations, plumbing
from store.ids import new_id
from store.operations import StepEnd
from store.rows import Row
from tests.store.world import START, World

pytestmark = pytest.mark.store


async def claimed(world: World, operation: UUID, attempt: int, run_id: str) -> bool:
    return await world.do(operations.claim, operation, attempt, run_id, world.now)


async def test_an_operation_belongs_to_the_first_run_that_claims_it(world: World) -> None:
    operation = await world.operation()
    assert await claimed(world, operation, 1, "run-a")
    assert not await claimed(world, operation, 1, "run-b")
    assert await claimed(world, operation, 1, "run-a")
    row = await world.do(operations.get, operation)
    assert row is not None
    assert (row["state"], row["run_id"]) == ("running", "run-a")


async def test_a_later_try_takes_the_operation_over_from_an_earlier_one(world: World) -> None:
    operation = await world.operation()
    assert await claimed(world, operation, 1, "run-a")
    world.later(60)
    assert await claimed(world, operation, 2, "run-b")
    assert not await claimed(world, operation, 1, "run-a")
    row = await world.do(operations.get, operation)
    assert row is not None
    assert (row["attempt"], row["run_id"], row["started_at"]) == (2, "run-b", START)


async def test_of_concurrent_claims_by_different_runs_one_wins(world: World) -> None:
    operation = await world.operation()
    claims = [
        partial(operations.claim, operation_id=operation, attempt=1, run_id=f"run-{n}", now=START)
        for n in range(6)
    ]
    assert sum(await world.together(*claims)) == 1


@pytest.mark.parametrize("state", ["succeeded", "failed", "cancelled", "needs_attention"])
async def test_an_operation_that_has_ended_cannot_be_claimed_nor_ended_again(
    world: World, state: str
) -> None:
    operation = await world.operation()
    assert await world.do(operations.close, operation, OperationState(state), world.now)
    assert not await claimed(world, operation, 1, "run-a")
    assert not await world.do(operations.close, operation, OperationState.SUCCEEDED, world.now)
    row = await world.do(operations.get, operation)
    assert row is not None
    assert (row["state"], row["finished_at"]) == (state, START)


async def test_an_operation_waits_with_a_reason_and_goes_on_without_it(world: World) -> None:
    operation = await world.operation()
    assert not await world.do(operations.wait, operation, "NO_ROOM", "no room", world.now)
    await claimed(world, operation, 1, "run-a")
    assert await world.do(operations.wait, operation, "NO_ROOM", "no room " * 1000, world.now)
    row = await world.do(operations.get, operation)
    assert row is not None
    assert (row["state"], row["reason_code"], len(row["waiting_for"])) == (
        *("waiting", "NO_ROOM"),
        1024,
    )
    assert await world.do(operations.resume, operation)
    row = await world.do(operations.get, operation)
    assert row is not None
    assert (row["state"], row["reason_code"], row["waiting_for"]) == ("running", None, None)


def step(world: World, operation: UUID, step_id: str = "1", **values: Any) -> Row:
    row: Row = {"operation_id": operation, "attempt": 1, "step_id": step_id, "tries": 1}
    row |= {"name": "guest.place", "state": "running", "started_at": world.now}
    return row | {"deadline_at": world.now + timedelta(seconds=10)} | values


async def test_a_step_that_is_tried_again_stays_one_row(world: World) -> None:
    operation = await world.operation()
    await world.do(operations.begin_step, step(world, operation))
    ended = StepEnd(StepState.FAILED, world.later(1), 1, problem={"code": "NO_ANSWER"})
    await world.do(operations.finish_step, operation, 1, "1", ended)
    world.later(1)
    await world.do(operations.begin_step, step(world, operation, tries=2))
    (row,) = await world.do(operations.steps, operation)
    assert (row["state"], row["tries"], row["finished_at"]) == ("running", 2, None)
    assert row["started_at"] == START
    late = StepEnd(StepState.FAILED, world.now, 1, problem={"code": "LEASE_LOST"})
    await world.do(operations.finish_step, operation, 1, "1", late)
    (row,) = await world.do(operations.steps, operation)
    assert row["state"] == "running", "the second try is at work"
    assert await world.do(control.steps_until, operation) is not None
    done = StepEnd(StepState.SUCCEEDED, world.now, 2, detail="running on h1")
    await world.do(operations.finish_step, operation, 1, "1", done)
    (row,) = await world.do(operations.steps, operation)
    assert (row["state"], row["problem"], row["detail"]) == ("succeeded", None, "running on h1")


async def test_a_step_that_begins_twice_at_once_is_written_once(world: World) -> None:
    operation = await world.operation()
    begin = partial(operations.begin_step, values=step(world, operation))
    await world.together(*[begin] * 4)
    assert len(await world.do(operations.steps, operation)) == 1


async def test_steps_are_listed_in_the_order_they_began(world: World) -> None:
    operation = await world.operation()
    for step_id in ("b", "a", "c"):
        await world.do(operations.begin_step, step(world, operation, step_id))
        world.later(1)
    rows = await world.do(operations.steps, operation)
    assert [row["step_id"] for row in rows] == ["b", "a", "c"]


async def test_an_idempotency_key_belongs_to_one_principal(world: World) -> None:
    row: Row = {"principal": "ann", "key": "k", "fingerprint": "f", "created_at": world.now}
    operation = await world.operation()
    await world.do(plumbing.keep_key, row | {"operation_id": operation})
    found = await world.do(plumbing.find_key, "ann", "k")
    assert found is not None
    assert found["operation_id"] == operation
    assert await world.do(plumbing.find_key, "bob", "k") is None


async def test_the_outbox_gives_the_most_urgent_first_and_then_the_oldest(world: World) -> None:
    wanted: dict[str, UUID] = {}
    for name, priority in (("people", 3), ("fence", 1), ("restart", 2), ("fence too", 1)):
        wanted[name] = await world.operation(priority=priority)
        await world.do(plumbing.post, new_id(), wanted[name], world.now)
    rows = await world.do(plumbing.due, world.now, 10)
    order = ["fence", "fence too", "restart", "people"]
    assert [row["operation_id"] for row in rows] == [wanted[name] for name in order]
    assert len(await world.do(plumbing.due, world.now, 2)) == 2
    assert rows[0]["workflow"] == "StartVm"


async def test_a_start_is_due_at_its_time_and_until_it_is_delivered(world: World) -> None:
    operation, row_id = await world.operation(), new_id()
    await world.do(plumbing.post, row_id, operation, world.now)
    assert await world.do(plumbing.due, world.now - timedelta(seconds=1), 10) == []
    await world.do(plumbing.postpone, row_id, world.now + timedelta(seconds=5), "e" * 2000)
    assert await world.do(plumbing.due, world.now, 10) == []
    posted = await world.do(plumbing.posted, operation)
    assert posted is not None
    assert (posted["tries"], len(posted["last_error"])) == (1, 1024)
    (row,) = await world.do(plumbing.due, world.later(5), 10)
    await world.do(plumbing.delivered, row["id"], world.now)
    assert await world.do(plumbing.due, world.later(60), 10) == []
    assert await world.do(plumbing.posted, operation) is None


async def test_what_a_clock_that_was_ahead_has_posted_is_due_at_once(world: World) -> None:
    operation = await world.operation()
    await world.do(plumbing.post, new_id(), operation, world.now + timedelta(seconds=584))
    (row,) = await world.do(plumbing.due, world.now, 10)
    assert row["operation_id"] == operation
    most = world.now + timedelta(seconds=plumbing.PUT_OFF_MOST_S)
    await world.do(plumbing.postpone, row["id"], most, "away")
    assert await world.do(plumbing.due, world.now, 10) == [], "put off by a clock that is right"


def test_nothing_is_ever_put_off_for_longer_than_a_wrong_clock_is_told_by() -> None:
    assert max(TAKEN_S, DIRECT_START_S, *RETRY_S) < plumbing.PUT_OFF_MOST_S


def event(world: World) -> Row:
    row: Row = {"id": new_id(), "type": "vm.start.accepted", "subject_type": "vm"}
    row |= {"subject_id": new_id(), "principal": "ann", "correlation_id": "c-1"}
    return row | {"data": {"name": "db"}, "at": world.now}


async def test_events_of_concurrent_writers_are_numbered_without_a_gap(world: World) -> None:
    written: list[UUID] = []
    finished = asyncio.Event()

    async def write(times: int) -> None:
        for _ in range(times):
            row = event(world)
            await world.do(plumbing.append_event, row)
            written.append(row["id"])

    async def number() -> None:
        while not finished.is_set():
            await world.do(plumbing.number_events, 3)

    sequencers = [asyncio.create_task(number()) for _ in range(2)]
    await asyncio.gather(*(write(5) for _ in range(4)))
    finished.set()
    await asyncio.gather(*sequencers)
    while await world.do(plumbing.number_events, 3):
        pass
    rows = await world.do(plumbing.events_after, 0, 100)
    assert [row["seq"] for row in rows] == list(range(1, 21))
    assert sorted(row["id"] for row in rows) == sorted(written)


async def test_a_number_once_given_to_an_event_never_changes(world: World) -> None:
    early, late = event(world), event(world)
    await world.do(plumbing.append_event, late)
    assert await world.do(plumbing.number_events, 10) == 1
    await world.do(plumbing.append_event, early)
    assert await world.do(plumbing.events_after, 1, 10) == []
    assert await world.do(plumbing.number_events, 10) == 1
    rows = await world.do(plumbing.events_after, 0, 10)
    assert [(row["seq"], row["id"]) for row in rows] == [(1, late["id"]), (2, early["id"])]


async def test_an_event_that_was_rolled_back_takes_no_number(world: World) -> None:
    async def fail(connection: AsyncConnection) -> None:
        await plumbing.append_event(connection, event(world))
        raise LookupError

    with pytest.raises(LookupError):
        await world.database.write(fail)
    await world.do(plumbing.append_event, event(world))
    await world.do(plumbing.number_events, 10)
    assert [row["seq"] for row in await world.do(plumbing.events_after, 0, 10)] == [1]
