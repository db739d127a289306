"""Activities in virtual Temporal: tries, limits, heartbeats, cancelling."""

import asyncio
from typing import Any

import pytest
from temporalio import activity
from temporalio.workflow import ActivityCancellationType

from domain.operations import WorkflowState
from simulator.temporal.errors import Unsupported
from simulator.temporal.worker import VirtualWorker
from tests.simulator.stand import Stand, stand
from tests.simulator.toy_steps import Order, Steps
from tests.simulator.toys import OneStep

pytestmark = pytest.mark.unit

WAITS = ActivityCancellationType.WAIT_CANCELLATION_COMPLETED
ABANDONS = ActivityCancellationType.ABANDON
TIMED_OUT = "ActivityError {} (Activity task timed out) <- TimeoutError {} (activity {} timeout)"

CANCELLED = "ActivityError CANCEL_REQUESTED (Activity cancelled) <- CancelledError (Cancelled)"


def one(order: Order, **worker: Any) -> tuple[Any, Stand]:
    """What a workflow with one activity gave, and where it ran."""
    with stand() as (at, run):
        at.worker(**worker)
        return run(at.does(OneStep, order)), at


@pytest.mark.parametrize(
    ("order", "times"),
    [
        (Order(first_s=1), [0, 1, 3, 7, 15]),
        (Order(first_s=0.5, coefficient=1), [0, 0.5, 1, 1.5, 2]),
        (Order(first_s=1, most_s=3), [0, 1, 3, 6, 9]),
        (Order(first_s=0.1, coefficient=20), [0, 0.1, 2.1, 12.1, 22.1]),
    ],
)
def test_waits_between_tries_grow_as_the_policy_says(order: Order, times: list[float]) -> None:
    (ended, _took), at = one(order.model_copy(update={"step": "toy.flaky", "value": 5}))
    assert ended == 5
    assert at.steps.times() == pytest.approx(times)
    assert [number for _name, number, _at in at.steps.calls] == [1, 2, 3, 4, 5]


def test_after_the_last_try_the_workflow_sees_the_last_failure() -> None:
    (ended, _took), at = one(Order(step="toy.flaky", value=9, tries=3))
    state = "MAXIMUM_ATTEMPTS_REACHED"
    assert ended == (
        f"ActivityError {state} (Activity task failed) <- ApplicationError Flaky (Flaky: not yet)"
    )
    assert len(at.steps.calls) == 3


@pytest.mark.parametrize(
    "order",
    [
        Order(value={"type": "Bad"}, final_types=["Bad", "Worse"]),
        Order(value={"type": "Other", "final": True}),
    ],
)
def test_a_failure_that_is_final_is_not_tried_again(order: Order) -> None:
    (ended, _took), at = one(order.model_copy(update={"step": "toy.fails"}))
    assert ended.startswith("ActivityError NON_RETRYABLE_FAILURE")
    assert len(at.steps.calls) == 1


def test_a_failure_may_say_when_to_try_again_but_not_for_ever() -> None:
    order = Order(step="toy.fails", value={"type": "Busy", "delay_s": 7}, tries=3)
    (ended, _took), at = one(order)
    assert at.steps.times() == [0, 7, 14]
    assert "MAXIMUM_ATTEMPTS_REACHED" in ended


def test_a_wait_that_a_failure_asks_for_is_cut_at_the_policys_longest() -> None:
    order = Order(step="toy.fails", value={"type": "Busy", "delay_s": 70}, tries=2, most_s=5)
    _ended, at = one(order)
    assert at.steps.times() == [0, 5]


def test_a_try_that_takes_too_long_is_tried_again_and_what_it_reports_late_is_refused() -> None:
    order = Order(step="toy.sleeps", value=12, start_to_close_s=10, tries=2)
    (ended, took), at = one(order)
    assert ended == TIMED_OUT.format("MAXIMUM_ATTEMPTS_REACHED", "START_TO_CLOSE", "StartToClose")
    assert at.steps.times() == [0, 11]
    assert took == 21
    assert at.kinds("step.late") == [{"workflow": "w", "attempt": 1}]
    assert at.steps.seen == ["slept"]


