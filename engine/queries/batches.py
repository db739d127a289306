"""The children of a batch as its own view shows them: how many are in which state, and the first.

A batch may have a thousand children, and whoever looks at it wants to know what went wrong: beyond
`SHOWN` of them, failed ones come first, then those at work. All of them are a list of its own
(`ListOperations` with `parent_id`).
"""

from collections import Counter
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from domain.operations import OperationState as O
from store import archive, batches
from store.rows import Row

SHOWN = 100
"""Children in a batch's own view. Higher: each look at a running batch reads and sends more."""

RANKS = (
    (O.FAILED, O.NEEDS_ATTENTION),
    (O.CANCELLING, O.RUNNING, O.WAITING, O.PAUSED),
    (O.PENDING,),
    (O.CANCELLED, O.SUCCEEDED),
)
"""Which children are shown first."""


async def shown_children(connection: AsyncConnection, parent_id: UUID) -> list[Row]:
    """The first children to look at; all of them, in their order, where they are few."""
    ranks = [[state.value for state in states] for states in RANKS]
    live = await batches.ranked(connection, parent_id, ranks, SHOWN + 1)
    old = (await archive.children_of(connection, [parent_id])).get(parent_id, [])
    rank = {state: number for number, states in enumerate(RANKS) for state in states}
    rows = sorted([*old, *live], key=lambda row: (rank[row["state"]], row["id"]))
    if len(rows) <= SHOWN:
        return sorted(rows, key=lambda row: row["id"])
    return rows[:SHOWN]


async def children_states(connection: AsyncConnection, parent_id: UUID) -> dict[str, int]:
    """How many children are in each state, archived ones counted with the others."""
    found = Counter[str]()
    for state, _held, count in await batches.counts(connection, parent_id):
        found[state] += count
    old = (await archive.children_of(connection, [parent_id])).get(parent_id, [])
    found.update(row["state"] for row in old)
    return dict(sorted(found.items()))
