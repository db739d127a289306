"""Who owns a VM that is being migrated, read from both hosts.

libvirt moves a guest in two phases. Until the switch-over the source runs and the target holds a
paused copy; from then on the target runs and the source holds one until libvirt ends it. The
engine is not asked at the switch-over, and it may be dead at that moment, so which of the two it is
can only be read. The target's copy carries the next generation, so neither is taken for the other.

Invariants  Nothing is settled without a reading of each host or a proof that it is dead, and not
            while libvirt's job runs. A copy that was handed over is never resumed: the other side
            may have written to its disks since.
Order       The source is read first. One without a job and running cannot hand over any more; one
            that is gone had handed over, or ended, before the target was read.
"""

from enum import StrEnum

from domain.base import Frozen
from domain.operations import Problem
from domain.readings import Domain


class Side(StrEnum):
    """What one host of a migration is known to have."""

    RUNS = "runs"
    HELD = "held"  # a process that libvirt keeps paused for the other side
    GONE = "gone"  # read: no process
    DEAD = "dead"  # not heard, and a valid certificate says that it is dead
    SILENT = "silent"  # not heard, and nothing is proven


class Settling(StrEnum):
    """The next move towards one owner."""

    WAIT = "wait"
    ABORT = "abort"  # end libvirt's job
    END_SOURCE = "end_source"  # end what is left on the source
    END_TARGET = "end_target"
    ON_SOURCE = "on_source"  # it never left
    ON_TARGET = "on_target"  # it has arrived
    NOWHERE = "nowhere"  # neither host runs it


class Verdict(Frozen):
    """A move, and for a wait its reason."""

    move: Settling
    code: str = ""
    detail: str = ""


class MigrationFacts(Frozen):
    """One reading of both hosts, the source first."""

    vm: str
    source_host: str
    target_host: str
    source: Side
    target: Side
    job: bool = False  # libvirt is at it on the source
    abort: bool = False  # it is to be given up


def too_slow(vm: str, limit_s: float) -> Problem:
    """Why a migration that libvirt did not end in its time was given up."""
    return Problem(
        code="MIGRATION_TOO_SLOW",
        detail=f"{vm} was not moved within {limit_s:.0f} s",
        next_step="try again when it writes less to its memory, or stop it and start it there",
    )


def side_of(found: Domain | None) -> Side:
    """What a host that was heard has."""
    if found is None or not found.alive:
        return Side.GONE
    return Side.HELD if found.held else Side.RUNS


R, H, G = Side.RUNS, Side.HELD, Side.GONE
NEXT: dict[tuple[Side, Side], Settling] = {
    (R, R): Settling.WAIT,
    (R, H): Settling.END_TARGET,
    (R, G): Settling.ON_SOURCE,
    (H, R): Settling.END_SOURCE,
    (H, H): Settling.END_TARGET,
    (H, G): Settling.END_SOURCE,
    (G, R): Settling.ON_TARGET,
    (G, H): Settling.END_TARGET,
    (G, G): Settling.NOWHERE,
}
"""What source and target have, no job being under way: a dead host has nothing."""


def settle(facts: MigrationFacts) -> Verdict:
    """The next move; see the module."""
    if facts.job and facts.source in (Side.RUNS, Side.HELD):
        return _job_runs(facts)
    if Side.SILENT in (facts.source, facts.target):
        return _silent(facts)
    source, target = (G if side is Side.DEAD else side for side in (facts.source, facts.target))
    move = NEXT[source, target]
    return _doubled(facts) if move is Settling.WAIT else Verdict(move=move)


def _job_runs(facts: MigrationFacts) -> Verdict:
    if facts.abort and facts.source is Side.RUNS:
        return Verdict(move=Settling.ABORT)
    return Verdict(
        move=Settling.WAIT,
        code="MIGRATION_UNDER_WAY",
        detail=f"libvirt is moving {facts.vm} from {facts.source_host} to {facts.target_host}",
    )


def _silent(facts: MigrationFacts) -> Verdict:
    both = ((facts.source_host, facts.source), (facts.target_host, facts.target))
    mute = [name for name, side in both if side is Side.SILENT]
    return Verdict(
        move=Settling.WAIT,
        code="HOST_NOT_PROVEN_DEAD",
        detail=f"{facts.vm} may run on {facts.source_host} or on {facts.target_host}, and "
        f"{' and '.join(mute)} can be neither read nor proven dead",
    )


def _doubled(facts: MigrationFacts) -> Verdict:
    return Verdict(
        move=Settling.WAIT,
        code="MIGRATION_DOUBLED",
        detail=f"{facts.vm} runs on {facts.source_host} and on {facts.target_host}: end the copy "
        "that is not wanted by hand (`virsh destroy`), the engine ends neither",
    )
