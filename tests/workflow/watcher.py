"""A monitor of a test bench: it tells the database what the fake data centre shows, and no more.

It reports nothing by itself: a test says when a failure is reported, so that each scenario has one
cause. Rounds are fast, so that fresh votes never keep a recovery waiting.
"""

import asyncio
import contextlib
from datetime import UTC, datetime

from domain.inventory import HostState
from domain.profiles import Profile
from engine.records.watching import Seen, WatchedHost, WatchRecords
from store.database import Database
from tests.fakes import DataCentre, FakeHost

ROUND_S = 0.05


def now() -> datetime:
    """The time, in UTC."""
    return datetime.now(UTC)


def _monotonic_ms() -> int:
    return int(asyncio.get_running_loop().time() * 1000)


class Watcher:
    """Implements what a monitor writes, from the truth of a fake data centre."""

    def __init__(self, database: Database, centre: DataCentre, name: str = "m1") -> None:
        self._records = WatchRecords(database)
        self._centre = centre
        self._name = name
        self._answers: dict[str, datetime] = {}
        self._heard: dict[str, int] = {}
        self._task: asyncio.Task[None] | None = None
        self._sequence = 0
        self.warm = True
        self.blind: set[str] = set()  # hosts whose answers this monitor does not hear

    async def start(self) -> None:
        """Watch until `stop`; the first round is written when this returns."""
        self._sequence = (await self._records.register(self._name)).sequence
        await self._round()
        self._task = asyncio.create_task(self._rounds())

    async def stop(self) -> None:
        """Watch no more; repeatable."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def missed(self, host: str) -> None:
        """Write that a host in service missed a poll."""
        await self._records.missed(await self._watched(host), "no answer")

    async def _watched(self, host: str) -> WatchedHost:
        found = await self._records.watched(Profile.BALANCED)
        return next(item for item in found if item.name == host)

    async def _rounds(self) -> None:
        while True:
            await asyncio.sleep(ROUND_S)
            await self._round()

    async def _round(self) -> None:
        watched = await self._records.watched(Profile.BALANCED)
        asked_at = (
            now()
        )  # an answer is as old as the question: what is written later proves no life
        heard = {item.name: self._hears(self._centre.hosts[item.name]) for item in watched}
        for item in watched:
            await self._settle(item, heard[item.name], asked_at)
        self._sequence += 1
        seen = tuple(self._seen(item, heard) for item in watched)
        await self._records.record(
            self._name, self._sequence, seen, warm=self.warm, watched_ms=_monotonic_ms
        )

    def _hears(self, host: FakeHost) -> bool:
        return host.answers and host.name not in self.blind

    async def _settle(self, item: WatchedHost, hears: bool, asked_at: datetime) -> None:
        if not hears:
            return
        self._answers[item.name] = asked_at
        if item.state is HostState.CONNECTING:
            await self._records.answered(item)
        elif item.state in (HostState.DOWN, HostState.NON_RESPONSIVE):
            await self._records.sign_of_life(item, self._centre.hosts[item.name].mark)

    def _seen(self, item: WatchedHost, heard: dict[str, bool]) -> Seen:
        hears = heard[item.name]
        others = sum(heard.values()) - hears
        if hears:
            self._heard[item.name] = self._sequence
        return Seen(
            host_id=item.id,
            verdict="up" if hears else "non_responsive",
            silent_s=0.0 if hears else 1.0,
            misses=0 if hears else 5,
            others_seen=others,
            reading=None,
            detail=None,
            last_answer_at=self._answers.get(item.name),
            heard_sequence=self._heard.get(item.name),
            warm=self.warm,
        )
