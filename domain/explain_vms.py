"""Why each VM of a dead host comes back or stays down, and why it starts where it does."""

from domain.explain import Explanation, Question, Rejected, Rule
from domain.inventory import RunState
from domain.make_room import NobodyToStop, RoomMade
from domain.placement import Guest, NoRoom, PassedOver, Placed, Told
from domain.recovery import Fate

REJECTED_MAX = 12
"""How many rejected alternatives one decision keeps; the others are counted. Higher: a cluster of
1,000 hosts fills the database with hosts that had no room."""

RESTART, LEAVE = "restart", "leave down"

NAMED = "the operation names its host"

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


def explain_lost_on_the_way(guest: Guest, fate: Fate, source: str, target: str) -> Explanation:
    """The same of a VM that was being moved when one of the two hosts died, or both.

    It has no turn: its migration, not the recovery, starts it again.
    """
    told = explain_fate(guest, fate, RunState.MIGRATING.value, 0, 0, ())
    why = f"{told.why}; it was on its way from {source} to {target}"
    return told.model_copy(update={"why": why})


def explain_place(told: Told, *, named: bool = False) -> Explanation:
    """Why a VM got this host, or none; `named`: whoever asked left no other host."""
    guest, choice = told.guest, told.choice
    kept = told.passed_over[:REJECTED_MAX]
    others = (Rejected(option="any other host", why=NAMED),) if named else ()
    return Explanation(
        question=Question.VM_PLACE,
        chosen=told.host or "none",
        rule=_rule_of(told, named=named),
        why=_why_there(told, named=named) if isinstance(choice, Placed) else choice.detail,
        inputs={
            "memory_mib": guest.memory_mib,
            "vcpus": guest.vcpus,
            "protected": guest.protected,
            "priority": guest.priority,
            "free_mib": told.free_mib,
            "free_vcpus": told.free_vcpus,
            "hosts": len(told.passed_over) + (told.host is not None),
        },
        rejected=(*(Rejected(option=one.name, why=one.why) for one in kept), *others),
        rejected_more=len(told.passed_over) - len(kept),
    )


def explain_target(
    told: Told, source: str, apart: tuple[PassedOver, ...], *, named: bool
) -> Explanation:
    """Why a running VM moves to this host, or to none; `apart`: hosts that none may move to now."""
    whole = told.model_copy(update={"passed_over": (*apart, *told.passed_over)})
    place = explain_place(whole, named=named)
    changes = {"question": Question.VM_TARGET, "inputs": place.inputs | {"from": source}}
    if apart and not named:
        changes["why"] = f"{place.why}; {', '.join(one.name for one in apart)} may take none now"
    return place.model_copy(update=changes)


def _rule_of(told: Told, *, named: bool) -> Rule:
    if isinstance(told.choice, NoRoom) and told.choice.shown_on:
        return Rule.RUNS_ELSEWHERE
    if isinstance(told.choice, NoRoom) and told.choice.after:
        return Rule.WAITS_FOR_OTHERS
    if told.host is None:
        return Rule.NO_HOST
    return Rule.HOST_NAMED if named else Rule.BEST_HOST


def explain_room(guest: Guest, found: RoomMade | NobodyToStop, most: int) -> Explanation:
    """Why these VMs are stopped for one that has no place, or none; at most `most` were allowed."""
    kept: tuple[PassedOver, ...] = found.passed_over[:REJECTED_MAX]
    return Explanation(
        question=Question.MAKE_ROOM,
        chosen=f"stop {found.names} on {found.host}"[:255]
        if isinstance(found, RoomMade)
        else "nobody",
        rule=Rule.LEAST_LOSS if isinstance(found, RoomMade) else Rule.NOBODY_TO_STOP,
        why=_why_stopped(guest, found) if isinstance(found, RoomMade) else found.detail,
        inputs={
            "memory_mib": guest.memory_mib,
            "vcpus": guest.vcpus,
            "priority": guest.priority,
            "may_be_stopped_at_most": most,
            "stopped": [
                {
                    "name": one.name,
                    "priority": one.priority,
                    "protected": one.protected,
                    "memory_mib": one.memory_mib,
                    "vcpus": one.vcpus,
                }
                for one in (found.stop if isinstance(found, RoomMade) else ())
            ],
        },
        rejected=tuple(Rejected(option=one.name, why=one.why) for one in kept),
        rejected_more=len(found.passed_over) - len(kept),
    )


def _why_stopped(guest: Guest, found: RoomMade) -> str:
    highest = max(one.priority for one in found.stop)
    freed_mib = sum(one.memory_mib for one in found.stop)
    return (
        f"no host has room for {guest.name} (priority {guest.priority}); on {found.host} "
        f"{len(found.stop)} VMs of priority up to {highest} give {freed_mib} MiB, and start again "
        "once there is room"
    )


def _why_there(told: Told, *, named: bool) -> str:
    assert isinstance(told.choice, Placed)
    gave_way = told.choice.gave_way
    though = f"; these soft rules gave way: {', '.join(gave_way)}" if gave_way else ""
    home = "it is its home; " if told.choice.host_id == told.guest.home_id else ""
    vcpus = ""
    if told.free_vcpus is not None:
        vcpus = f" and {told.free_vcpus} vCPUs for {told.guest.vcpus}"
    best = NAMED if named else "no host that its rules allow was better"
    return (
        f"{home}{told.free_mib} MiB were free for the {told.guest.memory_mib} it needs{vcpus}, and "
        f"{best}{though}"
    )
