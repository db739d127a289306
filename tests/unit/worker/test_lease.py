"""A long step's lease, in virtual time: kept while it lives, and its end when it cannot be kept."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any

import pytest

from domain.errors import Unavailable
from simulator.loop import CURRENT, Process, VirtualLoop
from worker.lease import LEASE_S, LONG_S, MARGIN_S, RENEWED_EVERY_S, first_limit_s, leased

pytestmark = pytest.mark.unit

Play = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture
def loop() -> Iterator[VirtualLoop]:
    made = VirtualLoop()
    asyncio.set_event_loop(made)
    yield made
    made.clear()
    asyncio.set_event_loop(None)


class Book:
    """Where a lease is written: until when, and what stood in the way."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.loop = loop
        self.until_s = LEASE_S
        self.renewed = 0
        self.taken = False  # by the next try
        self.away: Callable[[], Awaitable[None]] | None = None

    async def renew(self, lease_s: float) -> bool:
        if self.away is not None:
            await self.away()
        self.renewed += 1
        self.until_s = self.loop.time() + lease_s
        return not self.taken


async def refused() -> None:
    raise Unavailable("DATABASE_UNAVAILABLE", "the database does not answer")


def test_a_step_of_seconds_has_its_own_limit_and_renews_nothing(loop: VirtualLoop) -> None:
    book = Book(loop)
    assert first_limit_s(LONG_S) == LONG_S
    assert loop.run_until_complete(leased(lambda: asyncio.sleep(300, "done"), book.renew, LONG_S))
    assert book.renewed == 0


def test_a_long_step_is_held_for_as_long_as_it_lives_and_no_longer(loop: VirtualLoop) -> None:
    book = Book(loop)
    assert first_limit_s(1860.0) == LEASE_S

    async def work() -> str:
        for _ in range(180):
            await asyncio.sleep(10)
            assert loop.time() < book.until_s
        return "moved"

    assert loop.run_until_complete(leased(work, book.renew, 1860.0)) == "moved"
    assert 1800 / RENEWED_EVERY_S - 1 <= book.renewed <= 1800 / RENEWED_EVERY_S
    written = book.renewed
    loop.run_until_complete(asyncio.sleep(300))
    assert book.renewed == written


def test_a_short_outage_of_the_database_ends_no_step(loop: VirtualLoop) -> None:
    book = Book(loop)
    loop.call_at(20.0, setattr, book, "away", refused)
    loop.call_at(50.0, setattr, book, "away", None)
    assert loop.run_until_complete(leased(lambda: asyncio.sleep(300, "ok"), book.renew, 1860.0))


@pytest.mark.parametrize("hangs", [False, True])
def test_a_step_that_cannot_renew_has_ended_before_its_lease_has(
    loop: VirtualLoop, *, hangs: bool
) -> None:
    book = Book(loop)

    async def silent() -> None:
        await asyncio.sleep(10_000)

    book.away = silent if hangs else refused
    ended: list[float] = []

    async def work() -> None:
        try:
            await asyncio.sleep(1800)
        finally:
            await asyncio.sleep(0.5)
            ended.append(loop.time())

    with pytest.raises(Unavailable) as caught:
        loop.run_until_complete(leased(work, book.renew, 1860.0))
    assert caught.value.code == "LEASE_LOST"
    assert caught.value.retryable
    assert ended == [LEASE_S - MARGIN_S + 0.5]
    assert loop.time() == ended[0], "nobody is told before the work has ended"


def test_a_process_that_stood_still_for_longer_renews_nothing_afterwards(
    loop: VirtualLoop,
) -> None:
    book, still = Book(loop), Process("worker", "engine-1")
    told: list[BaseException | None] = []

    async def step() -> None:
        try:
            await leased(lambda: asyncio.sleep(1800), book.renew, 1860.0)
        except Unavailable as error:
            told.append(error)

    token = CURRENT.set(still)
    task = loop.create_task(step())
    CURRENT.reset(token)
    loop.call_at(20.0, still.freeze)
    loop.call_at(20.0 + 2 * LEASE_S, still.thaw, loop)
    loop.run_until_complete(asyncio.sleep(200))
    assert [getattr(each, "code", None) for each in told] == ["LEASE_LOST"]
    assert book.renewed == 1, "only before it stood still"
    assert task.done()


def test_a_step_that_is_cancelled_ends_cancelled_with_its_work(loop: VirtualLoop) -> None:
    book, ended = Book(loop), []

    async def work() -> None:
        try:
            await asyncio.sleep(1800)
        finally:
            ended.append(loop.time())

    async def main() -> None:
        task = asyncio.ensure_future(leased(work, book.renew, 1860.0))
        await asyncio.sleep(100)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    loop.run_until_complete(main())
    assert ended == [100.0]


def test_a_step_whose_next_try_has_begun_ends_at_once(loop: VirtualLoop) -> None:
    book = Book(loop)
    loop.call_at(100.0, setattr, book, "taken", True)
    with pytest.raises(Unavailable) as caught:
        loop.run_until_complete(leased(lambda: asyncio.sleep(1800), book.renew, 1860.0))
    assert caught.value.code == "LEASE_LOST"
    assert 100.0 <= loop.time() <= 100.0 + RENEWED_EVERY_S
