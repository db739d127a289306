"""Hung, given up and cancelled calls in a connection's thread, with calls that hang at will."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from domain.errors import NoAnswer, OutcomeUnknown
from drivers.libvirt_lane import Lane, Threads, Ticket

pytestmark = pytest.mark.unit

Until = Callable[[Callable[[], object]], Awaitable[None]]
SHORT_S = 0.05
LONG_S = 20.0


@pytest.fixture
def released() -> Iterator[threading.Event]:
    """What a stuck call waits for; set at the end, so that no thread is left."""
    event = threading.Event()
    yield event
    event.set()


async def test_a_call_that_hangs_kills_its_lane_and_no_other(
    released: threading.Event, until: Until
) -> None:
    threads = Threads()
    stuck, healthy = Lane("h1", threads), Lane("h2", threads)
    with pytest.raises(NoAnswer):
        await stuck.run(lambda _c, _t: released.wait(), SHORT_S)
    assert await healthy.run(lambda _c, _t: "answer", LONG_S) == "answer"
    assert (threads.hung(), threads.running()) == ({"h1": 1}, 2)
    with pytest.raises(NoAnswer, match="connection is gone"):
        await stuck.run(lambda _c, _t: "answer", LONG_S)
    released.set()
    await until(lambda: threads.running() == 1)
    assert threads.hung() == {}
    await healthy.close(LONG_S)
    await until(lambda: threads.running() == 0)


async def test_a_host_with_too_many_hung_threads_is_refused_at_once_and_others_are_not(
    released: threading.Event, until: Until
) -> None:
    threads = Threads(limit=4, hung_per_host=2)
    for _ in range(2):
        with pytest.raises(NoAnswer):
            await Lane("h1", threads).run(lambda _c, _t: released.wait(), SHORT_S)
    with pytest.raises(NoAnswer, match="HYPERVISOR_HUNG"):
        Lane("h1", threads)
    others = [Lane("h2", threads), Lane("h3", threads)]
    with pytest.raises(NoAnswer, match="HYPERVISOR_THREADS_USED_UP"):
        Lane("h4", threads)
    released.set()
    await until(lambda: not threads.hung())
    others.append(Lane("h1", threads))
    for lane in others:
        lane.discard()
    await until(lambda: threads.running() == 0)


async def test_a_change_that_was_given_up_before_it_was_sent_is_never_sent(
    released: threading.Event, until: Until
) -> None:
    threads = Threads()
    changes: list[str] = []

    def slow_look_then_change(_connection: Any, ticket: Ticket) -> None:
        released.wait()
        ticket.sending()
        changes.append("sent")

    with pytest.raises(NoAnswer):
        await Lane("h1", threads).run(slow_look_then_change, SHORT_S)
    released.set()
    await until(lambda: threads.running() == 0)
    assert changes == []


async def test_a_change_that_was_sent_and_not_answered_has_an_unknown_outcome(
    released: threading.Event,
) -> None:
    begun = threading.Event()

    def change_that_hangs(_connection: Any, ticket: Ticket) -> None:
        ticket.sending()
        begun.set()
        released.wait()

    call = asyncio.create_task(Lane("h1", Threads()).run(change_that_hangs, SHORT_S))
    await asyncio.sleep(0)  # the thread has it now
    assert begun.wait(LONG_S)  # this loop stands still meanwhile, and with it the deadline
    with pytest.raises(OutcomeUnknown) as unknown:
        await call
    assert unknown.value.code == "HYPERVISOR_ANSWER_LOST"


async def test_a_cancelled_call_sends_nothing_and_kills_its_lane(
    released: threading.Event, until: Until
) -> None:
    threads = Threads()
    lane = Lane("h1", threads)
    begun = threading.Event()
    changes: list[str] = []

    def work(_connection: Any, ticket: Ticket) -> None:
        begun.set()
        released.wait()
        ticket.sending()
        changes.append("sent")

    call = asyncio.create_task(lane.run(work, LONG_S))
    await until(begun.is_set)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    released.set()
    await until(lambda: threads.running() == 0)
    assert (changes, lane.dead) == ([], True)


async def test_giving_up_hangs_up_so_that_the_thread_comes_back(until: Until) -> None:
    threads = Threads()
    lane = Lane("h1", threads)
    hung_up = threading.Event()
    lane.hang_up = hung_up.set
    with pytest.raises(NoAnswer):
        await lane.run(lambda _c, _t: hung_up.wait(), SHORT_S)
    await until(lambda: threads.running() == 0)
    assert threads.hung() == {}


async def test_an_error_in_the_thread_is_raised_where_the_caller_waits() -> None:
    lane = Lane("h1", Threads())
    with pytest.raises(ZeroDivisionError):
        await lane.run(lambda _c, _t: 1 // 0, LONG_S)
    assert await lane.run(lambda _c, _t: "still there", LONG_S) == "still there"
    await lane.close(LONG_S)
