"""What goes wrong between endpoints: cuts of a network, one way or both, partitions, swizzles.

A swizzle cuts many links one after the other in one order and heals them in another, which finds
states that no single cut leads to.
"""

from random import Random

from simulator.faults.plan import Fault
from simulator.faults.troubles import Kind, Troubles
from simulator.stage import DATABASE, TEMPORAL
from simulator.world.network import ANY, Net, Network

BOTH, TO, FROM = "both", "to", "from"


def _network(troubles: Troubles, fault: Fault) -> Network:
    return troubles.stage.centre.networks[Net(str(fault.args.get("net", Net.MANAGEMENT)))]


def _ends(fault: Fault) -> tuple[tuple[str, str], ...]:
    """What is cut: the subject from everything, or from `other`; both ways or one."""
    one, other = fault.subject, str(fault.args.get("other", ANY))
    ways = {BOTH: ((one, other), (other, one)), TO: ((other, one),), FROM: ((one, other),)}
    return ways[str(fault.args.get("way", BOTH))]


def cut(troubles: Troubles, fault: Fault) -> None:
    """Lose what goes that way."""
    for source, target in _ends(fault):
        _network(troubles, fault).cut(source, target)


def heal(troubles: Troubles, fault: Fault) -> None:
    """Let it through again."""
    for source, target in _ends(fault):
        _network(troubles, fault).heal(source, target)


def _sides(troubles: Troubles, fault: Fault) -> tuple[list[str], list[str]]:
    """Who is named, and everybody else: or of them the hosts alone, where `other` says so."""
    left, hosts = str(fault.subject).split("+"), list(troubles.stage.centre.hosts)
    if fault.args.get("other") == "hosts":
        return left, [name for name in hosts if name not in left]
    everyone = [*hosts, *troubles.stage.engine.machines, DATABASE, TEMPORAL]
    return left, [name for name in everyone if name not in left]


def split(troubles: Troubles, fault: Fault) -> None:
    """Nobody named hears anybody else, and the other way round."""
    _network(troubles, fault).split(*_sides(troubles, fault))


def join(troubles: Troubles, fault: Fault) -> None:
    """The two sides hear each other again."""
    left, right = _sides(troubles, fault)
    for one in left:
        for other in right:
            _network(troubles, fault).heal_both(one, other)


def swizzle(troubles: Troubles, fault: Fault) -> None:
    """Cut the subject's links one after the other, and heal them in another order."""
    network, rng = _network(troubles, fault), Random(int(fault.args.get("order", 0)))
    links = [(name, ANY) for name in fault.subject.split("+")]
    links += [(ANY, name) for name, _ in links]
    rng.shuffle(links)
    step_s = float(fault.args.get("step_s", 1.0))
    for number, (source, target) in enumerate(links):
        troubles.later(number * step_s, network.cut, source, target)
    rng.shuffle(links)
    for number, (source, target) in enumerate(links):
        troubles.later((len(links) + number) * step_s, network.heal, source, target)


LINKS: dict[str, Kind] = {
    "link.cut": Kind("an endpoint loses a network, one way or both", cut, heal),
    "link.partition": Kind("the endpoints are parted into two sides", split, join),
    "link.swizzle": Kind("links are cut in one order and healed in another", swizzle),
}
