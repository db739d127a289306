"""What the world itself knows of boots, readings and power commands, while a simulation runs.

A host's epoch binds to the boot that was marked with it. Whether that boot still lives, and what
each power controller has said since it was marked, is kept here, past the engine.
"""

from collections import defaultdict
from typing import Any

from domain.inventory import PowerReading
from simulator.world.centre import DataCentre

Boot = int


class Boots:
    """See the module; fed with every event of the world."""

    def __init__(self, centre: DataCentre) -> None:
        self._centre = centre
        self._marked: defaultdict[tuple[str, int], list[Boot]] = defaultdict(list)
        self._off_since: defaultdict[str, dict[str, float]] = defaultdict(dict)
        for host in centre.hosts.values():
            if host.mark is not None:
                self._marked[host.name, host.mark].append(host.boot)

    def happened(self, at_s: float, kind: str, facts: dict[str, Any]) -> None:
        """Take up one event."""
        if kind == "host.marked":
            self._marked[facts["host"], facts["epoch"]].append(facts["boot"])
            self._off_since[facts["host"]].clear()
        elif kind == "bmc.read" and facts["answer"] is PowerReading.OFF:
            self._off_since[facts["host"]][facts["device"]] = at_s

    def alive(self, host: str, epoch: int) -> bool:
        """Whether a boot that was marked with this epoch still lives."""
        real = self._centre.hosts[host]
        return real.powered and real.boot in self._marked[host, epoch]

    def unread(self, host: str, devices: tuple[str, ...]) -> tuple[str, ...]:
        """Devices that have not read off since the present epoch's boot was marked."""
        return tuple(name for name in devices if name not in self._off_since[host])

    def lied(self, host: str) -> str | None:
        """Why nobody promised better of this host: a lie that no knock could have told."""
        if self._centre.hosts[host].lied_in_silence:
            return f"the controller of {host} lied while no channel reached it"
        return None
