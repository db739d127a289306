"""How a host moves between its states: one table, one function.

Silence alone never leads past `non_responsive`; `down` needs a proof; nothing reaches `up` from
there except through `reconciling`, where the host's old copies are settled first.
"""

from enum import StrEnum

from domain.errors import Conflict
from domain.inventory import HostState


class HostEvent(StrEnum):
    """What can happen to a host."""

    MISSED = "missed"  # one poll without an answer
    ANSWERED = "answered"  # a poll was answered, same boot
    SILENT = "silent"  # silent past the profile's limit, or its power reads off
    FENCE = "fence"  # a fence has been claimed
    PROVEN_OFF = "proven_off"  # power read back as off
    RETURNED = "returned"  # alive again before any proof; same boot, nothing moved
    DRAIN = "drain"  # a person takes it out of service: its VMs are moved away
    STAY = "stay"  # that was given up
    EMPTIED = "emptied"  # none of our runs is left on it
    ACTIVATE = "activate"  # brought back into service
    ADMITTED = "admitted"  # reconciled; a new epoch begins
    ALIVE = "alive"  # heard though it was proven off, in the same boot
    FAILED = "failed"  # a step needs a person


S, E = HostState, HostEvent
NEXT: dict[HostState, dict[HostEvent, HostState]] = {
    S.UP: {
        E.MISSED: S.CONNECTING,
        E.DRAIN: S.PREPARING_MAINTENANCE,
        E.ACTIVATE: S.RECONCILING,
    },
    S.CONNECTING: {
        E.MISSED: S.CONNECTING,
        E.ANSWERED: S.UP,
        E.SILENT: S.NON_RESPONSIVE,
        E.ACTIVATE: S.RECONCILING,
    },
    # A recovery that ended without claiming anything is begun again where it stood.
    S.NON_RESPONSIVE: {
        E.SILENT: S.NON_RESPONSIVE,
        E.FENCE: S.FENCING,
        E.RETURNED: S.UP,
        E.PROVEN_OFF: S.DOWN,
        E.ACTIVATE: S.RECONCILING,
    },
    S.FENCING: {
        E.FENCE: S.FENCING,
        E.PROVEN_OFF: S.DOWN,
        E.RETURNED: S.UP,
        E.FAILED: S.NON_RESPONSIVE,
    },
    S.DOWN: {
        E.SILENT: S.DOWN,
        E.PROVEN_OFF: S.DOWN,
        E.ALIVE: S.NON_OPERATIONAL,
        E.ACTIVATE: S.RECONCILING,
    },
    S.RECONCILING: {E.ADMITTED: S.UP, E.ACTIVATE: S.RECONCILING, E.FAILED: S.NON_OPERATIONAL},
    # Out of service already: it may be proven dead, but an answer never brings it back.
    S.NON_OPERATIONAL: {
        E.SILENT: S.NON_OPERATIONAL,
        E.FENCE: S.NON_OPERATIONAL,
        E.PROVEN_OFF: S.DOWN,
        E.ACTIVATE: S.RECONCILING,
    },
    S.MAINTENANCE: {E.ACTIVATE: S.RECONCILING},
    # It serves the VMs that it still has, so it may fail like any other.
    S.PREPARING_MAINTENANCE: {
        E.STAY: S.UP,
        E.EMPTIED: S.MAINTENANCE,
        E.SILENT: S.PREPARING_MAINTENANCE,
        E.FENCE: S.PREPARING_MAINTENANCE,
        E.PROVEN_OFF: S.DOWN,
        E.ACTIVATE: S.RECONCILING,
    },
    S.ERROR: {E.ACTIVATE: S.RECONCILING},
}

PUT_BACK = frozenset(
    {
        S.NON_RESPONSIVE,
        S.DOWN,
        S.MAINTENANCE,
        S.PREPARING_MAINTENANCE,
        S.NON_OPERATIONAL,
        S.ERROR,
    }
)
"""States that a host gets back when its activation ends before any step of it has begun. One that
was in service is not among them: it is activated only because it has rebooted."""

POLLED = frozenset({S.UP, S.CONNECTING, S.NON_RESPONSIVE, S.FENCING})
"""States in which a monitor judges a host by its answers."""

STAKED = frozenset({S.NON_OPERATIONAL, S.PREPARING_MAINTENANCE})
"""States in which a monitor judges a host only while a copy may run there."""

MARKED = frozenset({S.UP, S.CONNECTING, S.PREPARING_MAINTENANCE})
"""States in which a host that lacks the mark of its boot has rebooted."""

SILENT = frozenset({S.CONNECTING, S.NON_RESPONSIVE, S.FENCING})
"""States that count as silent when the storm guard looks at a cluster."""


def advance(state: HostState, event: HostEvent) -> HostState:
    """The state after an event; Conflict when the state does not expect it."""
    try:
        return NEXT[state][event]
    except KeyError:
        raise Conflict(
            "HOST_STATE_FORBIDS",
            f"a host in state {state} does not expect the event {event}",
            state=state,
            event=event,
        ) from None


def sources(event: HostEvent) -> tuple[HostState, ...]:
    """Every state that expects an event, in the order of the table."""
    return tuple(state for state, row in NEXT.items() if event in row)
