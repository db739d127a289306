"""Asking again while the engine or its database is away, for what has to arrive all the same.

Only for requests that may arrive late and more than once: those under one idempotency key whose
wish is as good in ten minutes as now, such as a disarm, and those that only look.
"""

import time
from collections.abc import Callable
from typing import TypeVar

from cli.client import pause
from cli.failures import Exit, Failure, Json
from cli.render import lasting
from cli.terminal import clean, say

T = TypeVar("T")

AGAIN_S = 1.0
"""Between two tries. Higher: the engine may act for longer before it is told not to."""

TOLD_S = 30.0
"""How often it is said that nothing has changed."""

UNKNOWN = "COMMIT_OUTCOME_UNKNOWN"
DATABASE = frozenset({"DATABASE_UNAVAILABLE", UNKNOWN})


class KeepTrying:
    """Asks until there is an answer other than that part of the engine is away, or time is over.

    One limit for all that is asked through it, from its making on; then Failure is the last
    answer. What may have arrived once may have arrived, whatever became of later tries.
    """

    def __init__(
        self,
        limit_s: float,
        *,
        quiet: bool = False,
        pause: Callable[[float], None] = pause,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pause, self._monotonic, self._quiet = pause, monotonic, quiet
        self._began = monotonic()
        self._end = self._began + limit_s
        self._told: tuple[str, float] | None = None

    def __call__(self, ask: Callable[[], T]) -> T:
        """What `ask` answers at last; a refusal for a reason of its own is a Failure at once."""
        doubtful = False
        while True:
            try:
                return ask()
            except Failure as found:
                if found.code is not Exit.UNREACHABLE:
                    raise
                context: Json = found.document.setdefault("context", {})
                doubtful |= bool(context.get("request_may_have_arrived"))
                doubtful |= found.document.get("code") == UNKNOWN
                left_s = self._end - self._monotonic()
                if left_s <= 0:
                    context["request_may_have_arrived"] = doubtful
                    raise
                self._tell(found.document, left_s)
                self._pause(min(AGAIN_S, left_s))

    def _tell(self, document: Json, left_s: float) -> None:
        code, now = str(document.get("code")), self._monotonic()
        told, at = self._told or ("", now)
        if self._quiet or (told == code and now - at < TOLD_S):
            return
        self._told = (code, now)
        say(f"not taken yet: {clean(document.get('detail'))} ({clean(code)})")
        if told != code:
            say(f"  {_meanwhile(code)}")
        say(f"  asking again each second, for {lasting(left_s)} at most; Ctrl-C ends it")


def _meanwhile(code: str) -> str:
    if code in DATABASE:
        return (
            "a fence is claimed in that database, so while it is away for the whole engine no new"
            " one begins; one that was claimed before is carried out"
        )
    return "what is armed stays armed until then, and the engine's other processes may act"
