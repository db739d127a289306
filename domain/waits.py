"""What a person can do about an operation that waits, by the code of its reason.

All of them go on by themselves once what they wait for has changed; this says how to bring that
about. The reason itself, with its numbers, is told by whoever waits.
"""

from domain.start_turns import STARTS_AT_LIMIT
from domain.storm import APPROVABLE, HoldReason

GIVE_UP = "`holdfast op cancel {id}` gives it up"
LOOK = "look at the machine; once it is off, `holdfast host confirm-dead {target} --seen TEXT`"
ALIVE = "look at that host: once it answers, or is proven dead, this goes on"
ADVICE = "check its devices with `holdfast fence test {target}`; "
LIES = ADVICE + "a device that reads off may be another machine's"

STEPS = {
    "NO_ROOM": f"bring about what it waits for, such as a host more or a VM less; {GIVE_UP}",
    STARTS_AT_LIMIT: "nothing: it starts once its turn has come; "
    "`holdfast cluster edit NAME --starts-per-host N` lets more start at once",
    "START_FAILED": f"see the failed step below and the host's log; {GIVE_UP}",
    "START_NOT_UNDONE": ALIVE,
    "DEPENDENCY": "see what keeps that VM down; once it is back, or is not wanted, this goes on",
    "VMS_CANNOT_MOVE": f"stop those VMs, or make room on other hosts; {GIVE_UP}",
    "VMS_START": "see the starts below, and what each of them waits for",
    "HOST_NOT_PROVEN_DEAD": ALIVE,
    "MIGRATION_DOUBLED": "look at both hosts at once: only one of the two copies may go on",
    "GUEST_ELSEWHERE": "end the copy that is shown there, or adopt it once this has ended",
    "GUEST_MIGRATED": "find its new host: `holdfast vm adopt-copy {target} --host HOST`",
    "GUEST_SAVED": "restore it with libvirt's own tools, or start it afresh once this has ended",
    "RESTARTS_SPENT": f"see why it ends again and again; {GIVE_UP}",
    HoldReason.DISARMED: "`holdfast cluster arm NAME` lets it go on",
    HoldReason.OWN_HOST: "see why its libvirtd does not answer; `holdfast host edit {target} "
    "--not-own-host` if the engine runs there no more",
    HoldReason.NO_FENCE_DEVICE: f"{LOOK}; or give it a device (`holdfast fence add --help`)",
    HoldReason.PROOFS_MISSING: f"{LOOK}; or give it another device (`holdfast fence add --help`)",
    HoldReason.VOTES_DISAGREE: "look at the network between the host and the monitors named",
    HoldReason.SILENT_TOO_SHORT: "nothing: it is judged again once it has been silent for longer",
    HoldReason.VOTES_MISSING: "check that those monitors run and reach the database",
    "POWER_NOT_PROVEN_OFF": ADVICE + LOOK,
    "FENCE_AGENT_FAILED": ADVICE + LOOK,
    "FENCE_AGENT_SILENT": ADVICE + LOOK,
    "KNOCK_NOT_POSSIBLE": "see why the engine's machine reaches no network",
    "SIGN_OF_LIFE": LIES,
    "CERTIFICATE_VOID": LIES,
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
