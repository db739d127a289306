"""Which hosts this monitor polls now, and who the other monitors are.

Every beat it looks at the rows of all monitors, on its own monotonic clock, and works out its hosts
(`domain.eyes`). A host that is another's from now on is polled on until that one, and every other
that is to watch it, has a warm row whose number has just changed, for a few rounds: so nobody stops
watching before somebody else does. Whose number stands still is held to be gone.

Races  Every monitor decides for itself from rows that differ by a beat. Two may watch a host that
       needs one; none leaves one that nobody else watches, since the statement that releases it
       holds that condition. A monitor that was wrongly held to be gone takes that back with its
       next sign of life.
"""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import structlog

from domain.errors import EngineError
from domain.eyes import Eye, Pulse, after_look, eyes_of, seated, targets_of
from domain.profiles import Profile
from engine.clock import Clock
from engine.records.eyes import EyeRecords, Standing
from engine.records.watching import WatchedHost

log = structlog.get_logger()

WARM_ROUNDS = 3
"""Rounds before this monitor's word counts. Higher: a fresh engine waits longer to fence. Lower:
it may take a host for dead that it has never heard."""

KEPT_ROUNDS = 3
"""Rounds in which a host is not its own any more before a monitor thinks of leaving it. Higher:
hosts are watched by more than they need. Lower: one that starts anew is taken its hosts in vain."""


class Roster:
    """One monitor's part of the watching."""

    def __init__(self, name: str, records: EyeRecords, now: Clock) -> None:
        self._name = name
        self._records = records
        self._now = now
        self._others: tuple[Standing, ...] = ()
        self._pulses: dict[str, Pulse] = {}
        self._looks: dict[UUID, int] = {}  # rounds in which each host was looked at
        self._since: dict[UUID, datetime] = {}
        self._foreign: dict[UUID, int] = {}  # rounds in which each was no longer its own
        self._listed: dict[Profile, frozenset[UUID]] = {}
        self._taken: dict[tuple[UUID, str], int] = {}  # numbers of the others' rows, last time

    @property
    def others_see(self) -> bool:
        """Whether another live monitor hears anything: then this one's silence is its own."""
        return any(not (eye.gone or eye.blind) for eye in self._others)

    async def look(self) -> None:
        """Look at the other monitors, and hold those to be gone that have stood still."""
        rows = await self._records.monitors()
        self._others = tuple(row for row in rows if row.name != self._name)
        now_s = asyncio.get_running_loop().time()
        self._pulses = {
            row.name: after_look(self._pulses.get(row.name), row.sequence, now_s)
            for row in self._others
        }
        for row in self._others:
            if self._pulses[row.name].gone and not row.gone:
                log.warning("monitor is gone", monitor=row.name, machine=row.machine)
                await self._records.hold_gone(row, self._name)

    def mine(
        self, profile: Profile, hosts: Sequence[WatchedHost], wanted: int, me: Eye
    ) -> tuple[WatchedHost, ...]:
        """Those of a profile's hosts that are to be polled in this round."""
        self._listed[profile] = frozenset(host.id for host in hosts)
        self._forget_unlisted()
        eyes = (*self._others, me)
        own = targets_of(self._name, [host.id for host in hosts], eyes, wanted)
        for host in hosts:
            if host.id in own:
                self._foreign.pop(host.id, None)
            elif host.id in self._looks:
                self._foreign[host.id] = self._foreign.get(host.id, 0) + 1
        polled = tuple(host for host in hosts if host.id in own or host.id in self._looks)
        for host in polled:
            self._looks[host.id] = self._looks.get(host.id, 0) + 1
            self._since.setdefault(host.id, self._now())
        return polled

    def since(self, host_id: UUID) -> datetime | None:
        """When this monitor began to watch a host."""
        return self._since.get(host_id)

    def warm(self, host_id: UUID) -> bool:
        """Whether it has looked at a host often enough to judge it."""
        return self._looks.get(host_id, 0) >= WARM_ROUNDS

    async def hand_over(self, hosts: Sequence[WatchedHost], wanted: int, me: Eye) -> None:
        """Leave those hosts of a round to others that these watch well enough by now."""
        seats = seated((*self._others, me))
        due = {
            host.id: tuple(name for name in eyes_of(host.id, seats, wanted) if name != self._name)
            for host in hosts
            if self._foreign.get(host.id, 0) >= KEPT_ROUNDS
        }
        if not due:
            self._taken = {}
            return
        rows = await self._records.seen_by_others(self._name, list(due))
        ready = {
            host_id: others
            for host_id, others in due.items()
            if others and all(self._fresh(rows, host_id, other) for other in others)
        }
        self._taken = {key: sequence for key, (_warm, sequence) in rows.items()}
        if not ready:
            return
        left = await self._records.release(self._name, ready)
        for host_id in left:
            self._forget(host_id)
        if left:
            log.info("hosts left to other monitors", hosts=len(left))

    def _fresh(
        self, rows: dict[tuple[UUID, str], tuple[bool, int]], host_id: UUID, other: str
    ) -> bool:
        warm, sequence = rows.get((host_id, other), (False, 0))
        return warm and self._taken.get((host_id, other), sequence) != sequence

    def _forget_unlisted(self) -> None:
        listed = frozenset[UUID]().union(*self._listed.values())
        for host_id in [one for one in self._looks if one not in listed]:
            self._forget(host_id)

    def _forget(self, host_id: UUID) -> None:
        for known in (self._looks, self._since, self._foreign):
            known.pop(host_id, None)

    async def leave(self, owner: str) -> None:
        """Say that this monitor ends; the others see for themselves if that cannot be written."""
        try:
            await self._records.leave(self._name, owner)
        except EngineError as error:
            log.info("end of the monitor not told", code=error.code)
