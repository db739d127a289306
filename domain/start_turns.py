"""Whose turn it is to start on a host, over all that starts VMs there by itself.

A host that boots twenty guests at once slows those that run there already, and each of the twenty;
and where two hosts die together, two recoveries share one survivor. So it is counted on the host,
when a run is claimed for `create()`, whatever recovery or return after a reboot it belongs to. A
start that a person asks for is neither counted nor made to wait: somebody waits for it, and its
own order is the person's.

Order       the more urgent operation first, then protected VMs, then by priority; among equals who
            has waited longest. Who comes later overtakes nobody who comes before it in this order.
            Who has waited for `OVERDUE_S` comes before all others, and waits for no one's turn but
            those that are taken: nobody starves, and one that is stuck in front blocks nobody.
Patience    a start that has its turn for longer than a start may take (its host hangs) keeps nobody
            else waiting. One whose operation has ended has none.
Memory      who waits keeps its place on the host: nobody who has a turn needs what it holds.
"""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from domain.base import Frozen
from domain.profiles import START_DEADLINE_S

STARTS_AT_LIMIT = "STARTS_AT_LIMIT"
"""The reason code of a start that waits for its turn on its host."""

OVERDUE_S = 300.0
"""How long the order of turns is kept. Higher: a start that is never asked again, or more important
ones that come without end, keep the others waiting longer. Lower: a long recovery loses its order.
"""

NAMED_MOST = 3
"""VMs that a reason names."""


class Turn(Frozen):
    """A VM that has a place on a host, and does not run there yet."""

    run_id: UUID
    operation_id: UUID
    vm: str
    urgency: int  # of its operation; lower goes first
    protected: bool
    priority: int
    begun: bool  # it was claimed for `create()`
    waits: bool  # it was told to wait for its turn, and does
    since: datetime | None  # it has its turn, or asked for it the first time


class Starts(Frozen):
    """All turns of one host, and how many VMs may start there at once."""

    host: str
    most: int
    turns: tuple[Turn, ...]


def under_way(starts: Starts, now: datetime) -> tuple[Turn, ...]:
    """Those that have a turn and are to be waited for."""
    busy = (turn for turn in starts.turns if turn.begun)
    return tuple(turn for turn in busy if not _since(turn, START_DEADLINE_S, now))


def why_not_yet(starts: Starts, run_id: UUID, now: datetime) -> str | None:
    """Why one of the turns has not come yet, with numbers and names; None once it has."""
    (mine,) = (turn for turn in starts.turns if turn.run_id == run_id)
    busy = under_way(starts, now)
    ahead = [turn for turn in _waiting(starts) if _order(turn, now) < _order(mine, now)]
    if _since(mine, OVERDUE_S, now):
        ahead = []
    if len(busy) + len(ahead) < starts.most:
        return None
    most = f"{starts.host} starts {starts.most} VMs at once at the most"
    said = [f"{len(busy)} start there ({_named(busy)})"] if busy else []
    said += [f"{len(ahead)} come before {mine.vm} ({_named(ahead)})"] if ahead else []
    return f"{most}: {', and '.join(said)}"


def next_ones(starts: Starts, now: datetime) -> tuple[Turn, ...]:
    """Those that wait and whose turn has come, the first one first."""
    free = max(0, starts.most - len(under_way(starts, now)))
    return tuple(sorted(_waiting(starts), key=lambda turn: _order(turn, now))[:free])


def _waiting(starts: Starts) -> list[Turn]:
    return [turn for turn in starts.turns if turn.waits and not turn.begun]


def _order(turn: Turn, now: datetime) -> tuple[bool, int, bool, int, bool, float, UUID]:
    overdue = _since(turn, OVERDUE_S, now)
    rank = (0, False, 0) if overdue else (turn.urgency, not turn.protected, -turn.priority)
    since = 0.0 if turn.since is None else turn.since.timestamp()
    return (not overdue, *rank, turn.since is None, since, turn.operation_id)


def _since(turn: Turn, limit_s: float, now: datetime) -> bool:
    # Also by a clock that was ahead: nobody waits until the others have caught up.
    return turn.since is not None and abs((now - turn.since).total_seconds()) >= limit_s


def _named(turns: Sequence[Turn]) -> str:
    names = ", ".join(sorted(turn.vm for turn in turns)[:NAMED_MOST])
    return names if len(turns) <= NAMED_MOST else f"{names}, …"