def test_no_try_begins_that_would_begin_after_the_last_limit() -> None:
    order = Order(step="toy.flaky", value=9, schedule_to_close_s=10)
    (ended, took), at = one(order)
    assert at.steps.times() == [0, 1, 3, 7]
    assert (
        ended
        == "ActivityError TIMEOUT (Activity task failed) <- ApplicationError Flaky (Flaky: not yet)"
    )
    assert took == 7


def test_the_last_limit_ends_a_try_that_runs() -> None:
    order = Order(step="toy.sleeps", value=60, start_to_close_s=50, schedule_to_close_s=10)
    (ended, took), _at = one(order)
    assert ended.startswith("ActivityError TIMEOUT")
    assert "SCHEDULE_TO_CLOSE (Not enough time to schedule next retry" in ended
    assert took == 10


def test_a_step_that_nobody_takes_ends_at_its_limit_for_that() -> None:
    order = Order(queue="nobody", schedule_to_start_s=4)
    (ended, took), _at = one(order)
    name = "SCHEDULE_TO_START"
    assert ended == TIMED_OUT.format("TIMEOUT", name, "ScheduleToStart")
    assert took == 4


def test_a_step_that_does_not_beat_in_time_is_tried_again() -> None:
    order = Order(step="toy.sleeps", value=100, start_to_close_s=60, heartbeat_s=5, tries=2)
    (ended, took), at = one(order)
    assert ended == TIMED_OUT.format("MAXIMUM_ATTEMPTS_REACHED", "HEARTBEAT", "Heartbeat")
    assert at.steps.times() == [0, 6]
    assert took == 11


def test_a_limit_may_be_named_as_final() -> None:
    kinds = ["TemporalTimeout:Heartbeat"]
    order = Order(step="toy.sleeps", value=100, heartbeat_s=5, final_types=kinds)
    (ended, took), _at = one(order)
    assert ended.startswith("ActivityError NON_RETRYABLE_FAILURE")
    assert took == 5


def test_a_step_that_beats_may_take_long() -> None:
    value = {"until": 20, "every_s": 1}
    (ended, took), _at = one(
        Order(step="toy.beats", value=value, start_to_close_s=60, heartbeat_s=2)
    )
    assert (ended, took) == ([1, 20], 20)


def test_the_next_try_finds_the_last_details_that_were_sent() -> None:
    # Sent are the first at 0 s and the last known at 4, 8 and 12 s; from 13 s on it hangs.
    value = {"until": 20, "hang_at": 14}
    order = Order(step="toy.beats", value=value, start_to_close_s=60, heartbeat_s=5)
    (ended, _took), at = one(order)
    assert ended == [2, 20]
    # The 14th, held back since 13 s, was still sent at 16 s.
    assert at.steps.seen[:2] == [[], [14]]
    assert at.steps.times() == [0, 22]


def test_details_held_back_go_out_with_the_report_of_a_failure() -> None:
    value = {"until": 5, "fail_at": 3}
    order = Order(step="toy.beats", value=value, start_to_close_s=60, heartbeat_s=30)
    (ended, _took), at = one(order)
    assert ended == [2, 5]
    assert at.steps.seen == [[], [3]]


def test_a_cancel_reaches_a_step_with_the_next_heartbeat_that_is_sent() -> None:
    value = {"until": 50}
    order = Order(
        step="toy.beats",
        value=value,
        start_to_close_s=60,
        heartbeat_s=10,
        cancellation=WAITS,
        cancel_after_s=9,
    )
    (ended, took), at = one(order)
    why, at_s = at.steps.seen[-1]
    assert (why.cancel_requested, why.not_found, at_s) == (True, False, 16)
    assert ended == CANCELLED
    assert took == 16


