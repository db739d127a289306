"""Polls that would find nothing are not made: most of a simulation's statements were such polls.

The relay and the monitor look at the database again and again, most often at rows that nobody has
changed. A process here that would read what it has read before gets that again. Nothing else is
left out: whoever finds something, and every write, takes the real way.

Races  Reads of a simulation take no virtual time, and whatever a transaction changed is counted
       before it is committed. So what is kept is what would be read, also in the same moment.
       While the database is away a poll fails, and changes nothing: the same as finding nothing.
"""

from collections.abc import Iterator

from domain.profiles import Profile
from engine.delivery import Delivery, Workflows
from engine.records.watching import WatchedHost, WatchRecords
from simulator.sql import Board
from store.control import LOCK_HELD
from store.database import Database
from worker.relay import Duty

WATCHED = ("host", "cluster", "fence_device", "vm_run")
"""The tables that say which hosts a monitor has to poll."""

UNTOLD = "SELECT 1 FROM outbox WHERE done_at IS NULL LIMIT 1"
UNNUMBERED = "SELECT 1 FROM event WHERE seq IS NULL LIMIT 1"
WAITING = f"SELECT 1 FROM operation WHERE reason_code = '{LOCK_HELD}' LIMIT 1"


class QuietDelivery(Delivery):
    """The relay's delivery, which only looks when there is something in the outbox."""

    def __init__(self, board: Board, database: Database, workflows: Workflows) -> None:
        super().__init__(database, workflows)
        self._board = board

    async def deliver_due(self) -> int:
        """As its base."""
        return await super().deliver_due() if self._board.any(UNTOLD) else 0

    async def number_events(self) -> int:
        """As its base."""
        return await super().number_events() if self._board.any(UNNUMBERED) else 0


class QuietRecords(WatchRecords):
    """A monitor's records, which reads hosts again only when they may have changed."""

    def __init__(self, board: Board, database: Database) -> None:
        super().__init__(database)
        self._board = board
        self._kept: dict[Profile, tuple[tuple[int, ...], tuple[WatchedHost, ...]]] = {}

    async def watched(self, profile: Profile) -> tuple[WatchedHost, ...]:
        """As its base."""
        now = self._board.changes(WATCHED)
        was, found = self._kept.get(profile, (None, ()))
        if was != now:
            found = await super().watched(profile)
            self._kept[profile] = now, found
        return found


def quiet_duties(board: Board, duties: tuple[Duty, ...]) -> Iterator[Duty]:
    """The relay's duties; locks are looked at when somebody waits for one."""
    for duty in duties:
        yield _only_if_waiting(board, duty) if duty.name == "grant locks" else duty


def _only_if_waiting(board: Board, duty: Duty) -> Duty:
    async def work() -> int:
        return await duty.work() if board.any(WAITING) else 0

    return Duty(duty.name, duty.every_s, work, duty.woken)
