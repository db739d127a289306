"""Virtual Temporal under failures: workers that die, freeze, are cut off; a server that is down."""

import asyncio
from typing import Any

import pytest

from simulator.temporal.task import TASK_SHARE
from simulator.temporal.worker import POLLS, REPORT_FOR_S
from tests.simulator.stand import QUEUE, Stand, stand
from tests.simulator.toy_steps import Order, Steps
from tests.simulator.toys import Many, OneStep, Sequence

pytestmark = pytest.mark.unit

ROUNDS = 3
BEATING = Order(step="toy.beats", value={"until": 20}, start_to_close_s=60, heartbeat_s=5)


def undisturbed() -> list[Any]:
    """What a long workflow gives."""
    with stand() as (at, run):
        at.worker()
        result: list[Any] = run(at.does(Sequence, ROUNDS))
        return result


def test_each_worker_that_dies_at_any_activation_is_replaced_by_replay() -> None:
    expected = undisturbed()
    with stand() as (at, run):
        at.worker("spare")

        async def main() -> Any:
            begun = at.start(Sequence, ROUNDS)
            while begun.open:
                at.worker(f"next-{len(at.workers)}")
                await asyncio.sleep(0.6)
                if begun.sticky in at.server.workers:
                    at.kill(begun.sticky)
            return await at.result(begun)

        assert run(main()) == expected
    assert len([w for w in at.workers if w.process.dead]) >= ROUNDS


def test_a_result_is_the_same_after_an_eviction_at_every_moment() -> None:
    expected = undisturbed()
    with stand(hops={"task": 0.01, "step": 0.01, "report": 0.01}) as (at, run):
        worker = at.worker()

        async def main() -> Any:
            begun = at.start(Sequence, ROUNDS)
            while begun.open:
                worker.evict_all()
                await asyncio.sleep(0.005)
            return await at.result(begun)

        assert run(main()) == expected


@pytest.mark.parametrize("cached", [0, 1])
def test_many_workflows_take_turns_in_a_small_cache(cached: int) -> None:
    expected = undisturbed()
    with stand() as (at, run):
        at.worker(cached=cached)

        async def main() -> list[Any]:
            begun = [at.start(Sequence, ROUNDS, wid=f"w{n}") for n in range(4)]
            return [await at.result(each) for each in begun]

        results = run(main())
    # Each has a seed of its own; what does not come from it is the same.
    for result in results:
        assert [v for v in result if isinstance(v, int) and abs(v) < 10] == [
            v for v in expected if isinstance(v, int) and abs(v) < 10
        ]


def test_an_instance_that_waits_for_a_local_step_is_not_thrown_out_for_room() -> None:
    order = Order(step="toy.sleeps", value=5, local=True)
    with stand() as (at, run):
        at.worker(cached=1)

        async def main() -> list[Any]:
            begun = [at.start(OneStep, order, wid=f"w{n}") for n in range(3)]
            return [await at.result(each) for each in begun]

        assert run(main()) == [["slept", 5]] * 3
    assert at.steps.times() == [0, 0, 0]


def test_a_step_of_a_dead_worker_is_taken_over_when_it_does_not_beat() -> None:
    with stand() as (at, run):
        at.worker("workflows", activity_slots=0)
        first = at.worker("first", workflows=())

        async def main() -> Any:
            begun = at.start(OneStep, BEATING)
            await asyncio.sleep(6.5)
            at.kill(first)
            at.worker("second", workflows=())
            return await at.result(begun)

        ended, _took = run(main())
    # The last beat was sent at 4 s, held 5 s; a second later somebody goes on from there.
    assert ended == [2, 20]
    assert at.steps.times() == [0, 10]
    assert at.steps.seen[:2] == [[], [4]]


def test_what_a_frozen_process_reports_after_its_step_was_given_up_is_refused() -> None:
    with stand() as (at, run):
        at.worker("workflows", activity_slots=0)
        first = at.worker("first", workflows=())

        async def main() -> Any:
            begun = at.start(OneStep, BEATING)
            await asyncio.sleep(2.5)
            first.process.freeze()
            at.worker("second", workflows=())
            gave = await at.result(begun)
            first.process.thaw(at.loop)
            await asyncio.sleep(30)
            return gave

        ended, _took = run(main())
    # The second try came to the open poll of the frozen process, the third to the other worker.
    assert ended == [3, 20]
    why, _at_s = next(each for each in at.steps.seen if isinstance(each, tuple))
    assert why.not_found
    assert at.kinds("step.late") == [{"workflow": "w", "attempt": n} for n in (1, 2)]


def test_a_frozen_process_swallows_as_many_tasks_as_it_has_polls_open() -> None:
    orders = [Order(value=n, start_to_close_s=8) for n in range(POLLS + 2)]
    with stand() as (at, run):
        at.worker("workflows", activity_slots=0)
        first = at.worker("first", workflows=(), activity_slots=50)

        async def main() -> Any:
            await asyncio.sleep(1)
            first.process.freeze()
            begun = at.start(Many, orders)
            await asyncio.sleep(1)
            at.worker("second", workflows=())
            gave = await at.result(begun)
            first.process.thaw(at.loop)
            await asyncio.sleep(1)
            return gave

        assert run(main()) == list(range(POLLS + 2))
    seconds = [at_s for _name, _number, at_s in at.steps.calls]
    # Two at once by the second worker, the others once their limit of 8 s is over, a second later.
    assert seconds.count(2) == 2
    assert seconds.count(10) == POLLS
    assert len(at.kinds("step.late")) == POLLS


