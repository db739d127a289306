"""Draws a plan from a seed: a pattern first, then its faults. Pure: the same seed, the same plan.

single      one fault of the world
mixed       several faults at any time, of the world, the engine and its people
middle      a host fails, and more goes wrong behind the events of its recovery
rack        a whole rack is gone
storm       several hosts are cut off at once, and people approve of fences, or forbid them
partition   two sides that do not hear each other
swizzle     links cut in one order and healed in another
engine      a host fails while process after process of the engine dies or stands still
flapping    one host comes and goes
guests      guests end by themselves while other things go wrong
people      a host fails while people act, through the engine and behind its back
machines    a host fails while machines of the engine die, stand still or hear no host; some live on
moving      people move VMs and drain hosts, and hosts and engine fail behind the events of that
upgrade     a host fails, and the engine is upgraded behind an event of its recovery
"""

from collections.abc import Callable

from simulator.entropy import Entropy
from simulator.faults.asides import asides_of
from simulator.faults.dice import MOMENTS, Dice
from simulator.faults.plan import Fault, Plan, Value
from simulator.setup import Setup
from simulator.world.network import Net


def single(dice: Dice) -> tuple[Fault, ...]:
    return (dice.of_world(),)


def mixed(dice: Dice) -> tuple[Fault, ...]:
    return tuple(dice.anything() for _ in range(dice.rng.randint(2, 6)))


def middle(dice: Dice) -> tuple[Fault, ...]:
    behind = (dice.behind_a_moment() for _ in range(dice.rng.randint(1, 4)))
    return (dice.host_failure(), *behind)


def rack(dice: Dice) -> tuple[Fault, ...]:
    lost = Fault(
        kind="rack.power_cut",
        at_s=dice.at(),
        subject=dice.rng.choice(dice.racks),
        lasts_s=dice.lasts(),
    )
    return (lost, *(dice.anything() for _ in range(dice.rng.randint(0, 2))))


def storm(dice: Dice) -> tuple[Fault, ...]:
    hosts = dice.rng.sample(dice.hosts, dice.rng.randint(1, max(1, len(dice.hosts) - 1)))
    at_s, nets = dice.at(), {"net": Net.MANAGEMENT.value, "way": "both"}
    cut = tuple(
        Fault(kind="link.cut", at_s=at_s, subject=host, lasts_s=dice.lasts(), args=dict(nets))
        for host in hosts
    )
    approved = dice.rng.sample(hosts, dice.rng.randint(0, len(hosts)))
    leave = tuple(
        Fault(
            kind="person.approve",
            at_s=round(dice.rng.uniform(0.5, 25.0), 2),
            subject=host,
            after_event=f"incident.opened:{host}",
            args={"for_s": dice.rng.choice((60, 900))},
        )
        for host in approved
    )
    return (*cut, *leave, *(dice.of_people() for _ in range(dice.rng.randint(0, 2))))


