"""Who watches a host, for whoever looks at it."""

from datetime import datetime
from enum import StrEnum

from domain.base import Frozen


class EyeState(StrEnum):
    """What one monitor is for one host."""

    WATCHING = "watching"  # its word counts
    JOINING = "joining"  # it is to watch it, and has not looked often enough
    BESIDE = "beside"  # it watches though it need not: the host is being handed over, or few are
    BLIND = "blind"  # it hears nothing at all, and mistrusts itself
    GONE = "gone"  # it gives no sign of life


class EyeView(Frozen):
    """One monitor of one host, and its last vote. Times are its own clock's."""

    monitor: str
    machine: str
    state: EyeState
    verdict: str | None  # up, refused, connecting, non_responsive, powered_off; None: none yet
    since: datetime | None  # when it began to watch the host
    voted_at: datetime | None
