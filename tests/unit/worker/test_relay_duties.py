"""What the relay does from time to time: again and again, after trouble too, and when woken."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.errors import Unavailable
from store.database import Database
from store.notify import announce
from worker.relay import Duty, relay

pytestmark = pytest.mark.unit

FAR_S = 3600.0
AWAY = Unavailable("TEMPORAL_UNAVAILABLE", "nobody there")


class Nothing:
    """A delivery that has nothing to deliver, or stumbles each time."""

    def __init__(self, *, broken: bool = False) -> None:
        self.broken = broken
        self.rounds = Work()

    async def number_events(self) -> int:
        """None."""
        if self.broken:
            raise LookupError("an event that nobody can number")
        return 0

    async def deliver_due(self) -> int:
        """None."""
        await self.rounds()
        if self.broken:
            raise LookupError("a row that nobody can read")
        return 0


class Work:
    """Counts how often it was done, and fails as often as it is told."""

    def __init__(self, failing: int = 0, error: Exception = AWAY) -> None:
        self.done = 0
        self.failing = failing
        self.error = error
        self.again = asyncio.Event()

    async def __call__(self) -> int:
        """Done once more."""
        self.done += 1
        self.again.set()
        if self.done <= self.failing:
            raise self.error
        return self.done

    async def until(self, times: int) -> None:
        """Wait until it was done so often."""
        async with asyncio.timeout(20):
            while self.done < times:
                self.again.clear()
                await self.again.wait()


@asynccontextmanager
async def running(*duties: Duty, delivery: Any = None) -> AsyncIterator[Database]:
    """A relay with these duties on a database of its own."""
    database, delivery = Database("sqlite+aiosqlite:///:memory:"), delivery or Nothing()
    task = asyncio.create_task(relay(delivery, database, duties))
    try:
        yield database
    finally:
        task.cancel()
        await asyncio.wait([task])
        await database.close()


def quick(name: str, work: Callable[[], Awaitable[int]]) -> Duty:
    return Duty(name, 0.001, work)


async def test_each_duty_is_done_again_and_again_beside_the_others() -> None:
    one, two = Work(), Work()
    async with running(quick("one", one), quick("two", two)):
        await one.until(3)
        await two.until(3)


@pytest.mark.parametrize("error", [AWAY, LookupError("a defect")], ids=["trouble", "defect"])
async def test_a_duty_that_fails_is_put_off_and_done_again(error: Exception) -> None:
    work, other = Work(failing=3, error=error), Work()
    async with running(quick("work", work), quick("other", other)):
        await work.until(5)
        await other.until(1)


async def test_a_duty_is_done_at_once_when_an_operation_has_ended() -> None:
    woken, asleep = Work(), Work()
    duties = (Duty("woken", FAR_S, woken, woken=True), Duty("asleep", FAR_S, asleep))
    async with running(*duties) as database:
        await woken.until(1)
        await asleep.until(1)

        async def an_operation_ends(connection: AsyncConnection) -> None:
            await announce(connection, "outbox")

        await database.write(an_operation_ends)
        await woken.until(2)
        assert asleep.done == 1


async def test_a_woken_duty_that_meets_a_defect_is_woken_again() -> None:
    work = Work(failing=2, error=LookupError("a defect"))
    async with running(Duty("work", 0.001, work, woken=True)):
        await work.until(4)


async def test_a_defect_of_the_delivery_ends_neither_it_nor_the_duties() -> None:
    broken, work = Nothing(broken=True), Work()
    async with running(quick("work", work), delivery=broken):
        await broken.rounds.until(2)
        await work.until(2)
