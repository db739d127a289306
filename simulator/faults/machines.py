"""What happens to whole machines of the engine: their power, a standstill, an upgrade.

An upgrade ends the workers of today's code and starts those of the next release, in one of three
ways. What an operator does with this product: `drained`. What worker versioning would allow:
`versioned`. What goes wrong, and is reported as non-determinism: `rolling`.

drained     every old worker ends before the first new one starts
versioned   machine after machine; the server gives no run that new code worked on to old code
rolling     machine after machine, and any worker may get any run
"""

from enum import StrEnum

from simulator.faults.plan import Fault
from simulator.faults.troubles import Kind, Troubles
from simulator.next_release import NEXT

AWAY_S = 0.5


class Way(StrEnum):
    """See the module."""

    DRAINED = "drained"
    VERSIONED = "versioned"
    ROLLING = "rolling"


def lose_power(troubles: Troubles, fault: Fault) -> None:
    """All that runs on it is dead."""
    troubles.stage.engine.lose_machine(fault.subject)


def get_power(troubles: Troubles, fault: Fault) -> None:
    """It boots, and its processes start."""
    troubles.stage.engine.regain_machine(fault.subject)


def freeze(troubles: Troubles, fault: Fault) -> None:
    """Every process stands still, as in a virtual machine that is paused."""
    troubles.stage.engine.freeze_machine(fault.subject)


def thaw(troubles: Troubles, fault: Fault) -> None:
    """They go on, late."""
    troubles.stage.engine.thaw_machine(fault.subject)


def upgrade(troubles: Troubles, fault: Fault) -> None:
    """Bring the machines named, in their order, to the next release."""
    way, machines = Way(str(fault.args["way"])), fault.subject.split("+")
    step_s = float(fault.args.get("step_s", 1.0))
    server = troubles.stage.server
    server.versioned = server.versioned or way is Way.VERSIONED
    for number, machine in enumerate(machines):
        if way is Way.DRAINED:
            _bring(troubles, machine, AWAY_S + number * step_s)
        else:
            troubles.later(number * step_s, _bring, troubles, machine, AWAY_S)


def complete(troubles: Troubles, fault: Fault) -> None:
    """No machine is left behind."""
    for machine in fault.subject.split("+"):
        _bring(troubles, machine, AWAY_S)


def _bring(troubles: Troubles, machine: str, away_s: float) -> None:
    engine = troubles.stage.engine
    if engine.releases.get(machine) != NEXT:
        engine.releases[machine] = NEXT
        troubles.stage.trace("upgraded", machine, release=NEXT.number)
        engine.kill(f"worker@{machine}", again_after_s=away_s)


MACHINES: dict[str, Kind] = {
    "machine.power_cut": Kind("a machine of the engine loses its supply", lose_power, get_power),
    "machine.freeze": Kind("a machine of the engine stands still", freeze, thaw),
    "upgrade": Kind("the engine is upgraded while it works", upgrade, complete),
}
