"""What a person can do about an operation that waits, by the code of its reason.

All of them go on by themselves once what they wait for has changed; this says how to bring that
about. The reason itself, with its numbers, is told by whoever waits.
"""

from domain.storm import APPROVABLE, HoldReason

GIVE_UP = "`holdfast op cancel {id}` gives it up"
LOOK = "look at the machine; `holdfast host confirm-dead {target}` once it is dead for certain"

STEPS = {
    "NO_ROOM": f"activate a host, stop or move a VM, or lower what it asks for; {GIVE_UP}",
    "START_FAILED": f"see the failed step below and the host's log; {GIVE_UP}",
    "START_NOT_UNDONE": "look at that host: once it answers, or is proven dead, this goes on",
    "VMS_CANNOT_MOVE": f"stop those VMs, or make room on other hosts; {GIVE_UP}",
    "VMS_START": "see the starts below, and what each of them waits for",
    "HOST_NOT_PROVEN_DEAD": "look at that host: once it answers, or is proven dead, this goes on",
    "GUEST_ELSEWHERE": "`holdfast vm adopt-copy {target} --host HOST`, or end the copy there",
    HoldReason.DISARMED: "`holdfast cluster arm NAME` lets it go on",
    HoldReason.OWN_HOST: LOOK,
    HoldReason.NO_FENCE_DEVICE: f"{LOOK}; `holdfast fence add` gives it a device",
    HoldReason.PROOFS_MISSING: f"{LOOK}; `holdfast fence add` gives it another device",
    HoldReason.VOTES_DISAGREE: "look at the network between the host and the monitors named",
    HoldReason.VOTES_MISSING: "check that those monitors run and reach the database",
    "POWER_NOT_PROVEN_OFF": f"check its devices with `holdfast fence test {{target}}`; {LOOK}",
    "LOCK_HELD": "see what blocks it; `holdfast op prioritise {id} 2` lets it go first",
    "PAUSED": "`holdfast op resume {id}`",
} | {
    reason: "`holdfast approval give {target} --why TEXT` if it is really down; else wait"
    for reason in APPROVABLE
}


def next_step(code: str | None, target: str, operation_id: object) -> str | None:
    """A sentence for a person; None where there is nothing to do but wait, or nothing is known."""
    found = None if code is None else STEPS.get(code)
    return None if found is None else found.format(target=target, id=operation_id)
