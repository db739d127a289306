"""Why a decision came out as it did: its rule, what it rested on, and why nothing else was chosen.

Pure, and apart from the deciding itself: an explanation is made from the same facts and the choice,
so that it can be tested against the rules, and a defect here can at worst word something badly.
"""

from collections.abc import Callable
from enum import StrEnum

from pydantic import JsonValue

from domain.base import Frozen
from domain.grades import Grade, weakest
from domain.inventory import PowerReading
from domain.orders import Evidence
from domain.profiles import Policy
from domain.recovery import Decision, Move, RecoveryFacts
from domain.storm import EVEN_WHEN_OFF, why_held
from domain.topology import proven_level


class Question(StrEnum):
    """What was decided."""

    HOST_FATE = "host_fate"  # is it dead, and what follows
    HOST_PROOF = "host_proof"  # what its death certificate rests on
    VM_FATE = "vm_fate"  # does it come back
    GUEST_FATE = "guest_fate"  # what becomes of a VM whose guest ended, hangs or is paused
    VM_PLACE = "vm_place"  # where does it start
    VM_TARGET = "vm_target"  # where does it move to
    MAKE_ROOM = "make_room"  # who is stopped so that it can


class Rule(StrEnum):
    """The rule that made the choice; the first that applies, in this order, for a host."""

    LIFE_WINS = "LIFE_WINS"  # a host that answers is not moved, whatever else is said of it
    PROOF_NEEDS_NO_CUT = "PROOF_NEEDS_NO_CUT"  # power that reads off is proof enough
    WORD_OF_A_PERSON = "WORD_OF_A_PERSON"  # somebody looked, and no channel contradicts
    GUARD_HOLDS = "GUARD_HOLDS"  # the storm guard has a reason to wait
    SILENT_AND_ALLOWED = "SILENT_AND_ALLOWED"  # nothing speaks against cutting its power
    EVERY_PROOF_AGREES = "EVERY_PROOF_AGREES"  # read off as often as wanted, and on by none
    WATCHDOG_HAS_FIRED = "WATCHDOG_HAS_FIRED"  # its storage lease ran out, its watchdog after it
    WANTED_AND_PROTECTED = "WANTED_AND_PROTECTED"  # what ran and is protected comes back
    NOT_WANTED = "NOT_WANTED"  # what somebody wanted down stays down
    STOP_ASKED = "STOP_ASKED"  # a stop that was under way is done
    NOT_PROTECTED = "NOT_PROTECTED"  # nobody asked for it to be brought back
    GUEST_RUNS = "GUEST_RUNS"  # it was found at work when it was looked at
    DISARMED = "DISARMED"  # automatic action is switched off
    MAY_LIVE_ELSEWHERE = "MAY_LIVE_ELSEWHERE"  # moved, saved or started by hand
    RESTARTS_SPENT = "RESTARTS_SPENT"  # it has failed as often as its limits allow
    PAUSE_LOSES_NOTHING = "PAUSE_LOSES_NOTHING"  # it goes on where it stood
    VM_POLICY = "VM_POLICY"  # what its VM says of guests that end, hang or are paused
    BEST_HOST = "BEST_HOST"  # of those that hard rules and room allow
    HOST_NAMED = "HOST_NAMED"  # the operation leaves no choice, and the named one has room
    NO_HOST = "NO_HOST"  # hard rules and memory leave none
    RUNS_ELSEWHERE = "RUNS_ELSEWHERE"  # a host shows it already
    WAITS_FOR_OTHERS = "WAITS_FOR_OTHERS"  # what it depends on comes back first, and needs room
    LEAST_LOSS = "LEAST_LOSS"  # the least important VMs whose end makes room on one host
    NOBODY_TO_STOP = "NOBODY_TO_STOP"  # no host would have room without those that may be


RULES = {
    Move.RETURN: Rule.LIFE_WINS,
    Move.ACCEPT: Rule.PROOF_NEEDS_NO_CUT,
    Move.CONFIRMED: Rule.WORD_OF_A_PERSON,
    Move.HOLD: Rule.GUARD_HOLDS,
    Move.FENCE: Rule.SILENT_AND_ALLOWED,
}


PROOF_RULES: dict[Grade | None, Rule] = {
    Grade.POWER_READ_OFF: Rule.EVERY_PROOF_AGREES,
    Grade.LEASE_EXPIRED: Rule.WATCHDOG_HAS_FIRED,
    Grade.WORD: Rule.WORD_OF_A_PERSON,
}


class Rejected(Frozen):
    """One alternative that was not chosen."""

    option: str
    why: str


class Explanation(Frozen):
    """One decision, as a person reads it afterwards."""

    question: Question
    chosen: str
    rule: Rule
    why: str
    inputs: dict[str, JsonValue]
    rejected: tuple[Rejected, ...] = ()
    rejected_more: int = 0  # alternatives beyond those that are kept


def explain_move(facts: RecoveryFacts, decision: Decision, policy: Policy) -> Explanation:
    """Why a recovery made this move and none of the others."""
    others = (move for move in WHY_NOT if move is not decision.move)
    return Explanation(
        question=Question.HOST_FATE,
        chosen=decision.move,
        rule=RULES[decision.move],
        why=decision.why,
        inputs=_inputs(facts, policy) | _codes(decision),
        rejected=tuple(
            Rejected(option=move, why=WHY_NOT[move](facts, decision, policy)) for move in others
        ),
    )


