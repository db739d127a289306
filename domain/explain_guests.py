"""Why a VM whose guest ended, hangs or is paused is restarted, let go on, ended, or left."""

from collections.abc import Callable
from enum import StrEnum

from pydantic import JsonValue

from domain.ended_guests import RESTART_WINDOW, EndedGuest, NextMove, Verdict
from domain.explain import Explanation, Question, Rejected, Rule
from domain.inventory import OnHang, OnIoError
from domain.paused_guests import KILL_AFTER_S


class Trouble(StrEnum):
    """What was seen of the guest."""

    ENDED = "ended"
    PAUSED = "paused"
    HUNG = "hung"


RESTART, STAY_DOWN, WAIT = "restart", "leave down", "wait"
GO_ON, STAY_PAUSED, END = "let it go on", "leave it paused", "end it"
END_AND_RESTART, AS_IT_IS = "end and restart", "leave it as it is"

OPTIONS = {
    Trouble.ENDED: (RESTART, STAY_DOWN, WAIT),
    Trouble.PAUSED: (GO_ON, STAY_PAUSED, END, WAIT),
    Trouble.HUNG: (END_AND_RESTART, AS_IT_IS, WAIT),
}
"""What there is to choose from."""

RULES = {
    "DISARMED": Rule.DISARMED,
    "RESTARTS_SPENT": Rule.RESTARTS_SPENT,
    "GUEST_PAUSED": Rule.PAUSE_LOSES_NOTHING,
    "GUEST_ELSEWHERE": Rule.MAY_LIVE_ELSEWHERE,
    "GUEST_MIGRATED": Rule.MAY_LIVE_ELSEWHERE,
    "GUEST_SAVED": Rule.MAY_LIVE_ELSEWHERE,
}
"""The rule of each reason for which something waits."""


NO_WAIT = {
    NextMove.RESTART: "no host shows a copy of it, and its limits allow another try",
    NextMove.RESUME: "its disk may answer already, and a try that fails loses nothing",
    NextMove.LATER: "it is ended first, and starts again once its limits allow",
}
"""What speaks against waiting, where something is done."""


def explain_verdict(
    facts: EndedGuest, verdict: Verdict, trouble: Trouble, paused_s: float = 0.0
) -> Explanation:
    """Why this was decided and nothing else; `paused_s` as far as it was seen paused."""
    chosen = _chosen(verdict, trouble)
    others = (option for option in OPTIONS[trouble] if option != chosen)
    inputs = _inputs(facts, trouble) | {"paused_s": round(paused_s, 1)}
    return Explanation(
        question=Question.GUEST_FATE,
        chosen=chosen,
        rule=_rule(facts, verdict),
        why=verdict.why,
        inputs=inputs,
        rejected=tuple(
            Rejected(option=option, why=WHY_NOT[option](facts, verdict, paused_s))
            for option in others
        ),
    )


def explain_alive(verdict: Verdict) -> Explanation:
    """Why nothing is done about a guest that was found at work when it was looked at."""
    return Explanation(
        question=Question.GUEST_FATE,
        chosen=AS_IT_IS,
        rule=Rule.GUEST_RUNS,
        why=verdict.why,
        inputs={},
        rejected=(Rejected(option=RESTART, why="what runs is not started a second time"),),
    )


def _chosen(verdict: Verdict, trouble: Trouble) -> str:
    if verdict.kill:
        return END_AND_RESTART if trouble is Trouble.HUNG else END
    return {
        NextMove.NOTHING: AS_IT_IS,
        NextMove.HOLD: WAIT,
        NextMove.LATER: WAIT,
        NextMove.CLOSE: STAY_DOWN,
        NextMove.RESTART: RESTART,
        NextMove.RESUME: GO_ON,
        NextMove.LEAVE: STAY_PAUSED,
    }[verdict.move]


def _rule(facts: EndedGuest, verdict: Verdict) -> Rule:
    if verdict.code:
        return RULES[verdict.code]
    if verdict.kill or verdict.unwanted or verdict.move is NextMove.LEAVE:
        return Rule.VM_POLICY
    if verdict.move is NextMove.RESTART:
        return Rule.WANTED_AND_PROTECTED
    if verdict.move is NextMove.NOTHING and facts.on_hang is not OnHang.RESTART:
        return Rule.VM_POLICY
    return Rule.NOT_PROTECTED if facts.wanted else Rule.NOT_WANTED