def test_a_workflow_task_of_a_frozen_process_is_given_to_another_at_its_limit() -> None:
    order = Order(step="toy.sleeps", value=3, local=True)
    with stand() as (at, run):
        first = at.worker("first")

        async def main() -> Any:
            begun = at.start(OneStep, order)
            await asyncio.sleep(1)
            first.process.freeze()
            at.worker("second")
            gave = await at.result(begun)
            first.process.thaw(at.loop)
            await asyncio.sleep(5)
            return gave

        assert run(main()) == ["slept", 3]
    # Given out again at its limit of 10 s, to a poll that the frozen process still had open.
    assert len(at.kinds("task.timed_out")) == 2
    # Thawed, it begins the task that it was given meanwhile: its local step is done again, for
    # nothing. What such a step does to the world has to bear that.
    assert at.steps.times() == [0, 20, 23.25]


def test_a_run_that_others_went_on_with_is_rebuilt_where_it_was_before() -> None:
    expected = undisturbed()
    with stand() as (at, run):
        first = at.worker("first")

        async def main() -> Any:
            begun = at.start(Sequence, ROUNDS)
            await asyncio.sleep(0.5)
            first.process.freeze()
            second = at.worker("second")
            await asyncio.sleep(1.7 * 10)  # the frozen one swallowed a task
            first.process.thaw(at.loop)
            await asyncio.sleep(0.1)
            at.kill(second)
            return await at.result(begun)

        assert run(main()) == expected


def _outage(at: Stand, down_s: float, up_s: float) -> None:
    at.server.later(down_s, lambda: at.server.switch(False))
    at.loop.call_later(up_s, at.server.switch, True)


@pytest.mark.parametrize("down_s", [0.5, 1.0, 1.5, 2.0, 2.5])
def test_a_server_that_is_down_for_a_moment_loses_and_doubles_nothing(down_s: float) -> None:
    expected = undisturbed()
    with stand(hops={"task": 0.1, "step": 0.1, "report": 0.1}) as (at, run):
        at.worker()
        _outage(at, down_s, down_s + 3)
        assert run(at.does(Sequence, ROUNDS)) == expected
    names = [name for name, _number, _at in at.steps.calls]
    assert len(names) == 2 * ROUNDS


def test_nothing_is_taken_from_a_server_that_is_down() -> None:
    orders = [Order(step="toy.sleeps", value=5, start_to_close_s=60) for _ in range(2)]
    with stand() as (at, run):
        at.worker(activity_slots=1)
        _outage(at, 2, 9)
        assert run(at.does(Many, orders)) == ["slept", "slept"]
    # The first reports once the server is back, and only then the second begins.
    assert at.steps.times()[0] == 0
    assert 9 <= at.steps.times()[1] <= 9.5


def test_a_heartbeat_that_was_not_heard_is_sent_again() -> None:
    with stand() as (at, run):
        at.worker()
        _outage(at, 3.5, 4.5)  # the beat at 4 s is lost
        ended, _took = run(at.does(OneStep, BEATING))
    assert ended == [1, 20]
    assert len(at.steps.calls) == 1


def test_a_step_whose_report_finds_no_server_for_long_is_done_again() -> None:
    order = Order(step="toy.sleeps", value=2, start_to_close_s=20)
    with stand() as (at, run):
        at.worker()
        _outage(at, 1, 2 + REPORT_FOR_S + 5)
        assert run(at.does(OneStep, order))[0] == "slept"
    assert [number for _name, number, _at in at.steps.calls] == [1, 2]


def test_a_worker_that_is_cut_off_loses_its_work_to_others_and_polls_again_later() -> None:
    cut = {"first": False}
    mine, others = Steps(), Steps()
    with stand() as (at, run):
        at.worker("workflows", activity_slots=0)
        at.worker("first", workflows=(), steps=mine, reaches=lambda: not cut["first"])

        async def main() -> Any:
            begun = at.start(OneStep, BEATING)
            await asyncio.sleep(2.5)
            cut["first"] = True
            second = at.worker("second", workflows=(), steps=others)
            gave = await at.result(begun)
            cut["first"] = False
            at.kill(second)
            await asyncio.sleep(2)
            return gave, await at.does(OneStep, Order(value="again"), wid="w2")

        (ended, _took), again = run(main())
    assert ended == [2, 20]
    assert again[0] == "again"
    assert len(others.calls) == 1
    assert len(mine.calls) == 2


def test_a_process_that_dies_takes_no_task_any_more() -> None:
    with stand() as (at, run):
        first = at.worker("first", activity_slots=1)
        order = Order(step="toy.sleeps", value=5, start_to_close_s=60)

        async def main() -> None:
            at.start(Many, [order, order])
            await asyncio.sleep(1)
            first.process.kill()  # nobody has told the server yet
            await asyncio.sleep(20)
            assert len(at.server.queue(QUEUE)) == 1

        run(main())
    assert TASK_SHARE < 1
