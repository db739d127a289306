"""The progress of an operation on standard error: a live tree, one line per change, or nothing.

A line per change is for logs: each names its operation, so that it can be read alone, and carries
the engine's own time where the change has one.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

from cli.failures import Json
from cli.render import lasting, parsed
from cli.terminal import clean, say

ICONS = {
    "succeeded": "✓",
    "failed": "✗",
    "cancelled": "–",
    "needs_attention": "!",
    "waiting": "…",
    "paused": "…",
    "pending": "○",
}
"""Icon of each state; one that is not here is at work."""

AT_WORK = "▸"


class Progress(StrEnum):
    """How to show the progress of an operation."""

    AUTO = "auto"  # live on a terminal, plain elsewhere, none with -o json
    LIVE = "live"
    PLAIN = "plain"
    NONE = "none"


@dataclass(frozen=True)
class Node:
    """One line of an operation's tree: an operation or one of its steps."""

    key: tuple[str, ...]
    depth: int
    owner: str
    title: str
    state: str
    tries: int
    began: datetime | None
    ended: datetime | None
    note: str

    @property
    def name(self) -> str:
        """What the node is, readable without its surroundings."""
        return self.title if self.title == self.owner else f"{self.owner} › {self.title}"

    @property
    def icon(self) -> str:
        """The state as one sign."""
        return ICONS.get(self.state, AT_WORK)

    def told(self) -> str:
        """State, tries and what there is to say, without times."""
        tries = f" (try {self.tries})" if self.tries > 1 else ""
        return f"{self.state}{tries}" + (f": {self.note}" if self.note else "")

    def at(self, now: datetime) -> datetime:
        """When it came into its state: now, where the engine does not say."""
        return self.ended or (self.began if self.state == "running" else None) or now

    def took_s(self, now: datetime) -> float | None:
        """How long it took or has been going on; None before it began."""
        return None if self.began is None else ((self.ended or now) - self.began).total_seconds()


def tree(operation: Json, depth: int = 0, *, folded: bool = False) -> Iterator[Node]:
    """An operation with its steps and children in the order they began.

    Folded: the steps of children that succeeded are left out.
    """
    owner = f"{operation['kind']} {clean(operation['target_name'])}"
    yield _operation_node(operation, owner, depth)
    if folded and depth > 0 and operation["state"] == "succeeded":
        return
    for part in sorted((*operation["steps"], *operation["children"]), key=_began):
        if "steps" in part:
            yield from tree(part, depth + 1, folded=folded)
        else:
            yield _step_node(operation, part, owner, depth + 1)


def _began(part: Json) -> datetime:
    return datetime.fromisoformat(part.get("created_at") or part["started_at"])


def _operation_node(operation: Json, owner: str, depth: int) -> Node:
    note = operation["waiting_for"] or operation["summary"] or ""
    return Node(
        key=(operation["id"],),
        depth=depth,
        owner=owner,
        title=owner,
        state=operation["state"],
        tries=1,
        began=parsed(operation["started_at"]),
        ended=parsed(operation["finished_at"]),
        note=_problem(operation["problem"]) or clean(note),
    )


def _step_node(operation: Json, step: Json, owner: str, depth: int) -> Node:
    return Node(
        key=(operation["id"], str(step["attempt"]), step["id"]),
        depth=depth,
        owner=owner,
        title=clean(step["name"]),
        state=step["state"],
        tries=step["tries"],
        began=parsed(step["started_at"]),
        ended=parsed(step["finished_at"]),
        note=_problem(step["problem"]) or clean(step["detail"] or ""),
    )


def _problem(problem: Any) -> str:
    return f"{clean(problem['detail'])} ({clean(problem['code'])})" if problem else ""


class Screen(Protocol):
    """Where progress is shown; entered before the first update."""

    def __enter__(self) -> "Screen":
        """Begin."""
        ...

    def __exit__(self, *reason: object) -> None:
        """End, also after an interrupt."""
        ...

    def update(self, operation: Json) -> None:
        """Show how the operation stands."""
        ...

    def note(self, line: str) -> None:
        """Say something that is not about the operation."""
        ...


class Silent:
    """Shows nothing but notes."""

    def __enter__(self) -> "Silent":
        """Begin."""
        return self

    def __exit__(self, *reason: object) -> None:
        """End."""

    def update(self, operation: Json) -> None:
        """Nothing."""

    def note(self, line: str) -> None:
        """Nothing: whoever wants no progress wants an answer or an error."""


class Plain(Silent):
    """One line per change."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._shown: dict[tuple[str, ...], str] = {}
        self._noted = ""

    def update(self, operation: Json) -> None:
        """Every node that is not as it was, in the order of time."""
        fresh = [node for node in tree(operation) if self._shown.get(node.key) != node.told()]
        now, self._noted = self._now(), ""
        for node in sorted(fresh, key=lambda node: node.at(now)):
            self._shown[node.key] = node.told()
            self._line(node, now)

    def note(self, line: str) -> None:
        """A line with the time, once until the next update."""
        if line != self._noted:
            self._noted = line
            say(f"{self._now():%H:%M:%S}Z {line}")

    def _line(self, node: Node, now: datetime) -> None:
        at = node.at(now)
        took = f" after {lasting(node.took_s(at))}" if node.ended and node.began else ""
        state, _colon, rest = node.told().partition(": ")
        said = f"{state}{took}" + (f": {rest}" if rest else "")
        say(f"{at:%H:%M:%S}Z {node.name}: {said}")
