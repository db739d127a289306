"""What happens in the data centre: told to observers at once, or planned for later.

Invariants  Observers are told after the fact, in the order in which they were added, and change
            nothing. What was planned belongs to no process of the engine: it runs in a context of
            its own, so the world goes on when the process that began it is killed or frozen.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from simulator.loop import nobody

Observer = Callable[[str, dict[str, Any]], None]
"""Gets the kind of an event (`guest.started`) and its facts."""


class Happenings:
    """Tells what happened, and has things happen later."""

    def __init__(self) -> None:
        self.observers: list[Observer] = []

    def tell(self, kind: str, **facts: Any) -> None:
        """Let every observer know; each gets facts of its own."""
        for observer in self.observers:
            observer(kind, dict(facts))

    def later(self, seconds: float, act: Callable[[], None]) -> None:
        """Have something happen; what no longer fits by then, `act` itself has to leave."""
        asyncio.get_running_loop().call_later(seconds, act, context=nobody())