def _inputs(facts: EndedGuest, trouble: Trouble) -> dict[str, JsonValue]:
    return {
        "guest": trouble.value,
        "host": facts.host_name,
        "reason": None if facts.reason is None else facts.reason.value,
        "wanted": facts.wanted,
        "protected": facts.protected,
        "on_guest_shutdown": facts.on_guest_shutdown.value,
        "on_io_error": facts.on_io_error.value,
        "on_hang": facts.on_hang.value,
        "armed": facts.armed,
        "shown_on": list(facts.elsewhere),
        "hosts": len(facts.hosts),
        "restarts": len(facts.past),
        "restarts_there": _here(facts),
        "max_restart": facts.max_restart,
        "max_relocate": facts.max_relocate,
        "window_s": RESTART_WINDOW.total_seconds(),
    }


def _here(facts: EndedGuest) -> int:
    return sum(end.host_id == facts.host_id for end in facts.past)


def _waits_for(verdict: Verdict) -> str | None:
    """What everything but waiting has against it, or None."""
    return {
        Rule.DISARMED: "automatic action is switched off in its cluster",
        Rule.MAY_LIVE_ELSEWHERE: "its guest may live on: a second copy would destroy its disk",
        Rule.RESTARTS_SPENT: "it has failed as often as its limits allow, on every host left",
    }.get(RULES.get(verdict.code, Rule.VM_POLICY))


def _not_wanted_back(facts: EndedGuest, verdict: Verdict) -> str:
    if not facts.wanted:
        return "its end was wanted"
    if verdict.unwanted:
        return f"it was shut down from inside: on_guest_shutdown is {facts.on_guest_shutdown}"
    return "it is not protected: only a person starts it again"


def _no_restart(facts: EndedGuest, verdict: Verdict, _paused_s: float) -> str:
    return _waits_for(verdict) or _not_wanted_back(facts, verdict)


def _not_down(facts: EndedGuest, verdict: Verdict, _paused_s: float) -> str:
    if verdict.move is NextMove.HOLD:
        return "nothing is closed on what may live on, or while nothing may be done"
    return "it is wanted and protected"


def _no_wait(facts: EndedGuest, verdict: Verdict, _paused_s: float) -> str:
    return NO_WAIT.get(verdict.move, "there is nothing that time would change")


def _not_let_go_on(facts: EndedGuest, verdict: Verdict, paused_s: float) -> str:
    if verdict.kill:
        return f"it has been paused for {paused_s:.0f} s, and may be for {KILL_AFTER_S:.0f}"
    if verdict.move is NextMove.LEAVE:
        return f"on_io_error is {facts.on_io_error}: a person sees to it"
    return "automatic action is switched off in its cluster"


def _not_left_paused(facts: EndedGuest, verdict: Verdict, _paused_s: float) -> str:
    if verdict.code == "DISARMED":
        return "it is seen to once its cluster is armed"
    return f"on_io_error is {facts.on_io_error}"


def _not_ended(facts: EndedGuest, verdict: Verdict, paused_s: float) -> str:
    if verdict.code == "DISARMED":
        return "automatic action is switched off in its cluster"
    if facts.on_io_error is not OnIoError.KILL:
        return f"on_io_error is {facts.on_io_error}"
    if paused_s < KILL_AFTER_S:
        return f"it has been paused for {paused_s:.0f} s, and is ended after {KILL_AFTER_S:.0f}"
    return "a copy of it may live elsewhere, so it could not be started again"


def _not_ended_for_hanging(facts: EndedGuest, verdict: Verdict, _paused_s: float) -> str:
    if held := _waits_for(verdict):
        return held
    if facts.on_hang is not OnHang.RESTART:
        return f"on_hang is {facts.on_hang}"
    return _not_wanted_back(facts, verdict)


def _not_left_as_it_is(facts: EndedGuest, verdict: Verdict, _paused_s: float) -> str:
    if verdict.move is NextMove.HOLD:
        return "it is looked at again: what is waited for may pass"
    return f"it is wanted and protected, and on_hang is {facts.on_hang}"


WHY_NOT: dict[str, Callable[[EndedGuest, Verdict, float], str]] = {
    RESTART: _no_restart,
    STAY_DOWN: _not_down,
    WAIT: _no_wait,
    GO_ON: _not_let_go_on,
    STAY_PAUSED: _not_left_paused,
    END: _not_ended,
    END_AND_RESTART: _not_ended_for_hanging,
    AS_IT_IS: _not_left_as_it_is,
}
"""Why not each option."""