def explain_proof(host: str, evidence: tuple[Evidence, ...], number: int, why: str) -> Explanation:
    """Why a host's death certificate was issued: what each channel said, and when."""
    grade = weakest(fact.grade for fact in evidence)
    return Explanation(
        question=Question.HOST_PROOF,
        chosen="dead",
        rule=PROOF_RULES.get(grade, Rule.EVERY_PROOF_AGREES),
        why=why,
        inputs={
            "certificate": number,
            "grade": grade.told if grade else None,
            "evidence": [
                {"device": fact.device, "verdict": fact.verdict, "took_s": fact.took_s}
                for fact in evidence
            ],
        },
        rejected=(Rejected(option="wait", why=f"no monitor heard {host} since it was judged"),),
    )


def _codes(decision: Decision) -> dict[str, JsonValue]:
    """The codes of what is waited for, so that waits can be counted by them."""
    return {"held": [held.reason for held in decision.held]} if decision.held else {}


def _inputs(facts: RecoveryFacts, policy: Policy) -> dict[str, JsonValue]:
    guard = facts.fence
    return {
        "profile": policy.profile,
        "votes": [vote.model_dump(mode="json") for vote in guard.votes],
        "readings": [{"level": level, "verdict": word} for level, word in facts.readings],
        "proofs_required": policy.timing.proofs_required,
        "confirmed_by": facts.confirmation.device if facts.confirmation else None,
        "approved_by": guard.approval.by if guard.approval else None,
        "armed": guard.armed,
        "own_host": guard.own_host,
        "hosts_silent": guard.hosts_silent,
        "hosts": guard.hosts,
        "budgets": [
            budget.model_dump(mode="json") | {"limit": budget.limit} for budget in guard.budgets
        ],
        "silent_domain": guard.domain.told() if guard.domain else None,
    }


def _not_returned(facts: RecoveryFacts, _decision: Decision, _policy: Policy) -> str:
    fresh = [vote for vote in facts.fence.votes if vote.fresh]
    if hearing := sorted(vote.monitor for vote in fresh if vote.hears):
        return f"it answers {', '.join(hearing)}, and not those that watch it beside them"
    return f"none of {len(fresh)} fresh votes has heard {facts.host} since it was reported"


def _not_accepted(facts: RecoveryFacts, decision: Decision, policy: Policy) -> str:
    if decision.move is Move.RETURN:
        return f"{facts.host} answers, and whoever answers is alive whatever its power reads"
    words = [word for _level, word in facts.readings]
    if not words:
        return f"{facts.host} has no fence device that could be asked"
    counts = ", ".join(f"{words.count(word)} {word}" for word in PowerReading if word in words)
    if proven_level(facts.readings, policy.timing.proofs_required) is not None:
        return f"its devices read off ({counts}), but {decision.why}"
    wanted = policy.timing.proofs_required
    return f"its devices read {counts}; a proof is a whole level of off, {wanted} in all, and no on"


def _not_confirmed(facts: RecoveryFacts, decision: Decision, _policy: Policy) -> str:
    if facts.confirmation is None:
        return "nobody has confirmed that it is dead"
    if decision.move is Move.ACCEPT:
        return "its power reads off, which needs nobody's word"
    if PowerReading.ON in [word for _level, word in facts.readings]:
        return f"{facts.confirmation.device} says that it is dead, but a device reads on"
    return f"{facts.confirmation.device} says that it is dead, but {decision.why}"


def _not_fenced(facts: RecoveryFacts, decision: Decision, policy: Policy) -> str:
    if decision.move is Move.RETURN:
        return "nobody cuts the power of a host that answers"
    if decision.move in (Move.ACCEPT, Move.CONFIRMED):
        return "it is proven dead without a cut"
    return "; ".join(held.detail for held in why_held(facts.fence, policy))


def _not_held(facts: RecoveryFacts, decision: Decision, policy: Policy) -> str:
    if decision.move is Move.RETURN:
        return "there is nothing to wait for: it is back"
    held = why_held(facts.fence, policy)
    if decision.move is Move.FENCE or not held:
        return _no_reason_to_wait(facts, policy)
    waived = ", ".join(one.reason for one in held if one.reason not in EVEN_WHEN_OFF)
    return f"{waived} hold a cut of power, not a proven death"


def _no_reason_to_wait(facts: RecoveryFacts, policy: Policy) -> str:
    leave = facts.fence.approval
    alone = facts.fence.model_copy(update={"approval": None})
    if leave is None or not (overruled := why_held(alone, policy)):
        return "the storm guard has no reason to wait"
    return f"{leave.by} overrules the storm guard: {'; '.join(one.detail for one in overruled)}"


WHY_NOT: dict[Move, Callable[[RecoveryFacts, Decision, Policy], str]] = {
    Move.RETURN: _not_returned,
    Move.ACCEPT: _not_accepted,
    Move.CONFIRMED: _not_confirmed,
    Move.HOLD: _not_held,
    Move.FENCE: _not_fenced,
}
"""Why not each move, in the order in which they are weighed."""
