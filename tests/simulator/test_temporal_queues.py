"""Task queues in virtual Temporal: slots, priority, turns among keys, a priority that is raised."""

import asyncio
from typing import Any

import pytest
from temporalio.common import Priority

from simulator.temporal.queues import Rank, TaskQueue
from tests.simulator.stand import Stand, stand
from tests.simulator.toy_steps import Order
from tests.simulator.toys import Many, OneStep

pytestmark = pytest.mark.unit


def order_of(at: Stand) -> list[str]:
    """Workflows in the order in which their steps began."""
    return [facts["workflow"] for facts in at.kinds("step.started")]


def test_no_more_steps_run_at_once_than_there_are_slots() -> None:
    orders = [Order(step="toy.sleeps", value=10, start_to_close_s=60) for _ in range(5)]
    with stand() as (at, run):
        at.worker(activity_slots=2)
        assert run(at.does(Many, orders)) == ["slept"] * 5
    assert at.steps.times() == [0, 0, 10, 10, 20]


def test_no_more_workflow_tasks_run_at_once_than_there_are_slots() -> None:
    order = Order(step="toy.sleeps", value=5, local=True)
    with stand() as (at, run):
        at.worker(workflow_slots=2)

        async def main() -> None:
            begun = [at.start(OneStep, order, wid=f"w{n}") for n in range(4)]
            for each in begun:
                await at.ended(each)

        run(main())
    assert at.steps.times() == [0, 0, 5, 5]


def _in_line(priorities: dict[str, Priority], *, raised: dict[str, int] | None = None) -> list[str]:
    """Who comes when on one slot that is taken at first."""
    order = Order(step="toy.sleeps", value=10, start_to_close_s=60)
    with stand() as (at, run):
        at.worker("steps", workflows=(), activity_slots=1)
        at.worker("workflows", activity_slots=0)

        async def main() -> None:
            first = at.start(OneStep, order, wid="first")
            await asyncio.sleep(1)
            begun = {}
            for wid, priority in priorities.items():
                begun[wid] = at.start(OneStep, order, wid=wid, priority=priority)
                await asyncio.sleep(0.1)
            for wid, priority_key in (raised or {}).items():
                at.server.raise_priority(begun[wid], priority_key)
            for each in (first, *begun.values()):
                await at.ended(each)

        run(main())
        return order_of(at)[1:]


def test_the_more_urgent_goes_first_and_equals_in_their_order() -> None:
    keys = {"a5": 5, "b3": None, "c1": 1, "d5": 5, "e1": 1, "f3": 3}
    line = {wid: Priority(priority_key=key) for wid, key in keys.items()}
    assert _in_line(line) == ["c1", "e1", "b3", "f3", "a5", "d5"]


def test_keys_take_turns_however_long_ones_backlog_is() -> None:
    keys = {"a1": "a", "a2": "a", "a3": "a", "b1": "b", "a4": "a", "b2": "b"}
    line = {wid: Priority(fairness_key=key) for wid, key in keys.items()}
    assert _in_line(line) == ["a1", "b1", "a2", "b2", "a3", "a4"]


def test_a_key_with_twice_the_weight_has_twice_the_turns() -> None:
    keys = [f"a{n}" for n in range(4)] + [f"b{n}" for n in range(4)]
    weights = {"a": 1.0, "b": 2.0}
    line = {wid: Priority(fairness_key=wid[0], fairness_weight=weights[wid[0]]) for wid in keys}
    went = _in_line(line)
    assert sorted(went[:3]) == ["a0", "b0", "b1"]
    assert sorted(went[:6]) == ["a0", "a1", "b0", "b1", "b2", "b3"]


def test_a_waiting_step_moves_up_when_its_workflow_is_raised() -> None:
    line = {wid: Priority(priority_key=4) for wid in ("a", "b", "c")}
    assert _in_line(line, raised={"c": 1}) == ["c", "a", "b"]


def test_a_step_with_a_priority_of_its_own_keeps_it_when_its_workflow_is_raised() -> None:
    with stand() as (at, run):
        at.worker(activity_slots=0)

        async def main() -> Any:
            begun = at.start(OneStep, Order(priority=5), priority=Priority(priority_key=4))
            await asyncio.sleep(1)
            at.server.raise_priority(begun, 1)
            other = at.start(OneStep, Order(priority=2), wid="other")
            await asyncio.sleep(1)
            (step,) = other.steps.values()
            assert at.server.queue("toys").take() is step

        run(main())


def test_a_queue_forgets_what_was_removed_and_counts_the_rest() -> None:
    queue = TaskQueue("q")
    for task in ("a", "b", "c"):
        queue.put(task, Rank())
    queue.remove("b")
    queue.rerank("nobody", Rank(1))
    assert len(queue) == 2
    assert [queue.take(), queue.take(), queue.take()] == ["a", "c", None]


def test_a_worker_that_left_its_queue_is_not_told_any_more() -> None:
    queue, told = TaskQueue("q"), []

    def taker() -> bool:
        told.append(len(queue))
        return False

    queue.listen(taker)
    queue.put("a", Rank())
    queue.leave(taker)
    queue.put("b", Rank())
    assert told == [1]
