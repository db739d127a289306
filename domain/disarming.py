"""What becomes of failures and recoveries while automatic action in a cluster is switched off.

| Mode     | a new failure                    | a recovery under way                        |
|----------|----------------------------------|---------------------------------------------|
| `hold`   | opens an incident, which waits   | fences nobody; the VMs it claimed do start  |
| `freeze` | opens an incident, which waits   | fences nobody, and starts no further VM     |
| `ignore` | is noted (an event), and no more | goes on to its end                          |

In each, a step that is being carried out is carried out. When the cluster is armed again, what
waited is judged anew by what monitors and power controllers say then, and what was only noted is
reported by the next poll that finds it so.
"""

from enum import StrEnum

DISARMED = "DISARMED"
"""The reason code of what waits for a cluster to be armed, and of what is refused until then."""


FAILURE_IGNORED = "FAILURE_IGNORED"
"""The code under which the report of a failure is refused that is only noted."""


class DisarmMode(StrEnum):
    """How automatic action is switched off."""

    HOLD = "hold"  # for what may be a false alarm: nothing new is cut
    FREEZE = "freeze"  # for work on the cluster itself: nothing moves
    IGNORE = "ignore"  # for announced work on hosts: no failure is one


def acts_on_known(*, armed: bool, mode: str | None) -> bool:
    """Whether a recovery that was under way before may fence."""
    return armed or mode == DisarmMode.IGNORE


def starts_known(*, armed: bool, mode: str | None) -> bool:
    """Whether a recovery that was under way before may start VMs."""
    return armed or mode != DisarmMode.FREEZE
