"""What becomes of a guest that QEMU has paused because a disk failed it.

Pure. Nothing is lost by a pause: the guest goes on where it stood once its disk answers. So that is
what is tried, unless its VM says that a person sees to it. A VM that had better run elsewhere than
wait is ended after `KILL_AFTER_S`, and started again as if its guest had failed.
"""

from domain.ended_guests import EndedGuest, NextMove, Verdict, judge
from domain.inventory import OnIoError
from domain.readings import StateReason

KILL_AFTER_S = 80.0
"""How long a VM that may be ended is tried to be resumed: what VDSM waits, a lease's life. Higher:
it is away longer where its host has lost its storage. Lower: a short outage costs its memory."""

KILLED = "guest ended after an I/O error"
RESUME_AGAIN_S = 5.0
RESUME_AGAIN_MAX_S = 30.0
"""First and longest wait between tries to let a guest go on; doubled each time. Higher: it stands
still longer after its disk is back. Lower: more tries that pause again at once."""


def judge_paused(facts: EndedGuest, paused_s: float) -> Verdict:
    """Decide about a guest that has been paused for so long, as far as it was seen."""
    said = f"{facts.vm} is paused by an I/O error on {facts.host_name}"
    if not facts.armed:
        return Verdict(move=NextMove.HOLD, why=f"{said}, and disarmed", code="DISARMED")
    if facts.on_io_error is OnIoError.LEAVE_PAUSED:
        return Verdict(move=NextMove.LEAVE, why=f"{said}, where its policy leaves it")
    if facts.on_io_error is OnIoError.KILL and paused_s >= KILL_AFTER_S:
        ended = judge(facts.model_copy(update={"reason": StateReason.FAILED}))
        if ended.move in (NextMove.CLOSE, NextMove.RESTART, NextMove.LATER):
            return _killed(ended, facts, said, paused_s)
    return Verdict(move=NextMove.RESUME, why=said, code="GUEST_PAUSED")


def _killed(ended: Verdict, facts: EndedGuest, said: str, paused_s: float) -> Verdict:
    """Ended, and not started where its disk failed it as long as another host may try."""
    changes = {"kill": True, "end_reason": KILLED}
    changes |= {"why": f"{said} for {paused_s:.0f} s; it is ended. {ended.why}"}
    others = set(facts.hosts) - {facts.host_id} - set(ended.avoid)
    if ended.move is NextMove.RESTART and others:
        changes |= {"prefer_id": None, "avoid": tuple(sorted({*ended.avoid, facts.host_id}))}
    return ended.model_copy(update=changes)
