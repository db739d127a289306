"""Task queues as the server's matching keeps them: by priority, then fairly, then by age.

A queue holds tasks until a worker with a free slot takes one. Among tasks of one priority the keys
of fairness take turns: a task's turn is one more than the last one that its key was given, never
less than the turn that was served last, so that a key with a long backlog does not hold up another.
"""

import heapq
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

DEFAULT_PRIORITY = 3
"""What the server takes for a task that names none: the middle of its five levels."""


Taker = Callable[[], bool]
"""Takes what it has room for, and says whether it took anything."""


@dataclass(frozen=True)
class Rank:
    """What a task's place in its queue follows from."""

    priority: int = DEFAULT_PRIORITY
    fairness: str = ""
    weight: float = 1.0  # turns of this key for each turn of a key of weight 1


@dataclass(order=True)
class _Entry:
    priority: int
    turn: float
    number: int
    task: Any = field(compare=False)
    gone: bool = field(default=False, compare=False)


class TaskQueue:
    """Tasks of one kind that wait for a worker."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._heap: list[_Entry] = []
        self._turns: defaultdict[tuple[int, str], float] = defaultdict(float)
        self._served: defaultdict[int, float] = defaultdict(float)
        self._number = 0
        self._takers: list[Taker] = []

    def __len__(self) -> int:
        return sum(not entry.gone for entry in self._heap)

    def put(self, task: Any, rank: Rank) -> None:
        """Let a task wait, and tell the workers."""
        key = (rank.priority, rank.fairness)
        turn = max(self._turns[key] + 1 / rank.weight, self._served[rank.priority])
        self._turns[key] = turn
        self._number += 1
        heapq.heappush(self._heap, _Entry(rank.priority, turn, self._number, task))
        for taker in tuple(self._takers):
            if taker():
                # The others come first next time.
                self._takers.remove(taker)
                self._takers.append(taker)

    def rerank(self, task: Any, rank: Rank) -> None:
        """Queue a waiting task anew; nothing happens to one that was taken."""
        for entry in self._heap:
            if entry.task is task and not entry.gone:
                entry.gone = True
                self.put(task, rank)
                return

    def take(self) -> Any | None:
        """The task that is to go next, or None."""
        while self._heap:
            entry = heapq.heappop(self._heap)
            if not entry.gone:
                self._served[entry.priority] = entry.turn
                return entry.task
        return None

    def remove(self, task: Any) -> None:
        """A task that nobody needs any more."""
        for entry in self._heap:
            if entry.task is task:
                entry.gone = True

    def listen(self, taker: Taker) -> None:
        """Call this when there is something to take."""
        self._takers.append(taker)

    def leave(self, taker: Taker) -> None:
        """Not any more."""
        self._takers.remove(taker)
