"""What a seed brings beside its pattern, each drawn from a stream of its own.

So that none of it changes what a seed draws else: a stream that does not strike leaves the plan as
it was.
"""

from domain.inventory import OnHang
from simulator.entropy import Entropy
from simulator.faults.dice import MOVING, Dice
from simulator.faults.plan import Fault
from simulator.setup import Setup

HANGS_AT_S = (10.0, 50.0)
"""When guests hang: their agents are asked for the first time shortly after the start."""

REHEARSED = 0.08
"""How many seeds have a rehearsal. Higher: more of them are short of a host."""

REHEARSING = (
    *("step.started:rehearsal.mark", "step.started:rehearsal.cut", "host.power_lost"),
    *("step.started:rehearsal.bring_back", "workflow.started:RehearseFencing", "bmc.command"),
)
"""Behind which events of a rehearsal a fault may come."""


def asides_of(seed: int, setup: Setup, machines: int, faults: tuple[Fault, ...]) -> list[Fault]:
    """All of them."""
    return [
        *_of_ssh(seed, faults),
        *_of_hangs(seed, setup),
        *_of_homes(seed, setup, machines),
        *_of_rehearsals(seed, setup, machines),
    ]


def _of_ssh(seed: int, faults: tuple[Fault, ...]) -> tuple[Fault, ...]:
    """Now and then the sshd fails of a host whose libvirtd hangs: what is to help is broken too."""
    rng = Entropy(seed).stream("ssh faults")
    found = []
    for fault in faults:
        if fault.kind == "host.libvirtd_hung" and rng.random() < 0.3:
            kind = rng.choice(("ssh.down", "ssh.failing"))
            lasts_s = rng.choice((None, round(rng.uniform(5.0, 60.0), 2)))
            found.append(fault.model_copy(update={"kind": kind, "lasts_s": lasts_s}))
    return tuple(found)


def _of_hangs(seed: int, setup: Setup) -> tuple[Fault, ...]:
    """Guests hang whose agents were heard by then, where somebody listens to them."""
    heard = [vm.name for vm in setup.vms if vm.on_hang is OnHang.RESTART and vm.host is not None]
    rng = Entropy(seed).stream("hang faults")
    chosen = rng.sample(heard, min(len(heard), rng.randint(1, 2)))
    return tuple(
        Fault(kind="guest.hang", at_s=round(rng.uniform(*HANGS_AT_S), 2), subject=vm)
        for vm in chosen
    )


def _of_homes(seed: int, setup: Setup, machines: int) -> tuple[Fault, ...]:
    """Where VMs have homes, one of those is lost, back before the end, and activated by somebody.

    What hurts a migration most comes behind the move home.
    """
    homes = sorted({vm.host for vm in setup.vms if vm.goes_home and vm.host is not None})
    if not homes:
        return ()
    rng = Entropy(seed).stream("home faults")
    dice = Dice(rng, setup, machines)
    lost = dice.power_cut(rng.choice(homes))
    lost = lost.model_copy(update={"lasts_s": round(rng.uniform(20.0, 40.0), 2)})
    behind = []
    for _ in range(rng.randint(0, 2)):
        changes = {"at_s": round(rng.uniform(0, 2), 3), "after_event": rng.choice(MOVING)}
        behind.append(dice.anything().model_copy(update=changes))
    looks = Fault(kind="person.looks_after", at_s=round(rng.uniform(20.0, 50.0), 2))
    # Late, so that there is time to go home before everything is healed.
    ends = Fault(kind="guest.crash", at_s=round(rng.uniform(90.0, 130.0), 2), subject=dice.vm())
    return (lost, *behind, looks, ends)


def _of_rehearsals(seed: int, setup: Setup, machines: int) -> tuple[Fault, ...]:
    """A person rehearses on some host, and more goes wrong behind that."""
    rng = Entropy(seed).stream("rehearsals")
    if rng.random() >= REHEARSED:
        return ()
    dice = Dice(rng, setup, machines)
    begun = Fault(kind="person.rehearse", at_s=dice.at(), subject=dice.host())
    behind = []
    for _ in range(rng.randint(0, 2)):
        changes = {"at_s": round(rng.uniform(0, 3), 3), "after_event": rng.choice(REHEARSING)}
        fault = dice.of_engine() if rng.random() < 0.6 else dice.anything()
        behind.append(fault.model_copy(update=changes))
    return (begun, *behind)