def partition(dice: Dice) -> tuple[Fault, ...]:
    hosts = list(dice.hosts)
    dice.rng.shuffle(hosts)
    side = "+".join(sorted(hosts[: max(1, len(hosts) // 2)]))
    at_s, lasts_s = dice.at(), dice.lasts()
    nets = dice.rng.choice(((Net.MANAGEMENT,), (Net.MANAGEMENT, Net.STORAGE)))
    parted = tuple(
        Fault(
            kind="link.partition",
            at_s=at_s,
            subject=side,
            lasts_s=lasts_s,
            args={"net": net.value},
        )
        for net in nets
    )
    return (*parted, *(dice.anything() for _ in range(dice.rng.randint(0, 2))))


def swizzle(dice: Dice) -> tuple[Fault, ...]:
    net = dice.rng.choice((Net.MANAGEMENT, Net.MANAGEMENT, Net.BMC))
    ends = dice.hosts if net is Net.MANAGEMENT else [f"bmc-{host}" for host in dice.hosts]
    chosen = dice.rng.sample(ends, dice.rng.randint(1, len(ends)))
    args: dict[str, Value] = {
        "net": net.value,
        "order": dice.rng.randint(0, 2**31),
        "step_s": round(dice.rng.uniform(0.1, 3.0), 2),
    }
    cut = Fault(kind="link.swizzle", at_s=dice.at(), subject="+".join(sorted(chosen)), args=args)
    return (cut, *(dice.anything() for _ in range(dice.rng.randint(0, 2))))


def engine(dice: Dice) -> tuple[Fault, ...]:
    troubles = (dice.of_engine() for _ in range(dice.rng.randint(2, 5)))
    return (dice.host_failure(), *troubles)


def flapping(dice: Dice) -> tuple[Fault, ...]:
    host, at_s, faults = dice.host(), dice.at(), []
    for _ in range(dice.rng.randint(2, 5)):
        lasts_s = round(dice.rng.uniform(0.5, 12.0), 2)
        fault = dice.host_failure(host).model_copy(update={"at_s": at_s, "lasts_s": lasts_s})
        faults.append(fault)
        at_s = round(at_s + lasts_s + dice.rng.uniform(0.1, 6.0), 2)
    return tuple(faults)


def people(dice: Dice) -> tuple[Fault, ...]:
    deeds = (
        dice.of_people() if dice.rng.random() < 0.5 else _behind(dice, dice.of_people())
        for _ in range(dice.rng.randint(1, 5))
    )
    return (dice.host_failure(), *deeds)


def guests(dice: Dice) -> tuple[Fault, ...]:
    ends = (dice.of_guest() for _ in range(dice.rng.randint(1, 4)))
    more = (
        dice.anything() if dice.rng.random() < 0.5 else dice.behind_a_moment()
        for _ in range(dice.rng.randint(0, 3))
    )
    return (*ends, *more)


def machines(dice: Dice) -> tuple[Fault, ...]:
    troubles = (
        dice.of_machine() if dice.rng.random() < 0.5 else _behind(dice, dice.of_machine())
        for _ in range(dice.rng.randint(1, 3))
    )
    return (dice.host_failure(), *troubles)


def moving(dice: Dice) -> tuple[Fault, ...]:
    moves = (dice.move() for _ in range(dice.rng.randint(1, 3)))
    behind = (dice.behind_a_move() for _ in range(dice.rng.randint(1, 4)))
    return (*moves, *behind)


def upgrade(dice: Dice) -> tuple[Fault, ...]:
    more = (dice.anything() for _ in range(dice.rng.randint(0, 2)))
    return (dice.host_failure(), _behind(dice, dice.upgrade()), *more)


def _behind(dice: Dice, fault: Fault) -> Fault:
    changes = {"at_s": round(dice.rng.uniform(0, 2), 3), "after_event": dice.rng.choice(MOMENTS)}
    return fault.model_copy(update=changes)


Pattern = Callable[[Dice], tuple[Fault, ...]]

PATTERNS: dict[Pattern, int] = {
    single: 2,
    mixed: 3,
    middle: 5,
    rack: 1,
    storm: 2,
    partition: 1,
    swizzle: 1,
    engine: 3,
    flapping: 2,
    guests: 3,
    people: 3,
    machines: 3,
    upgrade: 2,
    moving: 4,
}

MACHINES: dict[int, int] = {1: 5, 2: 3, 3: 2}
"""How many machines the engine has, and how often."""


def plan_of(seed: int, setup: Setup) -> Plan:
    """The plan of a seed."""
    rng = Entropy(seed).stream("plan")
    (pattern,) = rng.choices(tuple(PATTERNS), weights=tuple(PATTERNS.values()))
    (number,) = rng.choices(tuple(MACHINES), weights=tuple(MACHINES.values()))
    if pattern is machines:
        number = max(2, number)  # others live on
    faults = pattern(Dice(rng, setup, number))
    faults = (*faults, *asides_of(seed, setup, number, faults))
    last_s = max(fault.at_s for fault in faults)
    lasts_s = round(last_s + rng.uniform(10.0, 40.0), 1)
    return Plan(pattern=pattern.__name__, faults=faults, lasts_s=lasts_s, machines=number)
