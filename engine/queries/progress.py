"""How far an operation is where that can be counted, and when it may be expected to end.

A batch is counted in its row, by each look of its workflow. A recovery is counted from its VMs'
starts when somebody asks, until its report writes it down: if each of them counted itself at its
end, they would wait for one another at one row just when they have to be quick.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from domain.operations import OperationState
from engine.actions.hosts import RecoverHostAction
from engine.actions.vms import StartVmAction
from store import control, operations
from store.rows import Row

LATEST = 20
"""How many of the newest successful operations of a kind a prediction looks at."""


@dataclass(frozen=True)
class Progress:
    """How much is done of how much, counted from when."""

    done: int
    total: int
    since: datetime | None


async def progress_of(connection: AsyncConnection, rows: list[Row]) -> dict[UUID, Progress]:
    """Of each operation that can be counted: a recovery from when its VMs were claimed."""
    found = {
        row["id"]: Progress(row["progress_done"] or 0, row["progress_total"], row["started_at"])
        for row in rows
        if row["progress_total"]
    }
    recoveries = [row["id"] for row in rows if _is_counted(row)]
    for row in await operations.counted(connection, recoveries, StartVmAction.kind):
        found[row["parent_id"]] = Progress(int(row["succeeded"]), row["total"], row["since"])
    return found


def _is_counted(row: Row) -> bool:
    return bool(row["kind"] == RecoverHostAction.kind and row["state"] in operations.OPEN)


def with_progress(row: Row, progress: Progress | None) -> Row:
    """The row as it is shown."""
    if progress is None:
        return row
    return row | {"progress_done": progress.done, "progress_total": progress.total}


async def predicted_end(
    connection: AsyncConnection, row: Row, progress: Progress | None, now: datetime
) -> datetime | None:
    """When a running operation may be expected to end; None where nothing honest can be said.

    What is counted goes on at its pace so far. Anything else is taken to last as long as the median
    of the latest successful operations of its kind did, until it has lasted longer.
    """
    began: datetime | None = row["started_at"]
    if row["state"] != OperationState.RUNNING or began is None:
        return None
    if progress is not None:
        since = progress.since or began
        return since + (now - since) * progress.total / progress.done if progress.done else None
    latest = await control.latest_of_kind(connection, row["kind"], LATEST)
    took = [
        (one["finished_at"] - one["started_at"]).total_seconds()
        for one in latest
        if one["started_at"] is not None and one["finished_at"] is not None
    ]
    end = began + timedelta(seconds=median(took)) if took else None
    return end if end is not None and end > now else None
