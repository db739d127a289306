"""What many incidents have in common: how long they took, how many VMs were late, what held them.

Three statements, however many incidents there are.
"""

from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from domain.incident_stats import ClosedIncident, Stats, VmBack, Wait, stats_of
from engine.queries.base import Query, QueryParams
from engine.queries.incidents import phase_lengths
from engine.queries.pages import Moment
from store import incident_stats
from store.incident_stats import Window
from store.rows import Row

LOOK_BACK = timedelta(days=30)
"""How far back a report goes unless told otherwise: a month has the rare failure in it, too."""


class IncidentStatsView(Stats):
    """The report, and the time that it is about: incidents that opened from `since` to `until`.

    cut_off   there were more incidents in the time that was asked for: `since` is the oldest kept
    """

    since: datetime
    until: datetime
    cut_off: bool


class IncidentStats(QueryParams):
    """Closed incidents that opened at `since` or later (30 days ago), of all clusters or one."""

    cluster_id: UUID | None = None
    since: Moment | None = None


class IncidentStatsQuery(Query[IncidentStats, IncidentStatsView]):
    """One report of all of them."""

    params = IncidentStats

    async def answer(
        self, connection: AsyncConnection, params: IncidentStats, now: datetime
    ) -> IncidentStatsView:
        """Of the newest ones, where there are very many."""
        asked = Window(params.since or now - LOOK_BACK, params.cluster_id)
        rows, window = await incident_stats.closed(connection, asked)
        vms = await incident_stats.vms_back(connection, window)
        waits = await incident_stats.waits(connection, window)
        found = stats_of(
            tuple(_closed(row) for row in rows),
            tuple(_back(row) for row in vms),
            tuple(wait for row in waits for wait in _waits(row)),
        )
        cut_off = window != asked
        return IncidentStatsView(**dict(found), since=window.since, until=now, cut_off=cut_off)


def _closed(row: Row) -> ClosedIncident:
    began = {phase: datetime.fromisoformat(at) for phase, at in row["phases"].items()}
    return ClosedIncident(
        incident_id=row["id"],
        outcome=row["outcome"] or "closed",
        phases_s=phase_lengths(began),
        fences=row["fences"],
    )


def _back(row: Row) -> VmBack:
    back_s = (row["back_at"] - row["since"]).total_seconds() if row["back_at"] else None
    return VmBack(back_s=back_s, budget_s=row["budget_s"])


def _waits(row: Row) -> list[Wait]:
    """One for each code; a decision that was kept before codes were is told by its rule."""
    codes = row["inputs"].get("held") or [row["rule"]]
    same = {field: row[field] for field in ("incident_id", "first_at", "last_at")}
    return [Wait(code=code, **same) for code in codes]
