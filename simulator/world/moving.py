"""A guest on its way from one host to another, as their two libvirtds carry it.

Until the switch-over the source runs and the target holds a paused copy; from then on the target
runs, and the source holds one until its libvirtd has heard of it. Nobody who asked is needed for
any of it. What ends in between leaves what libvirt leaves: see `_fail` and `_confirm`.

Invariants  Never are two of its processes running. A job is bound to the boots of both hosts and to
            the lives of their libvirtds.
"""

from dataclasses import dataclass
from uuid import UUID

from domain.readings import Migration as Seen
from simulator.world.centre import DataCentre
from simulator.world.host import Libvirtd, VirtualDomain, VirtualHost
from simulator.world.network import Net

TICK_S = 0.1
LINK_LOST_S = 3.0
"""How long the two libvirtds wait for each other: qemu.conf's keep-alive in the lab."""

MIB_IN_ALL = 256


@dataclass
class Move:
    """One job; `error` tells why it ended without success."""

    centre: DataCentre
    source: VirtualHost
    target: VirtualHost
    vm_id: UUID
    generation: int
    takes_s: float
    over: bool = False
    error: str | None = None
    _done_s: float = 0.0
    _apart_s: float = 0.0
    _switched: bool = False
    _bound: tuple[object, object] = ((), ())
    _process: int = 0

    def begin(self) -> None:
        """Put the copy on the target; without latency it is moved at once, unless it is stalled."""
        source = self.source.domains[self.vm_id]
        self._bound = (self.source.connection, self.target.connection)
        self._process = source.process
        incoming = VirtualDomain(source.name, source.memory_mib, self.generation)
        incoming.hold(self.generation)
        incoming.hung = source.hung
        self.target.domains[self.vm_id] = incoming
        self.source.moves[self.vm_id] = self
        self._tell("guest.leaving")
        if self.centre.latency is None and self.vm_id not in self.centre.stalled:
            self._switch()
            self._confirm()
        else:
            self._later()

    @property
    def seen(self) -> Seen:
        """As jobStats tells it."""
        part = min(1.0, self._done_s / self.takes_s) if self.takes_s else 0.0
        return Seen(
            done_mib=int(MIB_IN_ALL * part), total_mib=MIB_IN_ALL, took_s=round(self._done_s, 3)
        )

    def abort(self) -> None:
        """Give it up, where it has not switched over yet."""
        if not self.over and not self._switched:
            self._fail("operation aborted: migration out: canceled by client")

    def _later(self) -> None:
        self.centre.happenings.later(TICK_S, self._tick)

    def _tick(self) -> None:
        if self.over:
            return
        if self._broken():
            self._fail("the guest or one of its hosts is gone")
        elif not self._linked():
            self._apart_s += TICK_S
            if self._apart_s >= LINK_LOST_S:
                self._fail("the two hosts have lost each other")
            else:
                self._later()
        elif Libvirtd.HUNG in (self.source.libvirtd, self.target.libvirtd):
            self._later()
        else:
            self._apart_s = 0.0
            self._go_on()

    def _go_on(self) -> None:
        if self._switched:
            self._confirm()
            return
        self._done_s += TICK_S / self.source.slowness  # a host that recovers goes on faster
        if self._done_s >= self.takes_s and self.vm_id not in self.centre.stalled:
            self._switch()
        self._later()

    def _broken(self) -> bool:
        source = self.source.domains.get(self.vm_id)
        target = self.target.domains.get(self.vm_id)
        here = source is not None and source.alive and source.process == self._process
        there = target is not None and target.alive and target.generation == self.generation
        same = (self.source.connection, self.target.connection) == self._bound
        return not (here and there and same)

    def _linked(self) -> bool:
        network = self.centre.networks[Net.MANAGEMENT]
        reachable = self.source.reachable and self.target.reachable
        return reachable and network.answers(self.source.name, self.target.name)

    def _switch(self) -> None:
        self._switched = True
        source = self.source.domains[self.vm_id]
        source.hold(source.running)
        self.centre.arrive(self.target, self.vm_id)

    def _confirm(self) -> None:
        self._end(None)
        self.source.end(self.vm_id, "migrated")
        del self.source.domains[self.vm_id]
        self._tell("guest.left")

    def _fail(self, why: str) -> None:
        """A copy that never ran is ended by its host, if that still can; one that has run stays.

        So a source that handed over and heard no more holds its guest, paused, and no job is left.
        """
        self._end(why)
        if self._switched:
            return
        incoming = self.target.domains.get(self.vm_id)
        if incoming is not None and incoming.held and incoming.generation == self.generation:
            self.target.end(self.vm_id, "migration failed")
            del self.target.domains[self.vm_id]

    def _end(self, error: str | None) -> None:
        self.over, self.error = True, error
        if self.source.moves.get(self.vm_id) is self:
            del self.source.moves[self.vm_id]

    def _tell(self, kind: str) -> None:
        name = self.target.domains[self.vm_id].name
        hosts = {"source": self.source.name, "target": self.target.name}
        self.centre.happenings.tell(kind, vm=name, vm_id=self.vm_id, **hosts)


def why_not(centre: DataCentre, source: VirtualHost, target: VirtualHost, vm_id: UUID) -> str:
    """Why the target takes no copy from the source; empty when it does."""
    network = centre.networks[Net.MANAGEMENT]
    linked = source.reachable and network.answers(source.name, target.name)
    if not linked or not target.answers:
        return f"unable to connect to {target.name}"
    found = target.domains.get(vm_id)
    name = source.domains[vm_id].name
    if found is not None and found.name != name:
        return f"domain {found.name} is already defined with uuid {vm_id}"
    if found is not None and found.alive:
        return f"domain {name} is already active"
    return "" if centre.storage_of(target).value == "ok" else f"{target.name} has no storage"
