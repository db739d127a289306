"""Who watches a host, for people."""

from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from domain.eyes import Eye
from domain.profiles import TIMINGS, Profile
from engine.eye_views import EyeState, EyeView
from engine.queries.base import Query, QueryParams, missing
from engine.records.eyes import watchers_of
from store import inventory
from store.rows import Row


class HostMonitors(QueryParams):
    """The monitors of one host."""

    host_id: UUID


class HostMonitorsQuery(Query[HostMonitors, tuple[EyeView, ...]]):
    """Who is to watch a host, or still does, by name, and what each said last."""

    params = HostMonitors

    async def answer(
        self, connection: AsyncConnection, params: HostMonitors, now: datetime
    ) -> tuple[EyeView, ...]:
        """NotFound when the host is not there."""
        host = await inventory.get(connection, "host", params.host_id)
        if host is None:
            raise missing("host", params.host_id)
        cluster = await inventory.get(connection, "cluster", host["cluster_id"])
        assert cluster is not None
        wanted = TIMINGS[Profile(cluster["profile"])].monitors_per_host
        found = await watchers_of(connection, host["id"], wanted)
        return tuple(_view(eye, row, own=own) for eye, row, own in found)


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
