"""Queries that anybody may ask, and how often.

Public is a declaration of the query's class, so that becoming public is a line in a diff. The limit
is a token bucket for each source address, in this process alone: it keeps one client from keeping
the database busy, no more.
"""

import asyncio
import ipaddress
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
        now, source = self._clock(), network_of(source)
        tokens, at = self._buckets.pop(source, (BURST, now))
        tokens = min(BURST, tokens + (now - at) * PER_S)
        # A refused request costs nothing, or who asks too early would never be let in again.
        self._buckets[source] = (tokens - 1 if tokens >= 1 else tokens, now)
        if len(self._buckets) > SOURCES_MAX:
            self._buckets.popitem(last=False)
        if tokens < 1:
            wait_s = (1 - tokens) / PER_S
            raise TooManyRequests(
                "RATE_LIMITED",
                f"more than {BURST:.0f} requests at once or {PER_S:.0f} a second",
                next_step=f"try again in {wait_s:.1f} s",
                retry_after_s=round(wait_s, 3),
            )


def network_of(source: str) -> str:
    """Whose bucket an address has: an IPv6 network counts as one, since it costs nothing to have
    all of its addresses."""
    try:
        address = ipaddress.ip_address(source.partition("%")[0])
    except ValueError:
        return source
    if address.version == 4:
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, 64), strict=False))


def refuse_private(query: Query[Any, Any]) -> None:
    """Denied unless the query is declared public."""
    if not query.public:
        raise Denied(
            "QUERY_NOT_PUBLIC",
            f"{query.params.__name__} is not answered without authentication",
            next_step="send a token",
        )
