"""How many hosts may be fenced within a window without a person: of a cluster, a rack, a site.

Hosts that share a power feed or a switch fall silent together, so a limit on the whole cluster is
not enough: a fault of one rack would spend it on that rack alone, and a network fault of a site
would cut half of it. Each limit is a number, a percentage of the hosts, or both: the stricter one
holds. A percentage is rounded down, but never below one host: it makes fencing slower, and only a
number of 0 leaves every fence to a person.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from domain.base import Frozen


class Scope(StrEnum):
    """What a budget is about."""

    CLUSTER = "cluster"
    RACK = "rack"  # of its site: racks of two sites may have the same name
    SITE = "site"


class FenceBudget(Frozen):
    """One budget, as far as it is spent on other hosts than the one in question.

    hosts      of which the percentage is taken: all but those in maintenance
    frees_at   when the next fence is allowed at the earliest, to the minute; None: there is room,
               or none is ever allowed
    """

    scope: Scope
    name: str
    spent: int
    hosts: int
    most: int | None = None
    percent: int | None = None
    window_s: float = 300.0
    frees_at: datetime | None = None

    @property
    def limit(self) -> int | None:
        """How many hosts the stricter limit allows in a window; None: as many as there are."""
        share = None if self.percent is None else max(1, self.hosts * self.percent // 100)
        given = [limit for limit in (self.most, share) if limit is not None]
        return min(given, default=None)

    @property
    def exhausted(self) -> bool:
        """Whether one more fence would exceed it."""
        return self.limit is not None and self.spent >= self.limit

    def told(self) -> str:
        """What is spent, of how many, and when the next one is free."""
        share = "" if self.percent is None else f" ({self.percent} % of {self.hosts} hosts)"
        where = f"{self.scope} {self.name}"
        said = (
            f"{self.spent} of {self.limit} fences{share} in the last {self.window_s:.0f} s "
            f"are spent in {where}"
        )
        if self.frees_at is None:
            return said
        return f"{said}; the next one is free at {self.frees_at:%H:%M} UTC"


def free_at(ages_s: Iterable[float], limit: int, window_s: float, now: datetime) -> datetime | None:
    """When the next of `limit` fences is free, if these many seconds ago hosts were fenced.

    Rounded up to the minute: what an operator reads then stays the same from look to look. None
    when there is room, or never any.
    """
    left_s = sorted((window_s - age for age in ages_s), reverse=True)
    if limit < 1 or len(left_s) < limit:
        return None
    at = now + timedelta(seconds=max(left_s[limit - 1], 0.0))
    whole = at.replace(second=0, microsecond=0)
    return whole if whole == at else whole + timedelta(minutes=1)


class SilentDomain(Frozen):
    """A failure domain of several hosts of which every one in service is silent."""

    scope: Scope
    name: str
    hosts: int
    elsewhere: int  # hosts in service outside of it
    elsewhere_silent: int

    def told(self) -> str:
        """How wide the silence is, and how far it ends at this domain."""
        return (
            f"{self.hosts} of {self.hosts} hosts of {self.scope} {self.name} are silent, "
            f"{self.elsewhere_silent} of {self.elsewhere} elsewhere"
        )


class Tally(Frozen):
    """How many hosts of one place are in service and how many are counted at all."""

    cluster_id: UUID
    site: str
    rack: str
    counted: int = 0  # all but those in maintenance
    serving: int = 0
    silent: int = 0  # of those in service


def silent_domain(tallies: Iterable[Tally], site: str, rack: str) -> SilentDomain | None:
    """The widest failure domain of a host that is silent as a whole, of two hosts or more.

    The silence of a rack that is all there is of its site is told as the rack's.
    """
    known = tuple(tallies)
    racks = {one.rack for one in known if one.site == site and one.serving}
    wide = [(Scope.SITE, site)] if site and len(racks) > 1 else []
    wide += [(Scope.RACK, rack)] if rack else []
    for scope, name in wide:
        found = _silent_in(known, scope, name, site)
        if found is not None:
            return found
    return None


def _silent_in(
    tallies: tuple[Tally, ...], scope: Scope, name: str, site: str
) -> SilentDomain | None:
    inside = [t for t in tallies if t.site == site and (scope is Scope.SITE or t.rack == name)]
    serving, silent = (sum(getattr(t, what) for t in inside) for what in ("serving", "silent"))
    if serving < 2 or silent < serving:
        return None
    return SilentDomain(
        scope=scope,
        name=name,
        hosts=serving,
        elsewhere=sum(t.serving for t in tallies) - serving,
        elsewhere_silent=sum(t.silent for t in tallies) - silent,
    )
