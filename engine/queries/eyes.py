"""Which monitors watch hosts, worked out as the monitors themselves do."""

from collections import defaultdict
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from domain.eyes import Eye, eyes_of, seated
from domain.profiles import TIMINGS, Profile
from engine.eye_views import EyeState, EyeView
from engine.records.eyes import standing
from store import observations
from store.rows import Row


async def eyes_on(
    connection: AsyncConnection, profiles: dict[UUID, str]
) -> dict[UUID, tuple[EyeView, ...]]:
    """The monitors of each of these hosts, by name; `profiles` are those of their clusters."""
    monitors = [standing(row) for row in await observations.monitors(connection)]
    seats = seated(monitors)
    seen: defaultdict[UUID, dict[str, Row]] = defaultdict(dict)
    for row in await observations.latest_of_hosts(connection, sorted(profiles)):
        seen[row["host_id"]][row["monitor"]] = row
    found = {}
    for host_id, profile in profiles.items():
        wanted = TIMINGS[Profile(profile)].monitors_per_host
        own = set(eyes_of(host_id, seats, wanted))
        rows = seen[host_id]
        found[host_id] = tuple(
            _view(eye, rows.get(eye.name), own=eye.name in own)
            for eye in monitors
            if eye.name in own or eye.name in rows
        )
    return found


def _view(eye: Eye, row: Row | None, *, own: bool) -> EyeView:
    return EyeView(
        monitor=eye.name,
        machine=eye.machine,
        state=_state(eye, row, own=own),
        verdict=row["verdict"] if row else None,
        since=row["since"] if row else None,
        voted_at=row["at"] if row else None,
    )


def _state(eye: Eye, row: Row | None, *, own: bool) -> EyeState:
    if eye.gone:
        return EyeState.GONE
    if eye.blind:
        return EyeState.BLIND
    if not own:
        return EyeState.BESIDE
    return EyeState.WATCHING if row and row["warm"] else EyeState.JOINING
