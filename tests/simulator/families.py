"""What seeds run on that have to find a planted bug.

Each family aims at the one situation that its bug needs: random plans come to most of these, too,
but to some of them only once in thousands of seeds. What aims is the plan alone; when exactly each
fault comes, and everything else of a run, is drawn from the seed.
"""

from random import Random
from typing import Any

from domain.profiles import Profile
from simulator.faults.machines import Way
from simulator.faults.plan import Fault, Plan, Value
from simulator.setup import HostSetup, Setup, VmSetup
from simulator.stage import TEMPORAL

WORKER = "worker@engine-1"
FAST = Setup.small(profile=Profile.FAST)
WIDE = Setup.small(hosts=5, vms=2, profile=Profile.FAST)
ALONE = Setup.small(hosts=1, vms=1)
ROOM = Setup(
    hosts=tuple(HostSetup(name=name) for name in ("h1", "h2", "h3")),
    vms=(VmSetup(name="vm1"), *(VmSetup(name=f"on-{name}", host=name) for name in ("h1", "h3"))),
    profile=Profile.FAST,
)
"""A start of vm1 goes to h2, which is empty."""


def fault(kind: str, at_s: float, subject: str = "h1", **more: Any) -> Fault:
    return Fault(kind=kind, at_s=round(at_s, 3), subject=subject, **more)


def cut_off(host: str, at_s: float, lasts_s: float | None = None) -> Fault:
    args = {"net": "management", "way": "both"}
    return fault("link.cut", at_s, host, lasts_s=lasts_s, args=args)


def plan(name: str, *faults: Fault, lasts_s: float = 20.0, machines: int = 1) -> Plan:
    return Plan(pattern=name, faults=faults, lasts_s=lasts_s, machines=machines)


def isolated(seed: int) -> tuple[Setup, Plan]:
    """A host is cut off and fenced."""
    rng = Random(seed)
    return FAST, plan("isolated", cut_off("h1", rng.uniform(0.5, 3)))


OUTLETS = Setup(
    hosts=(HostSetup(name="h1", outlets=2), HostSetup(name="h2"), HostSetup(name="h3")),
    vms=tuple(VmSetup(name=f"vm{number}", host=f"h{number}") for number in (1, 2, 3)),
    profile=Profile.FAST,
)


def one_outlet(seed: int) -> tuple[Setup, Plan]:
    """A host whose BMC is dead is cut off, and for a while one of its two outlets takes nothing."""
    rng = Random(seed)
    faults = (
        fault("bmc.dead", 0.1, args={"device": "bmc-h1"}),
        fault("bmc.dead", 0.2, lasts_s=rng.uniform(100, 120), args={"device": "pdu-h1-2"}),
        cut_off("h1", rng.uniform(0.5, 3)),
    )
    return OUTLETS, plan("one outlet", *faults, lasts_s=130)


def power_cut(seed: int) -> tuple[Setup, Plan]:
    """A host loses its power and is activated again."""
    rng = Random(seed)
    faults = (
        fault("host.power_cut", 1, lasts_s=rng.uniform(8, 12)),
        fault("person.activate", rng.uniform(14, 18)),
    )
    return FAST, plan("power cut", *faults, lasts_s=25)


def reported_twice(seed: int) -> tuple[Setup, Plan]:
    """A host loses its power, and another monitor reports it, too."""
    rng = Random(seed)
    again = fault(
        "monitor.late_report",
        rng.uniform(0, 0.3),
        after_event="incident.opened",
        args={"epochs_ago": 0, "times": 1},
    )
    return FAST, plan("reported twice", fault("host.power_cut", 1), again)


def rebooted(seed: int) -> tuple[Setup, Plan]:
    """A host reboots so fast that nobody takes it for dead."""
    rng = Random(seed)
    faults = (fault("host.reboot", rng.uniform(1, 3), args={"boot_s": rng.uniform(0, 1)}),)
    return Setup.small(hosts=2, vms=2), plan("rebooted", *faults, lasts_s=15)


def moved_while_cut_off(seed: int) -> tuple[Setup, Plan]:
    """A VM is moved, and its source is cut off on the way for less than a fence takes."""
    rng = Random(seed)
    faults = (
        fault("person.migrate_vm", rng.uniform(1, 2), "vm1"),
        cut_off("h1", rng.uniform(0, 0.3), rng.uniform(70, 90)).model_copy(
            update={"after_event": "guest.leaving"}
        ),
    )
    return Setup.small(profile=Profile.CAREFUL), plan("moved while cut off", *faults, lasts_s=99)


