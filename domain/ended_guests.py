"""What becomes of a VM whose guest is not running any more, though nobody asked the engine for it.

Pure: the facts were read from the guest's own host, in the boot that its run belongs to. A guest
that switched itself off did what somebody inside wanted; every other end is a failure. Where the
guest may live on somewhere else, nothing is decided: a second copy would be worse than none.

Limits  On one host a VM is restarted `max_restart` times within `RESTART_WINDOW`, then it goes to
        another, `max_relocate` of them at most, each with as many restarts; after that it waits
        until an old one is out of the window. So a VM that ends at once every time is not started
        at full speed for ever, and one that fails because of its host gets another.
"""

from collections import Counter
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from pydantic import Field

from domain.base import Frozen
from domain.inventory import OnGuestShutdown, OnHang, OnIoError
from domain.readings import StateReason

RESTART_WINDOW = timedelta(minutes=10)
"""How long a restart counts. Higher: a VM that fails now and then runs out of restarts. Lower: one
that takes minutes to fail is started without end."""

END_REASONS = {
    StateReason.SHUTDOWN: "guest shut down",
    StateReason.DESTROYED: "guest destroyed by hand",
    StateReason.CRASHED: "guest crashed",
    StateReason.FAILED: "guest failed",
    StateReason.UNKNOWN: "guest ended",
}
"""How the run of a guest that ended by itself is closed, by libvirt's reason; absent is UNKNOWN."""

HUNG = "guest hung"

FAILURES = (
    *(text for reason, text in END_REASONS.items() if reason is not StateReason.SHUTDOWN),
    "guest ended after an I/O error",
    HUNG,
)
"""Ends that count against the limits, as runs name them."""


class PastEnd(Frozen):
    """An earlier end of the VM by itself, within the window."""

    host_id: UUID
    host_name: str
    at: datetime


class EndedGuest(Frozen):
    """A guest that is not running, and what its VM is to the engine.

    `reason` is libvirt's, None where the domain is gone altogether. `elsewhere` are hosts whose
    last poll showed a process of the VM. `hosts` are those that could take it.
    """

    vm: str
    host_id: UUID
    host_name: str
    reason: StateReason | None
    wanted: bool
    protected: bool
    on_guest_shutdown: OnGuestShutdown
    on_io_error: OnIoError = OnIoError.RESUME
    on_hang: OnHang = OnHang.OFF
    max_restart: int
    max_relocate: int
    armed: bool = True
    elsewhere: tuple[str, ...] = ()
    hosts: tuple[UUID, ...] = ()
    past: tuple[PastEnd, ...] = ()
    now: datetime


class NextMove(StrEnum):
    """What to do about it."""

    NOTHING = "nothing"  # it runs after all
    HOLD = "hold"  # it may live on elsewhere: look again later
    CLOSE = "close"  # it stays down
    RESTART = "restart"
    LATER = "later"  # it was restarted too often
    RESUME = "resume"  # it is paused, and may go on
    LEAVE = "leave"  # it is paused, and a person sees to it


class Verdict(Frozen):
    """One decision, with what it rests on.

    code       why it has to wait, for `hold` and `later`
    kill       what is left of the guest is ended first
    prefer_id  the host that is tried first
    avoid      hosts that are not to be tried
    """

    move: NextMove
    why: str
    end_reason: str = ""
    code: str = Field(default="", exclude_if=lambda code: not code)
    unwanted: bool = False  # somebody inside wanted it down: it is not wanted any more
    kill: bool = False
    prefer_id: UUID | None = None
    avoid: tuple[UUID, ...] = ()
    next_try_at: datetime | None = None


