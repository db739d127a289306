"""Guests that ran on a host before the engine knew them, and what speaks against taking them over.

A foreign guest is only read. What it has that our definition of a VM cannot say comes in two
grades. `unsupported`: defined by us on another host it would not run, or not with its data, so it
is not taken over. `lost`: it would run, without that; whoever imports it is told.

A VM that is taken over keeps its own UUID as its id, and runs on untouched: only its metadata gains
the mark of the engine. Its addresses on the guest's buses are given anew when it is next defined.
"""

import re
from uuid import UUID

from domain.base import Frozen
from domain.errors import Conflict, Invalid
from domain.inventory import DEFAULT_MACHINE, NAME, Boot, Disk, NicModel
from domain.readings import ALIVE_STATES, DomainState

FIRST_GENERATION = 1
"""Of a guest that was taken over: its next start has a higher one, and so replaces its definition.
"""


class ForeignNic(Frozen):
    """One network card as its host has it."""

    mac: str
    model: NicModel
    bridge: str | None = None


class ForeignGuest(Frozen):
    """One guest as its host reports it. `generation` None: nobody has put our mark on it."""

    guest_id: UUID
    name: str
    state: DomainState
    memory_mib: int
    vcpus: int
    virt_type: str
    machine: str = DEFAULT_MACHINE
    boot: Boot | None = None
    disks: tuple[Disk, ...] = ()
    nics: tuple[ForeignNic, ...] = ()
    persistent: bool = True
    autostart: bool = False
    generation: int | None = None
    claim: UUID | None = None  # the import that put the mark on it
    unsupported: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()

    @property
    def alive(self) -> bool:
        """Whether a process of it may exist."""
        return self.state in ALIVE_STATES


def refuse_unfit(guest: ForeignGuest, claim: UUID, name: str | None = None) -> None:
    """Refuse a guest that this import may not take over, or could not define again elsewhere.

    GUEST_CLAIMED, GUEST_AUTOSTART, GUEST_NOT_SUPPORTED, VM_NAME_UNFIT.
    """
    refuse_claimed(guest.name, guest.generation, guest.claim, claim)
    if guest.autostart:
        raise autostarts(guest.name)
    if guest.unsupported:
        raise Conflict(
            "GUEST_NOT_SUPPORTED",
            f"{guest.name} has {len(guest.unsupported)} things that it would lack on another host: "
            f"{'; '.join(guest.unsupported)}",
            next_step="remove them from the guest, then import it again; until then it is left "
            "alone",
            guest=guest.name,
            things=len(guest.unsupported),
        )
    unfit = unfit_name(name or guest.name)
    if unfit is not None:
        raise unfit


def unfit_name(name: str) -> Invalid | None:
    """Why no VM can have this name, which libvirt may allow all the same; None when it can."""
    if re.fullmatch(NAME, name):
        return None
    return Invalid(
        "VM_NAME_UNFIT",
        f"{name!r} is no name for a VM here: at most 63 of a-z, 0-9, dot and hyphen, no dot or "
        "hyphen at either end",
        next_step="give the VM a name of its own with the import",
        name=name,
    )


def refuse_claimed(name: str, generation: int | None, by: UUID | None, claim: UUID) -> None:
    """Conflict (`GUEST_CLAIMED`) when another import than `claim`, or another engine, marked it."""
    if generation is None or by == claim:
        return
    owner = "another engine, or of an earlier life of this one"
    if by is not None:
        owner = f"the import {by}"
    raise Conflict(
        "GUEST_CLAIMED",
        f"{name} carries generation {generation} of {owner}",
        next_step="make sure that no other engine manages it, then remove the element of "
        "holdfast.dev from its metadata (`virsh metadata --remove`) and import it again",
        guest=name,
        generation=generation,
        claim=None if by is None else str(by),
    )


def autostarts(name: str) -> Conflict:
    """The refusal of a guest that its host starts by itself, which could become a second copy."""
    return Conflict(
        "GUEST_AUTOSTART",
        f"{name} is started by its host at boot, past the engine",
        next_step=f"run `virsh autostart --disable {name}` on the host, then import it again",
        guest=name,
    )
