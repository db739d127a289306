"""By when an operation that waits is looked at again.

Pure. A workflow looks at what it waits for by itself, ever less often up to a limit, and at once
when it is told that something has changed. How often it has looked is not written down, so what is
told here is the longest that it may take: never too early, and often too late.
"""

from datetime import datetime, timedelta

from domain.base import Frozen
from domain.paused_guests import RESUME_AGAIN_MAX_S
from domain.profiles import Policy
from domain.readiness import ReadyRule, ReadyWhen

FROZEN_LOOK_MAX_S = 300.0
"""Longest wait between looks at a frozen cluster; arming it wakes the start at once. Higher: a lost
signal costs more. Lower: a cluster that is frozen for days fills this workflow's history."""

SILENT_LOOKS = 10
"""Longest wait between looks at a host that stays silent, in longest waits of a hold. Lower: one
that is silent for a weekend fills a workflow's history, and the server ends it."""

ELSEWHERE_LOOK_S = 30.0
"""Wait between looks at a guest that may live on elsewhere. Higher: what a person mended is seen
later. Lower: more looks at what only a person can mend."""

READY_LOOK_S = 1.0
"""Between the first looks at a VM that others wait for; then a tenth of how long it was waited for.
Higher: dependants start later. Lower: the guest is asked more often."""

DELAY_LOOK_S = 60.0
"""The same where the VM is given a time, and it is only seen whether it still runs."""

READY_LEAST_S = 0.1
"""Shortest wait before such a look, where a limit is nearly over. Lower: two clocks that differ a
little cost looks for nothing."""

READY_LOOK_MAX_S = 300.0
"""Longest wait between such looks. Higher: a dependant of a VM that takes an hour starts later.
Lower: a wait of a day fills the recovery's history, which the server then ends."""

AWAITED_LOOK_MAX_S = 60.0
"""Longest wait between looks at VMs that something else brings back. Higher: a start comes later
than it could. Lower: a wait of a day fills the recovery's history."""

LOCK_HELD, DEPENDENCY, VMS_START = "LOCK_HELD", "DEPENDENCY", "VMS_START"


class Wait(Frozen):
    """An operation that waits, as its row tells it.

    since     when it was first claimed by a workflow
    told_at   when its workflow last said that it waits; None: somebody else says so for it
    """

    kind: str
    code: str
    policy: Policy
    since: datetime | None
    told_at: datetime | None


def next_look(wait: Wait, now: datetime) -> datetime | None:
    """By when it is looked at again; None where that is not known, or nobody looks by the clock.

    A time that has passed means that it is being looked at, or that no worker has come to it.
    """
    if wait.code == DEPENDENCY:  # its recovery looks for it, and does not say when it has
        return now + timedelta(seconds=AWAITED_LOOK_MAX_S)
    if wait.told_at is None:
        return None
    if wait.code == VMS_START:
        return now + timedelta(seconds=wait.policy.capacity_retry_s)
    longest_s = _longest_s(wait)
    return None if longest_s is None else wait.told_at + timedelta(seconds=longest_s)


def ready_look_s(rule: ReadyRule, waited_s: float) -> float:
    """In how many seconds a VM that is not ready is looked at again: at its limit at the latest.

    Of a delay nothing is to be seen before it is over, unless the VM ends.
    """
    left_s = max(rule.within_s - waited_s, READY_LEAST_S)
    if rule.when is ReadyWhen.DELAY:
        return min(left_s, max(DELAY_LOOK_S, waited_s / 10), READY_LOOK_MAX_S)
    return min(left_s, max(READY_LOOK_S, waited_s / 10), READY_LOOK_MAX_S)


def silent_look_max_s(policy: Policy) -> float:
    """The longest wait, in seconds, between looks at a host that stays silent."""
    return SILENT_LOOKS * policy.hold_retry_max_s


def _longest_s(wait: Wait) -> float | None:
    policy = wait.policy
    if wait.code in ("NO_ROOM", "VMS_CANNOT_MOVE"):
        return policy.capacity_retry_s
    match wait.kind:
        case "host.recover":
            return policy.hold_retry_max_s
        case "vm.start":
            return _start_s(wait)
        case "vm.migrate":
            return silent_look_max_s(policy)
        case "vm.recover":
            return _guest_s(wait.code)
    return None


def _guest_s(code: str) -> float | None:
    if code == "RESTARTS_SPENT":  # that one tells a time of its own
        return None
    return RESUME_AGAIN_MAX_S if code == "GUEST_PAUSED" else ELSEWHERE_LOOK_S


def _start_s(wait: Wait) -> float | None:
    policy = wait.policy
    match wait.code:
        case "DISARMED":
            return FROZEN_LOOK_MAX_S
        case "STARTS_AT_LIMIT":
            return policy.hold_retry_max_s
        case "START_NOT_UNDONE":
            return _doubled_s(wait, policy.hold_retry_max_s, silent_look_max_s(policy))
        case "START_FAILED":
            return _doubled_s(wait, policy.start_again_s, policy.start_again_max_s)
    return None


def _doubled_s(wait: Wait, first_s: float, most_s: float) -> float:
    """The next of waits that nothing cuts short, each twice the one before, up to a limit.

    All before it together took as long as it takes, less the first; so it is no longer than the
    operation has been at work, and the first beside that.
    """
    if wait.since is None or wait.told_at is None:
        return most_s
    worked_s = max(0.0, (wait.told_at - wait.since).total_seconds())
    return min(worked_s + first_s, most_s)