def test_a_step_may_finish_although_it_was_cancelled() -> None:
    order = Order(
        step="toy.stubborn",
        value=30,
        start_to_close_s=60,
        heartbeat_s=5,
        cancellation=WAITS,
        cancel_after_s=3,
    )
    (ended, took), at = one(order)
    assert ended == "finished all the same"
    assert at.steps.seen == ["cancelled"]
    assert took == 6


def test_a_workflow_that_only_tries_to_cancel_does_not_wait() -> None:
    order = Order(
        step="toy.beats", value={"until": 50}, start_to_close_s=60, heartbeat_s=5, cancel_after_s=3
    )
    with stand() as (at, run):
        at.worker()

        async def main() -> Any:
            run_ = at.start(OneStep, order)
            gave = await at.result(run_)
            await at.loop.create_task(_until(at, 20))
            return gave

        ended, took = run(main())
    assert "CancelledError" in ended
    assert took == 3
    # It hears of it all the same: the workflow has ended, nobody knows the try any more.
    why, at_s = at.steps.seen[-1]
    assert (why.not_found, at_s) == (True, 4)


async def _until(at: Stand, at_s: float) -> None:
    await asyncio.sleep(at_s - at.loop.time())


def test_an_abandoned_step_is_not_told_and_may_finish() -> None:
    order = Order(
        step="toy.sleeps",
        value=8,
        start_to_close_s=60,
        cancellation=ABANDONS,
        cancel_after_s=3,
    )
    with stand() as (at, run):
        at.worker()

        async def main() -> Any:
            gave = await at.does(OneStep, order)
            await _until(at, 20)
            return gave

        ended, took = run(main())
    assert "CancelledError" in ended
    assert took == 3
    assert at.steps.seen == ["slept"]


@pytest.mark.parametrize("cancellation", [WAITS, ActivityCancellationType.TRY_CANCEL])
def test_a_step_that_no_worker_has_is_cancelled_at_once(cancellation: int) -> None:
    order = Order(queue="nobody", cancellation=cancellation, cancel_after_s=2)
    (ended, took), _at = one(order)
    assert "CancelledError" in ended
    assert took == 2


def test_a_cancel_ends_the_wait_for_the_next_try() -> None:
    order = Order(step="toy.flaky", value=9, first_s=50, cancellation=WAITS, cancel_after_s=2)
    (ended, took), at = one(order)
    assert "CancelledError" in ended
    assert (took, len(at.steps.calls)) == (2, 1)


def test_a_cancelled_step_that_fails_is_not_tried_again() -> None:
    order = Order(
        step="toy.sleeps",
        value=60,
        start_to_close_s=10,
        cancellation=WAITS,
        cancel_after_s=2,
    )
    (ended, took), at = one(order)
    assert ended.startswith("ActivityError CANCEL_REQUESTED")
    assert (took, len(at.steps.calls)) == (10, 1)


def test_a_step_that_the_worker_lacks_fails_with_its_name() -> None:
    (ended, _took), _at = one(Order(step="toy.unknown", tries=1))
    assert "toy.unknown" in ended


def test_a_step_in_a_thread_is_unsupported_by_name() -> None:
    @activity.defn(name="toy.threaded")
    def threaded() -> None:
        """Would need one."""

    class Threaded(Steps):
        def all(self) -> list[Any]:
            return [threaded]

    with stand() as (at, _run), pytest.raises(Unsupported, match=r"toy\.threaded"):
        at.worker(steps=Threaded())


def test_a_step_whose_workflow_was_terminated_is_told_at_its_next_heartbeat() -> None:
    order = Order(step="toy.beats", value={"until": 50}, start_to_close_s=60, heartbeat_s=5)
    with stand() as (at, run):
        worker: VirtualWorker = at.worker()

        async def main() -> None:
            begun = at.start(OneStep, order)
            await _until(at, 2)
            at.server.terminate(begun)
            assert (await at.ended(begun)).state is WorkflowState.TERMINATED
            await _until(at, 10)

        run(main())
        assert not worker.process.dead
    assert at.steps.seen[-1][1] == 4
    assert at.kinds("step.late") != []
