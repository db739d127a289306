"""Why each VM of a dead host comes back or stays down, and why it starts where it does."""

from domain.explain import Explanation, Question, Rejected, Rule
from domain.placement import Guest, Placed, Told
from domain.recovery import Fate

REJECTED_MAX = 12
"""How many rejected alternatives one decision keeps; the others are counted. Higher: a cluster of
1,000 hosts fills the database with hosts that had no room."""

RESTART, LEAVE = "restart", "leave down"

FATES = {
    Fate.NOT_WANTED: (Rule.NOT_WANTED, "it was wanted down when its host died"),
    Fate.STOP_ASKED: (Rule.STOP_ASKED, "its stop had been asked for and was under way"),
    Fate.NOT_PROTECTED: (Rule.NOT_PROTECTED, "it is not protected: only a person starts it again"),
    Fate.RESTART: (Rule.WANTED_AND_PROTECTED, "it ran, it is wanted and it is protected"),
}
"""The rule of each fate, and its reason."""


def explain_fate(
    guest: Guest, fate: Fate, run_state: str, turn: int, turns: int, after: tuple[str, ...]
) -> Explanation:
    """Why a VM is started elsewhere, or why not.

    turn    its place in the order of starts, from 1, of `turns`; 0 for one that stays down
    after   the VMs that have to be ready before it starts
    """
    rule, why = FATES[fate]
    back = fate is Fate.RESTART
    waits = f"; it starts once {', '.join(after)} is ready" if after else ""
    return Explanation(
        question=Question.VM_FATE,
        chosen=RESTART if back else LEAVE,
        rule=rule,
        why=f"{why}{waits}",
        inputs={
            "run_state": run_state,
            "protected": guest.protected,
            "priority": guest.priority,
            "turn": turn,
            "turns": turns,
            "starts_after": list(after),
        },
    )


def explain_place(told: Told) -> Explanation:
    """Why a VM got this host, or none."""
    guest, choice = told.guest, told.choice
    kept = told.passed_over[:REJECTED_MAX]
    return Explanation(
        question=Question.VM_PLACE,
        chosen=told.host or "none",
        rule=Rule.BEST_HOST if told.host else Rule.NO_HOST,
        why=_why_there(told) if isinstance(choice, Placed) else choice.detail,
        inputs={
            "memory_mib": guest.memory_mib,
            "protected": guest.protected,
            "priority": guest.priority,
            "free_mib": told.free_mib,
            "hosts": len(told.passed_over) + (told.host is not None),
        },
        rejected=tuple(Rejected(option=one.name, why=one.why) for one in kept),
        rejected_more=len(told.passed_over) - len(kept),
    )


def _why_there(told: Told) -> str:
    assert isinstance(told.choice, Placed)
    gave_way = told.choice.gave_way
    though = f"; these soft rules gave way: {', '.join(gave_way)}" if gave_way else ""
    return (
        f"{told.free_mib} MiB were free for the {told.guest.memory_mib} it needs, and no host that "
        f"its rules allow was better{though}"
    )
