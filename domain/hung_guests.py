"""When a guest is hung, and what becomes of it: its agent has answered in this run, and is silent.

Pure. Silence counts only where the agent's channel is open: a guest that boots, or whose agent was
stopped or is being upgraded, has closed it. What cannot be asked now (its host does not answer, it
is paused, it is being moved) begins anew: no silence is counted while nobody listened. Ages are of
one monitor's own monotonic clock.
"""

from domain.base import Frozen
from domain.ended_guests import HUNG, EndedGuest, NextMove, Verdict, judge
from domain.inventory import OnHang
from domain.readings import AgentState, StateReason

HANG_AFTER_S = 60
"""How long an agent is silent before its guest is hung, unless its VM says otherwise. Higher: a
hung service is down longer. Lower: a guest that swaps, or whose disks a backup has frozen, is taken
for hung."""

HANG_AFTER_MIN_S = 15
HANG_AFTER_MAX_S = 24 * 3600

ASK_EVERY_S = 5.0
"""Between two questions to an agent. Higher: silence is noticed later. Lower: more connections."""

GAP_S = 3 * ASK_EVERY_S
ANSWER_S = 6.0
"""Longest pause between two questions to one agent, beside `ANSWER_S` for each silent one that is
asked between them: after more the silence counts anew, since whoever listened was standing still
itself. libvirt takes five seconds for each that is silent. Higher: guests are suspected after such
a pause. Lower: where asking takes long, nobody ever is."""


class Listening(Frozen):
    """One guest's agent as one monitor hears it; seconds of its monotonic clock.

    heard           it has answered in this run, whoever asked
    silent_from_s   when it was first not heard after that, None while it answers
    """

    heard: bool = False
    silent_from_s: float | None = None
    asked_s: float | None = None

    @property
    def silent_s(self) -> float:
        """How long it has been silent, as far as somebody listened."""
        if self.silent_from_s is None or self.asked_s is None:
            return 0.0
        return self.asked_s - self.silent_from_s


def after_question(
    was: Listening, said: AgentState | None, now_s: float, between: int = 1
) -> Listening:
    """What is known after one more question, behind so many silent ones; None: it was not asked."""
    heard = was.heard or said is AgentState.ANSWERS
    if said is not AgentState.SILENT or not was.heard:
        return Listening(heard=heard, asked_s=now_s)
    gap = was.asked_s is None or now_s - was.asked_s > GAP_S + ANSWER_S * between
    from_s = now_s if gap or was.silent_from_s is None else was.silent_from_s
    return Listening(heard=True, silent_from_s=from_s, asked_s=now_s)


def judge_hung(facts: EndedGuest) -> Verdict:
    """Decide about a guest that runs and whose agent was silent again when it was asked afresh.

    Ended and started again within the limits of guests that fail. Where those are spent it is left
    as it is: a VM that is down serves nobody either, and what it hangs in could not be looked at.
    """
    said = f"{facts.vm} hangs on {facts.host_name}: its guest agent is silent"
    # As if it had failed; nothing is ended yet.
    ended = judge(facts.model_copy(update={"reason": StateReason.FAILED}))
    if ended.move is NextMove.HOLD:
        return ended.model_copy(update={"why": f"{said}. {ended.why}"})
    if facts.on_hang is not OnHang.RESTART or ended.move is NextMove.CLOSE:
        return Verdict(move=NextMove.NOTHING, why=f"{said}; it is left as it is")
    if ended.move is NextMove.LATER:
        changes = {"move": NextMove.HOLD, "why": f"{said}. {ended.why}", "end_reason": ""}
        return ended.model_copy(update=changes)
    return ended.model_copy(
        update={"kill": True, "end_reason": HUNG, "why": f"{said}; it is ended. {ended.why}"}
    )
