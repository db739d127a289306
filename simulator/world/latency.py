"""How long calls into the data centre take, drawn from one seeded generator.

Held against what was measured in the lab (`simulator.latencies`): the median of what is drawn is at
least half of the lab's, and at most three times the lab's 95th percentile. Not drawn from
that table itself: whoever measures anew would change the times of every seed.

A call takes effect somewhere between its start and its end, and its answer uses up the rest: so a
fault that comes in between finds it done and not yet answered.
"""

from collections.abc import Mapping
from enum import StrEnum
from random import Random

Range = tuple[float, float]


class Call(StrEnum):
    """Every kind of call; those of a session are named as its methods."""

    POLL = "poll"
    KNOCK = "knock"
    OPEN = "open"
    DOMAINS = "domains"
    LOOKUP = "lookup"
    AGENT_PING = "agent_ping"
    DEFINE = "define"
    CREATE = "create"
    SHUTDOWN = "shutdown"
    RESUME = "resume"
    DESTROY = "destroy"
    UNDEFINE = "undefine"
    MIGRATE = "migrate"
    MIGRATION = "migration"
    ABORT_MIGRATION = "abort_migration"
    REFUSE_ARRIVAL = "refuse_arrival"
    RENEW_MARK = "renew_mark"
    LIST_FOREIGN = "list_foreign"
    DESCRIBE_FOREIGN = "describe_foreign"
    ADOPT = "adopt"
    DISOWN = "disown"
    BOOT_MARK = "boot_mark"
    SET_BOOT_MARK = "set_boot_mark"
    BMC_READ = "bmc_read"
    BMC_OFF = "bmc_off"
    BMC_ON = "bmc_on"
    SSH_RESTART = "ssh_restart"


CHANGING = frozenset(
    {
        *(Call.DEFINE, Call.CREATE, Call.SHUTDOWN, Call.DESTROY, Call.UNDEFINE),
        *(Call.RESUME, Call.RENEW_MARK),
        *(Call.MIGRATE, Call.ABORT_MIGRATION, Call.REFUSE_ARRIVAL),
        *(Call.ADOPT, Call.DISOWN, Call.SET_BOOT_MARK, Call.BMC_OFF, Call.BMC_ON),
        Call.SSH_RESTART,
    }
)
"""Calls after which the world may be another; without their answer the outcome is not known."""

SHORT: Range = (0.001, 0.015)

USUAL: Mapping[Call, Range] = {
    Call.POLL: (0.003, 0.03),
    Call.KNOCK: (0.0005, 0.003),
    Call.OPEN: (0.01, 0.06),
    Call.DEFINE: (0.005, 0.05),
    Call.CREATE: (0.15, 0.9),
    Call.DESTROY: (0.05, 0.5),
    Call.LIST_FOREIGN: (0.005, 0.05),
    Call.BMC_READ: (0.1, 0.6),
    Call.BMC_OFF: (0.2, 1.5),
    Call.BMC_ON: (0.2, 1.5),
    Call.SSH_RESTART: (0.3, 3.0),
}
"""Seconds from the start of a call to its end, on a host that is not loaded; others are SHORT."""

GUEST_STOP_S: Range = (0.5, 8.0)
MOVE_S: Range = (0.5, 6.0)
LIBVIRTD_START_S: Range = (0.2, 6.0)
"""What follows from a call, as it is in a data centre: the lab's guests are busybox in 96 MiB, and
its hosts have few of them, so that all of this is over sooner there."""


class Latency:
    """Draws the times of calls, and of guests that are asked to end."""

    def __init__(
        self,
        random: Random,
        ranges: Mapping[Call, Range] = USUAL,
        guest_stop_s: Range = GUEST_STOP_S,
        move_s: Range = MOVE_S,
    ) -> None:
        self._random = random
        self._ranges = ranges
        self._guest_stop_s = guest_stop_s
        self._move_s = move_s

    def draw(self, call: Call) -> tuple[float, float]:
        """Seconds until the call takes effect, and from then until its answer is there."""
        took_s = self._random.uniform(*self._ranges.get(call, SHORT))
        there_s = took_s * self._random.random()
        return there_s, took_s - there_s

    def guest_stop_s(self) -> float:
        """Seconds that a guest needs to end after its power button was pressed."""
        return self._random.uniform(*self._guest_stop_s)

    def libvirtd_start_s(self) -> float:
        """Seconds until a libvirtd that was restarted answers."""
        return self._random.uniform(*LIBVIRTD_START_S)

    def move_s(self) -> float:
        """Seconds that libvirt needs to move a guest."""
        return self._random.uniform(*self._move_s)
