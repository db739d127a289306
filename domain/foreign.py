"""Guests that ran on a host before the engine knew them, and what speaks against taking them over.

A foreign guest is only read. What it has that our definition of a VM cannot say comes in two
grades. `unsupported`: defined by us on another host it would not run, or not with its data, so it
is not taken over. `lost`: it would run, without that; whoever imports it is told.

A VM that is taken over keeps its own UUID as its id, and runs on untouched: only its metadata gains
the mark of the engine. Its addresses on the guest's buses are given anew when it is next defined.
"""

import re
from collections.abc import Mapping
from uuid import UUID

from domain.base import Frozen
from domain.errors import Conflict, Invalid
from domain.inventory import DEFAULT_MACHINE, Boot, Disk, GuestSpec, Nic, NicModel, VirtType
from domain.readings import ALIVE_STATES, DomainState

VM_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")
"""What a VM may be called here; libvirt allows more, so an import may have to give a name."""

USER_NETWORK = "user"
"""The name of the network of a card that has no bridge, unless the caller knows a better one."""

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
    if not VM_NAME.fullmatch(name or guest.name):
        raise Invalid(
            "VM_NAME_UNFIT",
            f"{name or guest.name!r} is no name for a VM here: at most 63 of a-z, 0-9, dot and "
            "hyphen, no dot or hyphen at either end",
            next_step="give the VM a name of its own with the import",
            name=name or guest.name,
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


def spec_of(
    guest: ForeignGuest, name: str, networks: Mapping[str | None, str] | None = None
) -> GuestSpec:
    """The guest as a VM of ours; `networks` gives the name of a network by its bridge.

    A bridge that is in none is its own name. Only for a guest that `refuse_unfit` let through.
    """
    known = networks or {}
    return GuestSpec(
        vm_id=guest.guest_id,
        name=name,
        memory_mib=guest.memory_mib,
        vcpus=guest.vcpus,
        virt_type=VirtType(guest.virt_type),
        disks=guest.disks,
        boot=guest.boot,
        machine=guest.machine,
        nics=tuple(
            Nic(
                network=known.get(nic.bridge, nic.bridge or USER_NETWORK),
                bridge=nic.bridge,
                mac=nic.mac,
                model=nic.model,
            )
            for nic in guest.nics
        ),
    )