def judge(facts: EndedGuest) -> Verdict:
    """Decide; where a copy may be alive comes first, then who wanted what, then the limits."""
    if not facts.armed:
        why = f"{facts.vm} is not seen to: automatic action is switched off in its cluster"
        return Verdict(move=NextMove.HOLD, why=why, code="DISARMED")
    held = _may_live_elsewhere(facts)
    if held is not None:
        return held
    reason = facts.reason or StateReason.UNKNOWN
    ended = END_REASONS.get(reason, END_REASONS[StateReason.UNKNOWN])
    said = f"{facts.vm}: {ended} on {facts.host_name}"
    if not facts.wanted:
        return Verdict(move=NextMove.CLOSE, why=f"{said}; its end was wanted", end_reason=ended)
    if reason is StateReason.SHUTDOWN and facts.on_guest_shutdown is OnGuestShutdown.STAY:
        why = f"{said}; what is shut down from inside stays down"
        return Verdict(move=NextMove.CLOSE, why=why, end_reason=ended, unwanted=True)
    if not facts.protected:
        why = f"{said}; it is not protected"
        return Verdict(move=NextMove.CLOSE, why=why, end_reason=ended)
    return _restart(facts, said, ended)


def _may_live_elsewhere(facts: EndedGuest) -> Verdict | None:
    if facts.elsewhere:
        where = ", ".join(facts.elsewhere)
        there = f"{facts.vm} --host {facts.elsewhere[0]}"
        why = f"{facts.vm} does not run on {facts.host_name}, and a copy of it runs on {where}: "
        why += (
            f"`holdfast vm adopt-copy {there}` makes that its run, `holdfast vm end-copy {there} "
        )
        why += "--last-copy` ends it, or move it back by hand"
        return Verdict(move=NextMove.HOLD, why=why, code="GUEST_ELSEWHERE")
    if facts.reason is StateReason.MIGRATED:
        why = f"{facts.vm} was migrated away from {facts.host_name} by hand: "
        why += (
            f"`holdfast vm adopt-copy {facts.vm} --host …` makes the host where it is now its own"
        )
        return Verdict(move=NextMove.HOLD, why=why, code="GUEST_MIGRATED")
    if facts.reason is StateReason.SAVED:
        why = f"the memory of {facts.vm} was saved on {facts.host_name} by hand"
        return Verdict(move=NextMove.HOLD, why=why, code="GUEST_SAVED")
    return None


def _restart(facts: EndedGuest, said: str, ended: str) -> Verdict:
    counts = Counter(end.host_id for end in facts.past)
    here, spent = counts[facts.host_id], _spent(facts, counts)
    minutes = RESTART_WINDOW.total_seconds() / 60
    times = f"restarted {len(facts.past)} times in {minutes:.0f} min, {here} of "
    why = f"{said}; {times}{facts.max_restart} there"
    verdict = Verdict(move=NextMove.RESTART, why=why, end_reason=ended, avoid=_sorted(spent))
    if here < facts.max_restart:
        return verdict.model_copy(update={"prefer_id": facts.host_id})
    avoid = spent | {facts.host_id}
    if set(facts.hosts) - avoid:
        changes = {"why": f"{why}: now elsewhere", "avoid": _sorted(avoid)}
        return verdict.model_copy(update=changes)
    return Verdict(
        move=NextMove.LATER,
        why=f"{why}: no host is left that may try",
        end_reason=ended,
        code="RESTARTS_SPENT",
        next_try_at=_next_try(facts, counts),
    )


def _spent(facts: EndedGuest, counts: Counter[UUID]) -> set[UUID]:
    """Other hosts on which it may not be restarted now."""
    tried = set(counts) - {facts.host_id}
    spent = {host for host in tried if counts[host] > facts.max_restart}
    if len(tried) >= facts.max_relocate:
        spent |= set(facts.hosts) - tried - {facts.host_id}
    return spent


def _next_try(facts: EndedGuest, counts: Counter[UUID]) -> datetime:
    """When the first restart falls out of the window that keeps its host from trying again."""
    times = []
    for host, count in counts.items():
        # An end on another host may also be the one after which it was left.
        most = facts.max_restart - (host == facts.host_id)
        ends = sorted(end.at for end in facts.past if end.host_id == host)
        if 0 <= most < count:
            times.append(ends[count - most - 1] + RESTART_WINDOW)
    return min(times, default=facts.now + RESTART_WINDOW)


def _sorted(hosts: set[UUID]) -> tuple[UUID, ...]:
    return tuple(sorted(hosts))
