"""Queries that anybody may ask, and how often.

Public is a declaration of the query's class, so that becoming public is a line in a diff. The limit
is a token bucket for each source address, in this process alone: it keeps one client from keeping
the database busy, no more.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from domain.errors import Denied, Unavailable
from engine.queries.base import Query

PER_S = 5.0
BURST = 20.0
SOURCES_MAX = 10_000
"""Sources remembered. Higher: more memory. Lower: a flood of addresses resets others' limits."""


class TooManyRequests(Unavailable):
    """This source has asked too often; asking again later helps."""

    status = 429


class RateLimit:
    """A token bucket a source. `clock` gives seconds that only go forward."""

    def __init__(self, clock: Callable[[], float] | None = None) -> None:
        self._clock = clock or (lambda: asyncio.get_running_loop().time())
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, source: str) -> None:
        """Count one request; TooManyRequests when the bucket is empty."""
        now = self._clock()
        tokens, at = self._buckets.pop(source, (BURST, now))
        tokens = min(BURST, tokens + (now - at) * PER_S)
        self._buckets[source] = (max(tokens - 1, 0.0), now)
        if len(self._buckets) > SOURCES_MAX:
            self._buckets.popitem(last=False)
        if tokens < 1:
            raise TooManyRequests(
                "RATE_LIMITED",
                f"more than {BURST:.0f} requests at once or {PER_S:.0f} a second",
                next_step=f"try again in {(1 - tokens) / PER_S:.1f} s, or authenticate",
            )


def refuse_private(query: Query[Any, Any]) -> None:
    """Denied unless the query is declared public."""
    if not query.public:
        raise Denied(
            "QUERY_NOT_PUBLIC",
            f"{query.params.__name__} is not answered without authentication",
            next_step="send a token",
        )
