"""The virtual loop: time, processes that die and freeze, and clearing away what is left."""

import asyncio
import gc
from datetime import timedelta

import pytest

from simulator.loop import CURRENT, EPOCH, SWEEP_FROM, Process, Stalled, VirtualLoop

pytestmark = pytest.mark.unit


@pytest.fixture
def loop():  # type: ignore[no-untyped-def]
    """A loop that is cleared in the end."""
    made = VirtualLoop()
    asyncio.set_event_loop(made)
    yield made
    made.clear()
    asyncio.set_event_loop(None)


def test_time_jumps_to_the_next_timer(loop: VirtualLoop) -> None:
    async def main() -> list[float]:
        seen = [loop.time()]
        for wait_s in (3600, 0.25, 10**6):
            await asyncio.sleep(wait_s)
            seen.append(loop.time())
        return seen

    assert loop.run_until_complete(main()) == [0, 3600, 3600.25, 1003600.25]


def test_timers_of_one_moment_fire_in_the_order_in_which_they_were_set(loop: VirtualLoop) -> None:
    fired: list[int] = []
    for number in range(50):
        loop.call_at(1.0, fired.append, number)
    loop.run_until_complete(asyncio.sleep(2))
    assert fired == list(range(50))


def test_a_loop_with_nothing_left_to_happen_is_stalled(loop: VirtualLoop) -> None:
    with pytest.raises(Stalled, match="nothing is left"):
        loop.run_until_complete(asyncio.Event().wait())


async def _counts(seen: list[int]) -> None:
    try:
        for number in range(100):
            seen.append(number)
            await asyncio.sleep(1)
    finally:
        seen.append(-1)


def test_a_killed_process_stops_where_it_is_and_cleans_nothing_up(loop: VirtualLoop) -> None:
    process, seen = Process("p", "m"), list[int]()
    loop.spawn(process, _counts(seen))

    async def main() -> None:
        await asyncio.sleep(2.5)
        process.kill()
        gc.collect()
        await asyncio.sleep(50)
        gc.collect()
        assert seen == [0, 1, 2]

    loop.run_until_complete(main())
    loop.clear()
    assert seen == [0, 1, 2, -1]
    assert repr(process) == "p@m"


def test_a_task_that_only_its_own_cycle_holds_is_not_collected(loop: VirtualLoop) -> None:
    seen: list[str] = []

    async def waits() -> None:
        future = asyncio.get_running_loop().create_future()
        future.add_done_callback(lambda _: future)  # nobody else knows it
        try:
            await future
        finally:
            seen.append("cleaned up")

    async def main() -> None:
        asyncio.create_task(waits())  # noqa: RUF006 - that nobody keeps it is the point
        await asyncio.sleep(1)
        gc.collect()
        await asyncio.sleep(1)

    loop.run_until_complete(main())
    assert seen == []


def test_done_tasks_are_not_kept_for_ever(loop: VirtualLoop) -> None:
    async def main() -> None:
        for _ in range(3 * SWEEP_FROM):
            await asyncio.create_task(asyncio.sleep(0))

    loop.run_until_complete(main())
    assert len(loop._tasks) <= SWEEP_FROM + 1


def test_a_frozen_process_goes_on_where_it_was_with_what_it_missed(loop: VirtualLoop) -> None:
    process, seen = Process("p", "m"), list[int]()
    loop.spawn(process, _counts(seen))

    async def main() -> None:
        await asyncio.sleep(2.5)
        process.freeze()
        loop.spawn_soon(process, lambda: seen.append(100))
        await asyncio.sleep(50)
        assert seen == [0, 1, 2]
        process.thaw(loop)
        await asyncio.sleep(1.5)

    loop.run_until_complete(main())
    assert seen == [0, 1, 2, 100, 3, 4]


def test_a_frozen_process_that_is_killed_misses_everything(loop: VirtualLoop) -> None:
    process, seen = Process("p", "m"), list[int]()
    loop.spawn(process, _counts(seen))

    async def main() -> None:
        await asyncio.sleep(0.5)
        process.freeze()
        await asyncio.sleep(5)
        process.kill()
        process.thaw(loop)
        await asyncio.sleep(5)

    loop.run_until_complete(main())
    assert seen == [0]


def test_children_of_a_processs_task_belong_to_it(loop: VirtualLoop) -> None:
    process, seen = Process("p", "m"), list[int]()

    async def parent() -> None:
        await asyncio.gather(asyncio.create_task(_counts(seen)), asyncio.sleep(100))

    loop.spawn(process, parent())

    async def main() -> None:
        await asyncio.sleep(1.5)
        process.kill()
        await asyncio.sleep(10)

    loop.run_until_complete(main())
    assert seen == [0, 1]


def test_a_machines_clock_may_be_wrong_while_time_goes_on(loop: VirtualLoop) -> None:
    process = Process("p", "m")
    process.clock_skew = timedelta(hours=-2)

    async def main() -> None:
        await asyncio.sleep(5)
        assert loop.now() == EPOCH + timedelta(seconds=5)
        seen = await loop.spawn(process, _now(loop))
        assert seen == (process, EPOCH + timedelta(seconds=5, hours=-2))

    loop.run_until_complete(main())


async def _now(loop: VirtualLoop) -> tuple[Process | None, object]:
    return CURRENT.get(), loop.now()


def test_what_goes_wrong_in_a_callback_is_kept(loop: VirtualLoop) -> None:
    def wrong() -> None:
        raise ValueError("as told")

    loop.call_soon_threadsafe(wrong)
    loop.run_until_complete(asyncio.sleep(0))
    (kept,) = loop.errors
    assert str(kept["exception"]) == "as told"


def test_clearing_ends_tasks_that_are_begun_while_it_clears(loop: VirtualLoop) -> None:
    seen: list[str] = []

    async def last_words() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            seen.append("last")

    async def first() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            asyncio.create_task(last_words())  # noqa: RUF006 - left behind on purpose

    loop.create_task(first())
    loop.run_until_complete(asyncio.sleep(1))
    loop.clear()
    assert seen in ([], ["last"])
    assert loop.is_closed()
