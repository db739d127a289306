"""What the monitors say of one host, by their rows."""

from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from activities.recovery import SeenVote
from engine.records.eyes import watchers_of
from store import observations
from store.rows import Row


async def votes_on(connection: AsyncConnection, host_id: UUID, eyes: int) -> tuple[SeenVote, ...]:
    """A vote of each monitor that watches a host or is to, by name."""
    return tuple(
        _not_yet(eye.name) if row is None else _vote(eye.name, row, live=not eye.gone, assigned=own)
        for eye, row, own in await watchers_of(connection, host_id, eyes)
    )


def _vote(name: str, row: Row, *, live: bool, assigned: bool) -> SeenVote:
    return SeenVote(
        monitor=name,
        sequence=row["sequence"],
        heard_sequence=row["heard_sequence"],
        live=live,
        silent=row["verdict"] not in observations.HEARD,
        silent_s=row["silent_s"],
        others_seen=row["others_seen"],
        warm=row["warm"],
        assigned=assigned,
    )


def _not_yet(name: str) -> SeenVote:
    """Of one that is to watch the host: it says nothing, neither for it nor against it."""
    return SeenVote(
        monitor=name,
        sequence=None,
        heard_sequence=None,
        live=True,
        silent=True,
        silent_s=0.0,
        others_seen=0,
        warm=False,
    )