def voided(seed: int) -> tuple[Setup, Plan]:
    """A controller lies, and the host is heard again before its VMs are started elsewhere."""
    rng = Random(seed)
    faults = (
        fault("bmc.lying", 0.5),
        cut_off("h1", 1, lasts_s=rng.uniform(4, 9)),
        fault("process.freeze", 0, WORKER, after_event="run.placed", lasts_s=12),
    )
    return FAST, plan("voided", *faults, lasts_s=25)


def unheard(seed: int) -> tuple[Setup, Plan]:
    """A host is cut off, and right after its report the monitor stands still."""
    rng = Random(seed)
    faults = (
        cut_off("h1", rng.uniform(0.5, 2)),
        fault("process.freeze", 0, "monitor@engine-1", after_event="incident.opened", lasts_s=20),
    )
    return FAST, plan("unheard", *faults, lasts_s=30)


def late_cut(seed: int) -> tuple[Setup, Plan]:
    """The process that cuts power stands still while the host comes back."""
    rng = Random(seed)
    faults = (
        cut_off("h1", 1, lasts_s=rng.uniform(10, 12)),
        fault(
            "process.freeze",
            rng.uniform(0, 0.05),
            "fencing@engine-1",
            after_event="step.started:fencing.power_off",
            lasts_s=9,
        ),
    )
    return FAST, plan("late cut", *faults, lasts_s=25)


def disarmed(seed: int) -> tuple[Setup, Plan]:
    """A person disarms the cluster between the decision to fence and the fence."""
    rng = Random(seed)
    moment = "step.started:fencing.power_off"
    disarm = fault("person.disarm", rng.uniform(0, 0.05), "", after_event=moment)
    return FAST, plan("disarmed", cut_off("h1", 1), disarm)


def two_isolated(seed: int) -> tuple[Setup, Plan]:
    """One host is cut off, and another one a while later."""
    rng = Random(seed)
    faults = (cut_off("h1", 1), cut_off("h2", rng.uniform(11, 14)))
    return WIDE, plan("two isolated", *faults, lasts_s=28)


def lost_answer(seed: int) -> tuple[Setup, Plan]:
    """A VM is placed, and the worker dies before it has said so."""
    rng = Random(seed)
    faults = (
        fault("person.start_vm", rng.uniform(0.5, 2), "vm1"),
        fault("process.kill", 0, WORKER, after_event="run.placed"),
    )
    return ROOM, plan("lost answer", *faults, lasts_s=15)


def late_create(seed: int) -> tuple[Setup, Plan]:
    """A host loses its power before `create()` has reached it, and is back before that fails.

    The worker that waits for the answer does not hear of Temporal any more that its step is over;
    the engine's other machine recovers meanwhile.
    """
    rng = Random(seed)
    moment, lasts_s = "run.starting", rng.uniform(20, 40)
    ends: dict[str, Value] = {"net": "management", "other": TEMPORAL}
    faults = (
        fault("person.start_vm", 0.5, "vm1"),
        fault("link.cut", 0, "engine-1", after_event=moment, lasts_s=70, args=ends),
        fault("host.power_cut", 0, "h2", after_event=moment, lasts_s=lasts_s),
    )
    return ROOM, plan("late create", *faults, lasts_s=75, machines=2)


def late_destroy(seed: int) -> tuple[Setup, Plan]:
    """A slow host destroys a copy long after it was told to; the VM was started anew meanwhile."""
    rng = Random(seed)
    faults = (
        fault("host.slow", 0.9, lasts_s=rng.uniform(6, 9), args={"times": 100}),
        fault("person.stop_vm", 1, "vm1", args={"force": True}),
        fault("person.start_vm", rng.uniform(18, 22), "vm1"),
    )
    return ALONE, plan("late destroy", *faults, lasts_s=60)


def upgraded(seed: int) -> tuple[Setup, Plan]:
    """The engine is upgraded while a VM of a host that is gone is being started elsewhere."""
    rng = Random(seed)
    way: dict[str, Value] = {"way": Way.DRAINED.value, "step_s": 1.0}
    faults = (
        fault("host.power_cut", rng.uniform(0.5, 2)),
        fault("upgrade", rng.uniform(0, 0.1), "engine-1", after_event="run.starting", args=way),
    )
    return FAST, plan("upgraded", *faults, lasts_s=25)
