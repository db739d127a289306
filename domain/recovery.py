"""What to do about a host that is reported as failed, and in which order its VMs return."""

from enum import StrEnum
from graphlib import CycleError, TopologicalSorter

from pydantic import Field

from domain.base import Frozen
from domain.errors import Invalid
from domain.inventory import PowerReading
from domain.orders import Evidence
from domain.placement import Guest, restart_order
from domain.profiles import Policy
from domain.storm import EVEN_WHEN_OFF, FenceFacts, Held, why_held
from domain.topology import proven_level


class Move(StrEnum):
    """The next move of a recovery."""

    RETURN = "return"  # it answers again: nothing is to be moved
    ACCEPT = "accept"  # its power reads off already: that is proof enough
    CONFIRMED = "confirmed"  # a person says that it is dead, and nothing speaks against it
    FENCE = "fence"  # cut its power and read back
    HOLD = "hold"  # wait; the reasons say for what


class Fate(StrEnum):
    """What becomes of a VM whose host is dead; the first that applies, in this order."""

    NOT_WANTED = "not_wanted"  # somebody had asked for it to be down
    STOP_ASKED = "stop_asked"  # it was on its way down
    NOT_PROTECTED = "not_protected"  # nobody asked the engine to bring it back
    RESTART = "restart"


def fate_of(*, wanted: bool, stop_asked: bool, protected: bool) -> Fate:
    """Whether a VM is started elsewhere once its host is proven dead, else why not."""
    if not wanted:
        return Fate.NOT_WANTED
    if stop_asked:
        return Fate.STOP_ASKED
    return Fate.RESTART if protected else Fate.NOT_PROTECTED


class Decision(Frozen):
    """One decision with what it rests on, kept for the incident's report."""

    move: Move
    why: str
    held: tuple[Held, ...] = ()
    confirmation: Evidence | None = Field(default=None, exclude_if=lambda fact: fact is None)


class RecoveryFacts(Frozen):
    """One reading of the world around a reported host."""

    host: str
    answers: bool  # has answered all that can tell since it was reported
    readings: tuple[tuple[int, PowerReading], ...]  # level and word of each fence device
    fence: FenceFacts
    confirmation: Evidence | None = None  # a person's word that it is dead


def decide(facts: RecoveryFacts, policy: Policy) -> Decision:
    """Choose the next move; a sign of life wins over everything, then proof, then the guard."""
    if facts.answers:
        return Decision(move=Move.RETURN, why=f"{facts.host} answers again")
    words = [word for _level, word in facts.readings]
    proven = proven_level(facts.readings, policy.timing.proofs_required)
    confirmed = facts.confirmation is not None and PowerReading.ON not in words
    held = why_held(facts.fence, policy)
    if (proven or confirmed) and (firm := tuple(h for h in held if h.reason in EVEN_WHEN_OFF)):
        return _hold(firm)
    if proven:
        off = f"{words.count(PowerReading.OFF)} of {len(words)} power devices read off"
        whole = PowerReading.UNKNOWN not in words
        why = off if whole else f"{off}, all of level {proven} among them"
        return Decision(move=Move.ACCEPT, why=why)
    if confirmed and (word := facts.confirmation):
        why = f"{word.device} says that {facts.host} is dead: {word.detail}"
        return Decision(move=Move.CONFIRMED, why=why, confirmation=word)
    if held:
        return _hold(held)
    return Decision(move=Move.FENCE, why=_why_cut(facts))


def _why_cut(facts: RecoveryFacts) -> str:
    if leave := facts.fence.approval:
        return (
            f"{facts.host} is silent, and {leave.by} approves of cutting its power: {leave.reason}"
        )
    return f"{facts.host} is silent and nothing speaks against it"


def _hold(held: tuple[Held, ...]) -> Decision:
    return Decision(move=Move.HOLD, why="; ".join(h.detail for h in held), held=held)


def restart_sequence(guests: tuple[Guest, ...]) -> tuple[Guest, ...]:
    """The order of starts: a VM after every VM it depends on, else protected and priority first.

    Dependencies on VMs outside `guests` are dropped: those run elsewhere. Invalid
    (`DEPENDENCY_CYCLE`) when VMs wait for each other.
    """
    by_id = {guest.vm_id: guest for guest in guests}
    graph = {g.vm_id: [d for d in g.depends_on if d in by_id] for g in guests}
    sorter = TopologicalSorter(graph)
    try:
        sorter.prepare()
    except CycleError as error:
        names = " → ".join(by_id[vm_id].name for vm_id in error.args[1])
        raise Invalid(
            "DEPENDENCY_CYCLE",
            f"these VMs wait for each other: {names}",
            next_step="remove one of the dependencies",
        ) from None
    ready: list[Guest] = []
    sequence: list[Guest] = []
    while sorter.is_active():
        ready = sorted((*ready, *(by_id[vm_id] for vm_id in sorter.get_ready())), key=restart_order)
        guest = ready.pop(0)
        known = tuple(d for d in guest.depends_on if d in by_id)
        sequence.append(guest.model_copy(update={"depends_on": known}))
        sorter.done(guest.vm_id)
    return tuple(sequence)
