"""Draws one long run in which hosts are lost turn after turn, so that many recoveries fit into it.

A drawn seed of the patterns in `draw` brings a data centre up, loses about one host and settles all
of it: most of its time is not recovery. Here a person looks after the hosts, as operators do who
bring back what was lost, and the next one is lost while the last still starts its VMs, or later.
More goes wrong behind the events of every second recovery. Pure: the same seed, the same plan.
"""

from domain.profiles import Profile
from simulator.entropy import Entropy
from simulator.faults.dice import MOMENTS, Dice
from simulator.faults.draw import MACHINES
from simulator.faults.plan import Fault, Plan
from simulator.setup import FenceLimits, Setup

EVERY_S = (2.0, 7.0)
"""Seconds from one loss to the next. Higher: fewer recoveries a second of real time. Lower: more
than half of the hosts are away, and the engine rightly waits for a person."""

AWAY_S = (3.0, 12.0)
"""How long a host, or whatever else was broken, is away."""

CUT, CUT_S = 0.75, (5.0, 12.0)
"""How often the power is cut, and for how long: longer than it takes to see that."""

MORE = 0.5
"""How often more goes wrong behind an event of a recovery."""

ONLY_ONCE = ("upgrade", "hand.start", "machine.power_cut", "machine.freeze")
"""Kinds after which a run is not what it was: the newest release runs, a VM is nobody's promise, an
engine of one machine is away."""

MANY = FenceLimits(fences_max=12, fences_percent=100)

SETUPS = tuple(
    Setup.small(hosts=hosts, vms=vms, profile=profile).model_copy(update={"limits": MANY})
    for hosts, vms, profile in (
        (5, 9, Profile.FAST),
        (6, 12, Profile.FAST),
        (6, 12, Profile.BALANCED),
    )
)
"""What such seeds run on."""


def turns_setup(seed: int) -> Setup:
    """The setup that a seed draws."""
    return Entropy(seed).stream("setup").choice(SETUPS)


def turns_of(seed: int, setup: Setup, losses: int) -> Plan:
    """The plan of a seed in which `losses` hosts are lost."""
    rng = Entropy(seed).stream("turns")
    (number,) = rng.choices(tuple(MACHINES), weights=tuple(MACHINES.values()))
    dice = Dice(rng, setup, number)
    faults = [Fault(kind="person.looks_after", at_s=0.0)]
    at_s, spent = 0.0, set[str]()
    hosts: list[str] = []
    for _ in range(losses):
        hosts = hosts or rng.sample(dice.hosts, len(dice.hosts))
        faults.append(_lost(dice, hosts.pop(), at_s))
        if rng.random() < MORE and (more := _behind(dice, at_s)).kind not in spent:
            faults.append(more)
            spent |= {more.kind} & set(ONLY_ONCE)
        at_s += rng.uniform(*EVERY_S)
    return Plan(pattern="turns", faults=tuple(faults), lasts_s=round(at_s, 1), machines=number)


def _lost(dice: Dice, host: str, at_s: float) -> Fault:
    """A power cut that lasts, mostly; what else there is may heal before it is a failure."""
    if dice.rng.random() < CUT:
        lost, away_s = dice.power_cut(host), round(dice.rng.uniform(*CUT_S), 2)
        return lost.model_copy(update={"at_s": round(at_s, 2), "lasts_s": away_s})
    return _lasting(dice, dice.host_failure(host)).model_copy(update={"at_s": round(at_s, 2)})


def _behind(dice: Dice, since_s: float) -> Fault:
    changes = {
        "at_s": round(dice.rng.choice((0.0, dice.rng.uniform(0, 3))), 3),
        "after_event": dice.rng.choice(MOMENTS),
        "since_s": round(since_s, 2),
    }
    return _lasting(dice, dice.anything()).model_copy(update=changes)


def _lasting(dice: Dice, fault: Fault) -> Fault:
    """Nothing stays broken until the end: what comes later is to meet a world that works."""
    lasts_s = round(dice.rng.uniform(*AWAY_S), 2)
    if fault.lasts_s is not None and fault.lasts_s < lasts_s:
        return fault
    return fault.model_copy(update={"lasts_s": lasts_s})
