"""Follows one simulation and notes each violation where it happens.

At each event of the world
  I1  a VM has more than one copy, as the world counts them
  I2  a host is marked as reconciled that still has a copy held to be lost
  I5  a power command to the engine's own host, or to more hosts in a window than its budget
  I8  a power command while automatic action is long disarmed; a foreign guest that was touched
At each commit, on the rows as they are about to be, where the tables concerned were written
  I2  a run begins to start while another one may live, or a lost one has no valid certificate;
      a run is closed while the very process of it lives
  I1  a run that moved is settled otherwise than its two hosts have it
  I3  a certificate is issued while its boot lives, or a device has not read off since it was marked
  I5  a fence is decided on though no monitor wrote since it is judged, or claimed though the host
      was heard since, or though its recovery has ended or is to be cancelled
  --  a VM is stopped for one that does not outrank it, or where that is not allowed
  I8  a fence is claimed, or an automatic start begun, in a disarmed cluster; an incident is opened
      in one that ignores failures
      every check of `always`; those that concern neither runs nor proofs once in `PATIENCE_S`
At the end
      what was put off, and whatever `quiet` asks

Certificates, claims, incidents and runs that are new are told as events too, so that a fault can
come right behind them.
"""

from collections.abc import Iterator
from typing import Any

from simulator.invariants.always import JUDGED, LOOKS_AT
from simulator.invariants.boots import Boots
from simulator.invariants.budget import Power
from simulator.invariants.facts import Check, Violation, facts_of
from simulator.invariants.foreign import Foreign
from simulator.invariants.proofs import Proofs
from simulator.invariants.rooms import Rooms
from simulator.invariants.votes import Votes
from simulator.stage import Stage
from simulator.tape import Recorder

PATIENCE_S = 1.0
"""Higher: runs are faster. Lower: a lock that outlives its operation is told sooner."""

URGENT = frozenset({"vm_run", "death_certificate", "fence_claim", "incident"})
SWITCHED = URGENT | {"cluster"}
"""What is written where it counts whether a cluster is armed."""


class Watch:
    """See the module."""

    def __init__(self, stage: Stage, recorder: Recorder) -> None:
        self.violations: list[Violation] = []
        self._stage = stage
        self._boots = Boots(stage.centre)
        self._votes = Votes(stage)
        self._proofs = Proofs(stage, self._boots, self._votes)
        self._power = Power(stage)
        self._foreign = Foreign(stage.centre)
        self._rooms = Rooms(stage)
        self._put_off: dict[str, None] = {}
        self._looked_s = stage.loop.time()
        self._told: set[tuple[str, str]] = set()
        recorder.tape.listeners.append(self._happened)
        recorder.committing.append(self._committing)

    @property
    def fences(self) -> int:
        """How often a running host was told to go off."""
        return self._power.fences

    @property
    def inside(self) -> list[Violation]:
        """Those within the promised fault model."""
        return [found for found in self.violations if found.outside is None]

    def broken(self, check: str, sentence: str, outside: str | None = None) -> None:
        """Note a violation; the same sentence of a check once."""
        if (check, sentence) not in self._told:
            self._told.add((check, sentence))
            at_s = round(self._stage.loop.time(), 6)
            found = Violation(at_s=at_s, check=check, sentence=sentence, outside=outside)
            self.violations.append(found)
            self._stage.trace("violation", check, sentence=sentence, outside=outside)

    def finish(self) -> None:
        """Ask what was put off."""
        self._look(tuple(LOOKS_AT))

    def _happened(self, at_s: float, kind: str, facts: dict[str, Any]) -> None:
        self._boots.happened(at_s, kind, facts)
        self._votes.happened(at_s, kind, facts)
        if kind == "guest.doubled":
            where = " and ".join(facts["hosts"])
            self.broken("one_copy", f"{facts['vm']} runs on {where}", facts["outside"])
        for check, sentence in self._power.happened(at_s, kind, facts):
            self.broken(check, sentence)
        for check, sentence in self._foreign.happened(kind, facts):
            self.broken(check, sentence)
        if kind == "host.marked":
            for check, sentence, outside in self._proofs.marked(facts["host"]):
                self.broken(check, sentence, outside)

    def _committing(self, tables: frozenset[str]) -> None:
        if tables & SWITCHED:
            # Also where nobody writes it: what was seen of it before may never have been committed.
            self._power.read_switch()
        for check, sentence in self._votes.look(tables):
            self.broken(check, sentence)
        if "made_room" in tables:
            for check, sentence in self._rooms.look(self._power):
                self.broken(check, sentence)
        if tables & URGENT:
            for check, sentence, outside in self._proofs.look(tables, self._power):
                self.broken(check, sentence, outside)
        self._put_off |= dict.fromkeys(sorted(tables))
        due = self._stage.loop.time() >= self._looked_s + PATIENCE_S
        if due or tables & URGENT:
            self._look(tuple(self._due()))

    def _due(self) -> Iterator[Check]:
        for check, tables in LOOKS_AT.items():
            if any(table in self._put_off for table in tables):
                yield check

    def _look(self, checks: tuple[Check, ...]) -> None:
        self._put_off.clear()
        self._looked_s = self._stage.loop.time()
        wanted = dict.fromkeys(table for check in checks for table in LOOKS_AT[check])
        facts = facts_of(self._stage.rows, wanted, JUDGED)
        for check in checks:
            for sentence in check(self._stage.centre, facts):
                self.broken(check.__name__, sentence)
