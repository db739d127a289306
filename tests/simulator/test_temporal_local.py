"""Local activities in virtual Temporal: tries, waits, limits, cancels, and what a crash loses."""

import asyncio
from typing import Any

import pytest
from temporalio.workflow import ActivityCancellationType

from tests.simulator.stand import Stand, stand
from tests.simulator.toy_steps import Order
from tests.simulator.toys import Many, OneStep

pytestmark = pytest.mark.unit

WAITS = ActivityCancellationType.WAIT_CANCELLATION_COMPLETED


def one(order: Order, **more: Any) -> tuple[Any, Stand]:
    """What a workflow with one local activity gave, and where it ran."""
    with stand() as (at, run):
        at.worker()
        return run(at.does(OneStep, order.model_copy(update={"local": True}), **more)), at


def commands(at: Stand) -> list[list[str]]:
    """What each task of the one workflow commanded."""
    run = at.server.current("w")
    assert run is not None
    kinds = [[str(c.WhichOneof("variant")) for c in turn.commands] for turn in run.turns]
    return [each for each in kinds if each]


def test_short_waits_stay_in_the_task() -> None:
    (ended, took), at = one(Order(step="toy.flaky", value=4, first_s=0.5, threshold_s=5))
    assert (ended, took) == (4, 4)
    assert at.steps.times() == [0, 0.5, 1.5, 3.5]
    assert commands(at) == [["schedule_local_activity"], ["complete_workflow_execution"]]


def test_a_wait_beyond_the_threshold_is_a_timer_of_the_workflow() -> None:
    (ended, _took), at = one(Order(step="toy.flaky", value=4, first_s=1, threshold_s=1.5))
    assert ended == 4
    assert at.steps.times() == [0, 1, 3, 7]
    assert commands(at) == [
        ["schedule_local_activity"],
        ["start_timer"],
        ["schedule_local_activity"],
        ["start_timer"],
        ["schedule_local_activity"],
        ["complete_workflow_execution"],
    ]


def test_the_number_of_tries_counts_over_those_timers() -> None:
    (ended, _took), at = one(Order(step="toy.flaky", value=9, threshold_s=1.5, tries=3))
    assert [number for _name, number, _at in at.steps.calls] == [1, 2, 3]
    assert ended == "ApplicationError Flaky (Flaky: not yet)"


def test_a_final_failure_comes_bare_as_from_the_sdk() -> None:
    (ended, _took), _at = one(Order(step="toy.fails", value={"type": "Bad", "final": True}))
    assert ended == "ApplicationError Bad (Bad: as told)"


def test_a_try_that_takes_too_long_is_cancelled_and_tried_again() -> None:
    (ended, took), at = one(Order(step="toy.sleeps", value=50, start_to_close_s=3, tries=2))
    assert at.steps.times() == [0, 4]
    assert took == 7
    assert "TimeoutError START_TO_CLOSE" in ended
    assert at.steps.seen == []


def test_the_limit_over_all_tries_ends_the_waits_too() -> None:
    order = Order(step="toy.flaky", value=9, first_s=2, schedule_to_close_s=5)
    (ended, took), at = one(order)
    assert at.steps.times() == [0, 2]
    assert took == 5
    assert "TimeoutError SCHEDULE_TO_CLOSE" in ended


def test_a_task_with_a_long_local_step_is_reported_in_parts() -> None:
    order = Order(step="toy.sleeps", value=21, start_to_close_s=60)
    (ended, took), at = one(order, task_timeout_s=10.0)
    assert (ended, took) == ("slept", 21)
    assert at.steps.times() == [0]
    run = at.server.current("w")
    assert run is not None
    # At 8 s and at 16 s the server was told that it goes on.
    assert run.task_number == 3
    assert at.kinds("task.timed_out") == []


def test_news_reach_a_workflow_between_those_parts() -> None:
    orders = [Order(step="toy.sleeps", value=21, start_to_close_s=60, local=True), Order(value=1)]
    with stand() as (at, run):
        at.worker()
        assert run(at.does(Many, orders)) == ["slept", 1]
        ended = at.server.current("w")
        assert ended is not None
        told = [
            (turn.activation.timestamp.ToDatetime().second, job.resolve_activity.is_local)
            for turn in ended.turns
            for job in turn.activation.jobs
            if job.HasField("resolve_activity")
        ]
    # The ordinary step is scheduled with the report at 8 s, and its end is told at 16 s.
    assert told == [(16, False), (21, True)]


def test_a_dead_workers_local_results_are_made_again() -> None:
    orders = [Order(value=1, local=True), Order(step="toy.sleeps", value=3, local=True)]
    with stand() as (at, run):
        first = at.worker("first")

        async def main() -> Any:
            begun = at.start(Many, orders)
            await asyncio.sleep(2)
            at.kill(first)
            at.worker("second")
            return await at.result(begun)

        assert run(main()) == [1, "slept"]
    # The task was lost with its worker, and given out again at its limit.
    assert [(name, at_s) for name, _number, at_s in at.steps.calls] == [
        ("toy.echo", 0),
        ("toy.sleeps", 0),
        ("toy.echo", 10),
        ("toy.sleeps", 10),
    ]


def test_results_that_the_server_has_are_not_made_again() -> None:
    orders = [
        Order(value=1, local=True),
        Order(step="toy.sleeps", value=12, start_to_close_s=60, local=True),
    ]
    with stand() as (at, run):
        first = at.worker("first")

        async def main() -> Any:
            begun = at.start(Many, orders)
            await asyncio.sleep(9)  # reported in part at 8 s
            at.kill(first)
            at.worker("second")
            return await at.result(begun)

        assert run(main()) == [1, "slept"]
    names = [name for name, _number, _at in at.steps.calls]
    assert names == ["toy.echo", "toy.sleeps", "toy.sleeps"]


@pytest.mark.parametrize(
    ("cancellation", "took_s", "seen"),
    [
        (ActivityCancellationType.TRY_CANCEL, 16, []),
        (WAITS, 16, []),
        (ActivityCancellationType.ABANDON, 16, ["slept"]),
    ],
)
def test_a_local_step_is_cancelled_in_its_own_way(
    cancellation: int, took_s: int, seen: list[str]
) -> None:
    order = Order(
        step="toy.sleeps",
        value=30,
        start_to_close_s=60,
        cancellation=cancellation,
        cancel_after_s=2,
        local=True,
    )
    with stand() as (at, run):
        at.worker()

        async def main() -> Any:
            gave = await at.does(OneStep, order)
            await asyncio.sleep(60)
            return gave

        ended, took = run(main())
    # The server hears of the workflow's timer with the report at 8 s, and the workflow of its end
    # with the next task, at 16 s.
    assert "CancelledError" in ended
    assert took == took_s
    assert at.steps.seen == seen


def test_a_cancel_that_is_waited_for_tells_what_the_step_made_of_it() -> None:
    order = Order(
        step="toy.stubborn",
        value=30,
        start_to_close_s=60,
        cancellation=WAITS,
        cancel_after_s=9,
        local=True,
    )
    (ended, took), at = one(order)
    assert ended == "finished all the same"
    assert at.steps.seen == ["cancelled"]
    assert took == 26  # its timer is told at 24 s, see above
