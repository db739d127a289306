"""From poll results to a verdict on one host: pure, fed by one monitor's own monotonic clock.

`up` → `connecting` at the first miss, in every profile → `non_responsive` after the profile's
limit. At each miss the power controller is to be asked; off ends the waiting at once. A refused
port only says that libvirtd is down while guests may run: it is a miss, but the host's kernel
answered, so silence does not grow, nobody is fenced for it, and a controller that reads off at
that moment is not believed. The same is a hung libvirtd behind a door that the kernel still opens:
before a silent host is reported, its door is knocked at. Time in which nobody looked is not
silence: a monitor that was itself stopped for a minute has seen one missed poll, not a minute of
them. The poll before the limit lasts until it is reached (`for_next_poll`).
"""

from enum import StrEnum

from domain.base import Frozen
from domain.inventory import PowerReading
from domain.profiles import Timing
from domain.readings import Knock


class PollResult(StrEnum):
    """How one poll ended."""

    ANSWERED = "answered"
    REFUSED = "refused"  # the host's kernel said that nobody listens
    SILENT = "silent"


class Verdict(StrEnum):
    """What a monitor holds a host to be."""

    UP = "up"
    CONNECTING = "connecting"
    NON_RESPONSIVE = "non_responsive"
    POWERED_OFF = "powered_off"  # silent, and its power controller reads off


class Watch(Frozen):
    """What a monitor remembers of one host between polls. Times are its monotonic seconds."""

    verdict: Verdict = Verdict.UP
    heard_at_s: float  # last sign of life of the host's kernel
    last: PollResult = PollResult.ANSWERED  # how the last poll ended
    looked_at_s: float | None = None  # end of the last poll; None: not polled since heard
    silent_s: float = 0.0  # watched silence since the last sign of life
    misses: int = 0
    first_miss_s: float | None = None


def after_poll(watch: Watch, result: PollResult, now_s: float, timing: Timing) -> Watch:
    """The watch after one poll."""
    if result is PollResult.ANSWERED:
        return Watch(verdict=Verdict.UP, heard_at_s=now_s, looked_at_s=now_s)
    refused = result is PollResult.REFUSED
    silent_s = 0.0 if refused else watch.silent_s + _watched_s(watch, now_s, timing)
    verdict = (
        Verdict.NON_RESPONSIVE if silent_s >= timing.non_responsive_after_s else Verdict.CONNECTING
    )
    return Watch(
        verdict=verdict,
        heard_at_s=now_s if refused else watch.heard_at_s,
        last=result,
        looked_at_s=now_s,
        silent_s=silent_s,
        misses=watch.misses + 1,
        first_miss_s=now_s if watch.first_miss_s is None else watch.first_miss_s,
    )


LATER = 0.1
"""How much later than the next one is due, in parts of `poll_s`, a poll may end that reaches the
limit. Higher: a silent host delays the next poll of the others. Lower: one that began just after
an answer came is judged a whole round later."""

ROUNDING_S = 0.001
"""Sums of seconds are off by less than this; silence that ends on the limit has reached it."""


def for_next_poll(watch: Watch, now_s: float, timing: Timing) -> Timing:
    """The timing of a poll that begins now: its own deadline may be later than the profile's.

    Silence is judged where a poll ends. One that would end short of the limit, with the next one
    beyond it, waits until the limit is reached: the host has longer to answer, and silence is told
    when the profile says so instead of up to a round later.
    """
    missing_s = timing.non_responsive_after_s - watch.silent_s - _watched_s(watch, now_s, timing)
    if watch.misses and timing.poll_deadline_s < missing_s <= timing.poll_s * (1 + LATER):
        return timing.model_copy(update={"poll_deadline_s": missing_s + ROUNDING_S})
    return timing


def _watched_s(watch: Watch, now_s: float, timing: Timing) -> float:
    """How much of the time since the last look one poll can speak for."""
    looked_at_s = watch.heard_at_s if watch.looked_at_s is None else watch.looked_at_s
    return max(0.0, min(now_s - looked_at_s, timing.poll_s + timing.poll_deadline_s))


def after_power_reading(watch: Watch, reading: PowerReading) -> Watch:
    """The watch after the power controller was asked; only off of a silent host says anything."""
    if watch.last is PollResult.SILENT and reading is PowerReading.OFF:
        return watch.model_copy(update={"verdict": Verdict.POWERED_OFF})
    return watch


def after_knock(watch: Watch, door: Knock | None, now_s: float) -> Watch:
    """The watch after the door of a silent host was tried; None: it could not be."""
    if door in (None, Knock.SILENT) or watch.verdict is not Verdict.NON_RESPONSIVE:
        return watch
    changes = {"verdict": Verdict.CONNECTING, "heard_at_s": now_s, "silent_s": 0.0}
    return watch.model_copy(update=changes | {"last": PollResult.REFUSED})


def wants_recovery(watch: Watch) -> bool:
    """Whether this verdict is to be reported as a host failure."""
    return watch.verdict in (Verdict.NON_RESPONSIVE, Verdict.POWERED_OFF)


def judgeable(watch: Watch | None, *, answered: bool) -> bool:
    """Whether a monitor that began afresh has seen enough of a host to tell silence from its start.

    It has answered a poll (`answered`), its kernel has shown life, its power reads off, or it was
    missed for its profile's whole limit while the monitor watched. A monitor is warm once that is
    so of every host that it judges: no number of rounds stands for it.
    """
    if answered or watch is None:
        return answered
    return watch.last is PollResult.REFUSED or wants_recovery(watch)
