"""Networks between endpoints, with cuts in one direction.

An endpoint is a machine of the engine, a host, a power controller or a storage domain, by name. A
cut stops what goes from one to another; the way back is a cut of its own. So a request may be lost,
or be carried out and only its answer lost.

Invariants  Cuts are kept in the order in which they were made. A cut between two endpoints and one
            of everything at an endpoint are different: healing the one leaves the other.
"""

from collections.abc import Sequence
from enum import StrEnum

from simulator.world.happenings import Happenings

ANY = "*"
"""In the place of an endpoint: whatever there is."""

Direction = tuple[str, str]


class Net(StrEnum):
    """The three networks of a data centre."""

    MANAGEMENT = "management"  # engine to libvirt
    STORAGE = "storage"  # hosts to the storage domain
    BMC = "bmc"  # engine to power controllers


class Network:
    """One network; everything reaches everything until it is cut."""

    def __init__(self, net: Net, happenings: Happenings) -> None:
        self.net = net
        self._happenings = happenings
        self._cuts: dict[Direction, None] = {}

    def carries(self, source: str, target: str) -> bool:
        """Whether what `source` sends now reaches `target`."""
        if not self._cuts:
            return True  # almost always, and asked before each statement
        ways = ((source, target), (source, ANY), (ANY, target), (ANY, ANY))
        return not any(way in self._cuts for way in ways)

    def answers(self, source: str, target: str) -> bool:
        """Whether both ways are open."""
        return self.carries(source, target) and self.carries(target, source)

    def cuts(self) -> tuple[Direction, ...]:
        """Every cut, oldest first."""
        return tuple(self._cuts)

    def cut(self, source: str, target: str) -> None:
        """Lose what goes from one to the other, and only in this direction; repeatable."""
        if (source, target) not in self._cuts:
            self._cuts[source, target] = None
            self._happenings.tell("network.cut", network=self.net, source=source, target=target)

    def heal(self, source: str, target: str) -> None:
        """Take one cut away; repeatable."""
        if (source, target) in self._cuts:
            del self._cuts[source, target]
            self._happenings.tell("network.healed", network=self.net, source=source, target=target)

    def cut_both(self, one: str, other: str) -> None:
        """Cut both directions."""
        self.cut(one, other)
        self.cut(other, one)

    def heal_both(self, one: str, other: str) -> None:
        """Heal both directions."""
        self.heal(one, other)
        self.heal(other, one)

    def isolate(self, endpoint: str) -> None:
        """Cut an endpoint off from everything."""
        self.cut_both(endpoint, ANY)

    def rejoin(self, endpoint: str) -> None:
        """End an isolation; cuts to single endpoints stay."""
        self.heal_both(endpoint, ANY)

    def split(self, left: Sequence[str], right: Sequence[str]) -> None:
        """A partition: nobody on one side reaches anybody on the other."""
        for one in left:
            for other in right:
                self.cut_both(one, other)

    def heal_all(self) -> None:
        """Take every cut away, oldest first."""
        for source, target in self.cuts():
            self.heal(source, target)
