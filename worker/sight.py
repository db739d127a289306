"""Whether a monitor hears anything at all: one that does not mistrusts itself.

Its hosts are still polled, so that it notices when it hears again. Meanwhile it says so in its row,
the others take its hosts, and its silence counts against none of them.
"""

from collections.abc import Sequence
from datetime import datetime

import structlog

from domain.errors import EngineError, Refused
from domain.profiles import Profile
from domain.readings import HostReading
from engine.clock import Clock
from engine.records.eyes import EyeRecords
from engine.records.watching import WatchedHost

log = structlog.get_logger()


class Sight:
    """What one monitor heard in the last round of each profile."""

    def __init__(self, name: str, records: EyeRecords, now: Clock) -> None:
        self._name = name
        self._records = records
        self._now = now
        self._rounds: dict[Profile, tuple[int, int]] = {}  # hosts judged, and hosts heard
        self.blind_at: datetime | None = None  # since when it has heard nothing

    @property
    def blind(self) -> bool:
        """Whether it hears nothing of what it should."""
        return self.blind_at is not None

    def nothing_to_see(self, profile: Profile) -> None:
        """There is no host of this profile for this monitor."""
        self._rounds.pop(profile, None)

    async def look(
        self,
        profile: Profile,
        hosts: Sequence[WatchedHost],
        polled: Sequence[HostReading | EngineError],
    ) -> None:
        """Take up one round, and tell when its view of itself has changed."""
        heard = sum(
            1 for result in polled if not isinstance(result, EngineError) or said_no(result)
        )
        self._rounds[profile] = sum(1 for host in hosts if host.judged), heard
        targets = sum(judged for judged, _heard in self._rounds.values())
        blind = targets > 0 and not any(heard for _judged, heard in self._rounds.values())
        if blind == self.blind:
            return
        self.blind_at = self._now() if blind else None
        told = f"none of its {targets} hosts answers" if blind else "hosts answer it again"
        log.warning("monitor mistrusts itself" if blind else "monitor hears again", why=told)
        await self._records.tell_sight(self._name, f"{self._name}: {told}", blind=blind)


def said_no(error: EngineError) -> bool:
    """Whether the host's kernel or its libvirtd said no, which only the living do."""
    return isinstance(error, Refused) or error.code == "HOST_PORT_REFUSED"
