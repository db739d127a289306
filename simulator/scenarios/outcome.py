"""What happened in one scenario, read from the world's own events and the engine's rows.

A move is a VM that was started on another host than where it lay. A recovery is counted from the
fault of the host to the new process of the VM, on whichever host that is.
"""

from dataclasses import dataclass, field
from typing import Any

from simulator.scenarios.format import BALANCED, Scenario
from simulator.scenarios.play import Play
from simulator.scenarios.verdict import LEVELS, judge

HOST_GONE = frozenset({"host lost power", "host rebooted", "the host shuts down"})
"""Why a guest ends when its host is to blame, and nobody who wanted it."""


@dataclass(frozen=True)
class Move:
    """One VM that was started on another host; times in seconds since the scenario began."""

    at_s: float
    vm: str
    source: str | None
    target: str
    kind: str  # recover, relocate, migrate

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        ends = {"from": self.source, "to": self.target}
        return {"t": self.at_s, "vm": self.vm, **ends, "kind": self.kind}


@dataclass(frozen=True)
class Outcome:
    """One scenario's result; `why_not` says for each level why it is not reached."""

    name: str
    violations: tuple[str, ...]
    fenced: tuple[str, ...]
    moves: tuple[Move, ...]
    final_running: dict[str, str]
    recovery_s: dict[str, float]
    peer_recovery_s: dict[str, float]
    why_not: dict[str, str]
    unsupported: tuple[str, ...]
    notes: tuple[str, ...] = ()
    balanced: bool = False  # it asks for a balancer, which there is none of
    ended_s: float = field(default=0.0)

    @property
    def levels(self) -> dict[str, bool]:
        """Which levels are reached."""
        return {level: not why for level, why in self.why_not.items()}


def outcome_of(play: Play, violations: list[str]) -> Outcome:
    """Put together what happened."""
    scenario = play.scenario
    fenced = tuple(_fenced(play))
    running = _running(play)
    moves, recovery_s = _Tale(play).told()
    return Outcome(
        name=scenario.name,
        violations=tuple(violations),
        fenced=fenced,
        moves=tuple(moves),
        final_running=running,
        recovery_s=recovery_s,
        peer_recovery_s=peer_recovery_s(scenario),
        why_not=judge(scenario, violations=violations, fenced=fenced, final_running=running),
        unsupported=tuple(play.unsupported),
        notes=tuple(play.notes),
        balanced=scenario.category == BALANCED,
        ended_s=round(play.now_s, 3),
    )


def broken_off(scenario: Scenario, unsupported: tuple[str, ...], error: Exception) -> Outcome:
    """The result of a scenario that could not be played to its end: no level is reached."""
    why = f"defect: {type(error).__name__}: {error}"
    return Outcome(
        name=scenario.name,
        violations=(why,),
        fenced=(),
        moves=(),
        final_running={},
        recovery_s={},
        peer_recovery_s=peer_recovery_s(scenario),
        why_not=dict.fromkeys(LEVELS, why),
        unsupported=unsupported,
        balanced=scenario.category == BALANCED,
    )


def peer_recovery_s(scenario: Scenario) -> dict[str, float]:
    """What the peer needed for each VM that it recovered; the last time where there are more."""
    moves = scenario.oracle.moves
    return {move.vm: move.peer_rto_s for move in moves if move.peer_rto_s is not None}


def _fenced(play: Play) -> list[str]:
    """Hosts that ran until a power controller of theirs cut them off, on our command."""
    hosts = {here: name for name, here in play.scene.hosts.items()}
    cut = [
        hosts[facts["host"]]
        for _at_s, kind, facts in play.stage.events
        if kind == "host.power_lost" and facts["by"].startswith("bmc-")
    ]
    return list(dict.fromkeys(cut))


def _running(play: Play) -> dict[str, str]:
    hosts = {here: name for name, here in play.scene.hosts.items()}
    found = {}
    for vm in sorted(play.vms):
        if copies := play.stage.centre.copies(play.vm_id(vm)):
            found[vm] = hosts[copies[0]]
    return found


class _Tale:
    """Follows each VM through the events of the world."""

    def __init__(self, play: Play) -> None:
        self._play = play
        self._hosts = {here: name for name, here in play.scene.hosts.items()}
        self._vms = {here: name for name, here in play.vms.items()}
        self._place: dict[str, str | None] = {n: vm.host for n, vm in play.scenario.vms.items()}
        self._down: dict[str, float] = {}
        self._runs = {(r["vm_id"], r["generation"]): r for r in play.stage.rows.table("vm_run")}

    def told(self) -> tuple[list[Move], dict[str, float]]:
        """Every move, and the last recovery time of each VM."""
        moves: list[Move] = []
        recovery_s: dict[str, float] = {}
        for at_s, kind, facts in self._play.stage.events:
            vm, since_s = self._vms.get(facts.get("vm", "")), round(at_s - self._play.began_s, 3)
            if vm is None:
                continue
            if kind == "guest.ended":
                self._ended(vm, since_s, facts)
            elif kind == "guest.arrived":
                moves += self._arrived(vm, since_s, facts)
            elif kind == "guest.started":
                moves += self._started(vm, since_s, facts)
                if vm in self._down:
                    recovery_s[vm] = round(since_s - self._down.pop(vm), 3)
        return moves, recovery_s

    def _ended(self, vm: str, at_s: float, facts: dict[str, Any]) -> None:
        if facts["why"] not in HOST_GONE:
            return
        host = self._hosts[facts["host"]]
        faults = [fault_s for fault_s, failed in self._play.faults if failed == host]
        self._down[vm] = max((fault_s for fault_s in faults if fault_s <= at_s), default=at_s)

    def _started(self, vm: str, at_s: float, facts: dict[str, Any]) -> list[Move]:
        source, target = self._place.get(vm), self._hosts[facts["host"]]
        self._place[vm] = target
        if source in (None, target):
            return []
        run = self._runs.get((facts["vm_id"], facts["generation"]))
        return [Move(at_s, vm, source, target, self._kind(run))]

    def _arrived(self, vm: str, at_s: float, facts: dict[str, Any]) -> list[Move]:
        source, target = self._place.get(vm), self._hosts[facts["host"]]
        self._place[vm] = target
        return [] if source is None else [Move(at_s, vm, source, target, "migrate")]

    def _kind(self, run: dict[str, Any] | None) -> str:
        if run is not None and run["incident_id"] is not None:
            return "recover"
        return "relocate"
