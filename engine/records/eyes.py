"""Rows of monitors: who there is, who is gone, who has a name, and who watches what no longer."""

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID, uuid5

from sqlalchemy.ext.asyncio import AsyncConnection

from domain.eyes import Eye, eyes_of, seated
from engine.clock import Clock, utc_now
from store import observations, plumbing
from store.database import Database
from store.ids import new_id
from store.rows import Row

SUBJECTS = UUID("6f1f5c1e-2b0c-4e57-9d0a-2f1a53f3f0a7")
"""Monitors have names and no ids; what events call them by is made of their names."""


class Standing(Eye):
    """One monitor as its row stands."""

    sequence: int
    owner: str


class Watcher(NamedTuple):
    """A monitor of one host: `row` is what it last wrote of it, `own` says that it is to watch."""

    eye: Standing
    row: Row | None
    own: bool


async def watchers_of(
    connection: AsyncConnection, host_id: UUID, wanted: int
) -> tuple[Watcher, ...]:
    """Each monitor that watches a host or is to, by name; `wanted` are to."""
    monitors = [standing(row) for row in await observations.monitors(connection)]
    own = eyes_of(host_id, seated(monitors), wanted)
    rows = {row["monitor"]: row for row in await observations.latest(connection, host_id)}
    return tuple(
        Watcher(eye, rows.get(eye.name), eye.name in own)
        for eye in monitors
        if eye.name in rows or eye.name in own
    )


class EyeRecords:
    """What monitors know of each other. Every method is one transaction, and repeatable."""

    def __init__(self, database: Database, clock: Clock = utc_now) -> None:
        self._database = database
        self._clock = clock

    async def find(self, name: str) -> Standing | None:
        """One monitor, or None where there never was one of that name."""
        row = await self._database.read(lambda c: observations.find_monitor(c, name))
        return None if row is None else standing(row)

    async def monitors(self) -> tuple[Standing, ...]:
        """Every monitor that there ever was, by name."""
        rows = await self._database.read(observations.monitors)
        return tuple(standing(row) for row in rows)

    async def hold_gone(self, gone: Standing, by: str) -> None:
        """Hold a monitor to be gone whose number has stood still."""

        async def work(connection: AsyncConnection) -> None:
            now = self._clock()
            if await observations.hold_gone(connection, gone.name, gone.sequence, now):
                why = f"{gone.name} has given no sign of life to {by}; others watch its hosts"
                await self._tell(connection, "monitor.gone", gone.name, why)

        await self._database.write(work)

    async def leave(self, name: str, owner: str) -> None:
        """End in order, so that nobody waits for this monitor's word."""

        async def work(connection: AsyncConnection) -> None:
            if await observations.leave(connection, name, owner, self._clock()):
                await self._tell(connection, "monitor.gone", name, f"{name} was ended in order")

        await self._database.write(work)

    async def tell_sight(self, name: str, why: str, *, blind: bool) -> None:
        """Say that a monitor hears nothing any more, or hears again."""
        kind = "monitor.blind" if blind else "monitor.sees"
        await self._database.write(lambda c: self._tell(c, kind, name, why))

    async def seen_by_others(
        self, name: str, host_ids: Sequence[UUID]
    ) -> dict[tuple[UUID, str], tuple[bool, int]]:
        """Of other monitors' rows on these hosts: whether each is warm, and its number."""
        rows = await self._database.read(
            lambda c: observations.seen_by_others(c, name, tuple(host_ids))
        )
        return {(r["host_id"], r["monitor"]): (r["warm"], r["sequence"]) for r in rows}

    async def release(self, name: str, to: dict[UUID, tuple[str, ...]]) -> frozenset[UUID]:
        """Stop watching hosts that others watch by now; those that were really left to them."""

        async def work(connection: AsyncConnection) -> frozenset[UUID]:
            left = [
                host_id
                for host_id, others in to.items()
                if await observations.release(connection, name, host_id, others)
            ]
            return frozenset(left)

        return await self._database.write(work)

    async def _tell(self, connection: AsyncConnection, kind: str, name: str, why: str) -> None:
        row: Row = {"id": new_id(), "type": kind, "subject_type": "monitor"}
        row |= {"subject_id": uuid5(SUBJECTS, name), "principal": "monitor"}
        row |= {"correlation_id": name[:64], "data": {"monitor": name, "why": why}}
        await plumbing.append_event(connection, row | {"at": self._clock()})


def standing(row: Row) -> Standing:
    """A monitor's row, as those who choose among monitors need it."""
    return Standing(
        name=row["name"],
        machine=row["machine"] or row["name"],
        warm=row["warm"],
        gone=row["gone_at"] is not None,
        blind=row["blind_at"] is not None,
        sequence=row["sequence"],
        owner=row["owner"],
    )
