"""Which VMs wait for which: a cycle could never be started in order, so none is accepted.

Pure, and without recursion: a chain of 10,000 VMs is an ordinary input.
"""

from collections.abc import Iterable, Iterator, Mapping
from uuid import UUID

from domain.errors import Invalid
from domain.readiness import ReadyRule

BACK_LIMIT_S = 600.0
"""How long a VM waits for one that it depends on and that something else brings back. Higher: it is
down for longer where that one's host is held. Lower: it starts without it, as two hosts that lose
their power together are fenced one after the other."""

SHOWN_MAX = 8
"""How many VMs of a cycle a refusal names; more would hide what to do about it."""


def find_cycle(edges: Mapping[UUID, Iterable[UUID]]) -> tuple[UUID, ...] | None:
    """One cycle, each VM before the one that it waits for and the last waiting for the first.

    None when there is none. The same edges give the same cycle, in whatever order they were read.
    A VM that waits for itself is a cycle of one.
    """
    finished: set[UUID] = set()
    for start in sorted(edges):
        if start not in finished:
            cycle = _cycle_from(start, edges, finished)
            if cycle is not None:
                return cycle
    return None


def refuse_cycle(edges: Mapping[UUID, Iterable[UUID]], names: Mapping[UUID, str]) -> None:
    """Invalid (`DEPENDENCY_CYCLE`) when the VMs wait for one another in a circle."""
    cycle = find_cycle(edges)
    if cycle is None:
        return
    words = [names.get(vm_id, str(vm_id)) for vm_id in cycle]
    shown = words if len(words) <= SHOWN_MAX else [*words[: SHOWN_MAX - 1], "…", words[-1]]
    raise Invalid(
        "DEPENDENCY_CYCLE",
        f"{len(words)} VMs would wait for one another: {' → '.join([*shown, words[0]])}",
        next_step=f"leave out one dependency among them, such as that of {words[-1]} on {words[0]}",
        vms=len(words),
        vm=words[-1],
        depends_on=words[0],
    )


def _cycle_from(
    start: UUID, edges: Mapping[UUID, Iterable[UUID]], finished: set[UUID]
) -> tuple[UUID, ...] | None:
    """The first cycle that a walk in depth from here meets; what it leaves behind is finished."""
    path: dict[UUID, Iterator[UUID]] = {start: _next_ones(start, edges)}
    while path:
        here = next(reversed(path))
        following = next(path[here], None)
        if following is None:
            finished.add(here)
            del path[here]
        elif following in path:
            around = list(path)
            return tuple(around[around.index(following) :])
        elif following not in finished:
            path[following] = _next_ones(following, edges)
    return None


def _next_ones(vm_id: UUID, edges: Mapping[UUID, Iterable[UUID]]) -> Iterator[UUID]:
    return iter(sorted(set(edges.get(vm_id, ()))))


def back_within_s(rule: ReadyRule | None) -> float:
    """How long a VM of another recovery is waited for at the most, from the first look on."""
    return max(BACK_LIMIT_S, 0.0 if rule is None else rule.within_s)
