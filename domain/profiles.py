"""Timing profiles: how long silence is believed, and what that costs.

Reading a power controller harms nobody, so every profile asks it at the first missed poll and a
reading of off ends the waiting. The limits below only say how long a host may be silent while its
power controller reads on, or says nothing, before its power is cut.

Figures for poll and limit are oVirt's for `classic` (VdsRefreshRate 2 s, 60 s of silence); the
others are ours.
"""

from enum import StrEnum
from typing import Any

from pydantic import Field

from domain.base import Frozen


class Profile(StrEnum):
    """The four shipped timing profiles."""

    CLASSIC = "classic"
    BALANCED = "balanced"
    FAST = "fast"
    CAREFUL = "careful"


def _added(default: float) -> Any:
    """A field that came later: absent from what is written while it has its default."""
    return Field(default=default, exclude_if=lambda value: value == default)


START_DEADLINE_S = 60.0
"""What `Policy.start_deadline_s` is."""

STARTS_PER_HOST = 8
"""What `Policy.starts_per_host` is unless a cluster says otherwise."""

STARTS_PER_HOST_MAX = 1000


class Timing(Frozen):
    """What a profile fixes. All durations in seconds.

    monitors_per_host   monitors that watch each host, and whose silence a fence takes, as far as
                        there are so many. Higher: a fence waits for more of them. 1: one monitor
                        with a bad cable decides.
    """

    poll_s: float
    poll_deadline_s: float
    non_responsive_after_s: float
    proofs_required: int = 1
    monitors_per_host: int = _added(2)


TIMINGS: dict[Profile, Timing] = {
    Profile.CLASSIC: Timing(poll_s=2, poll_deadline_s=2, non_responsive_after_s=60),
    Profile.BALANCED: Timing(poll_s=2, poll_deadline_s=1, non_responsive_after_s=15),
    Profile.FAST: Timing(poll_s=1, poll_deadline_s=0.8, non_responsive_after_s=4),
    Profile.CAREFUL: Timing(
        poll_s=5, poll_deadline_s=3, non_responsive_after_s=120, proofs_required=2
    ),
}


class Policy(Frozen):
    """Every duration and limit of an operation; it travels in the workflow's input.

    fences_per_window, window_s  what recorded orders carry of the fence budget; it is the cluster's
                        own row that counts (`domain.fence_budgets`).
    fence_limit_s       the longest that a fence may take (`domain.topology`); no device is
                        configured that exceeds it, and the limits of steps follow it. None: an
                        order from before there was one.
    migrate_deadline_s  how long libvirt may move one guest before that is given up. Higher: a guest
                        that writes faster than the network carries holds up its host's maintenance.
                        Lower: a large one never arrives.
    migrations_per_host VMs that leave one host, or come to one, at the same time. Higher: they
                        share the network, and each takes longer, with more pages to send again.
                        Lower: draining a host of many small VMs takes longer.
    starts_per_host     VMs that one recovery starts on one host at the same time. Higher: a boot
                        storm slows the guests that run there. Lower: the last VM waits longer. Over
                        all recoveries it is the cluster's own row that counts, when a run is
                        claimed (`domain.start_turns`).
    soft_restart_s      how long restarting a host's libvirtd over SSH may take. Higher: a host that
                        hangs stays so longer before a person is called. Lower: a libvirtd that has
                        to be killed first is not waited for.
    soft_answer_s       how long libvirt may take to answer after that.
    off_settles_s       how long a host that was told to go off, and was not read off, has to go on
                        answering before that is believed to have come to nothing; never less than
                        the deadline of a device. Higher: such a rehearsal takes longer. Lower: a
                        BMC that obeys late cuts a host that was said to be on; they take 1 to 10 s.
    migrate_look_s      between looks at how far it is, and at hosts that could not be read.
    """

    profile: Profile = Profile.BALANCED
    timing: Timing = TIMINGS[Profile.BALANCED]
    connect_deadline_s: float = 5.0
    define_deadline_s: float = 10.0
    start_deadline_s: float = START_DEADLINE_S
    stop_grace_s: float = 60.0
    stop_read_s: float = 0.5
    off_read_back_s: float = 10.0
    knock_s: float = 0.5  # how long a host that reads off is listened to before it is certified
    off_read_every_s: float = 0.25
    fence_tries: int = 3
    power_on_answer_s: float = 300.0
    hold_retry_s: float = 1.0  # doubled at each hold, up to the limit
    hold_retry_max_s: float = 30.0
    capacity_retry_s: float = 5.0
    start_again_s: float = _added(2.0)  # after all hosts failed; doubled each time, up to the limit
    start_again_max_s: float = _added(60.0)
    fences_per_window: int = 1
    window_s: float = 300.0
    fence_limit_s: float | None = Field(default=None, exclude_if=lambda limit: limit is None)
    migrate_deadline_s: float = _added(1800.0)
    migrate_look_s: float = _added(1.0)
    migrations_per_host: int = _added(2)
    starts_per_host: int = _added(STARTS_PER_HOST)
    soft_restart_s: float = _added(60.0)
    soft_answer_s: float = _added(60.0)
    off_settles_s: float = _added(15.0)


def policy_for(profile: Profile, **changes: float) -> Policy:
    """The policy of a profile, with named fields replaced (tests shrink durations this way)."""
    return Policy.model_validate({"profile": profile, "timing": TIMINGS[profile], **changes})


class Prediction(Frozen):
    """What a profile promises, in seconds, from the fault to the first VM started elsewhere."""

    power_cut_s: float  # power controller on its own supply, reads off
    isolation_s: float  # host alive but unreachable: silence, then off and read back


LAB_PROOF_S = 1.0
LAB_OFF_S = 2.0
LAB_START_S = 1.0
"""Proof by reading, off with read-back, and place + start, measured in the lab (docs/lab.md)."""


def silence_s(timing: Timing) -> float:
    """From the fault to the decision to cut, at the most, where only silence tells of it."""
    told = timing.non_responsive_after_s + timing.poll_deadline_s  # `liveness.for_next_poll`
    return told + timing.poll_s  # a fresh vote of each monitor: that of its next poll


def predict(timing: Timing) -> Prediction:
    """The worst case of each: a poll has just been answered when the fault comes."""
    detect = timing.poll_s + timing.poll_deadline_s
    return Prediction(
        power_cut_s=detect + LAB_PROOF_S + LAB_START_S,
        isolation_s=silence_s(timing) + LAB_OFF_S + LAB_START_S,
    )
