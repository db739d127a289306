"""Guests that are not ours: described, marked as ours by an import, and unmarked again.

Marking writes one element into the metadata, into what runs and into what is defined; the guest
itself is never touched. The mark names the import that wrote it, which alone may write it again or
take it away.

Races  A guest that starts or ends while it is marked is read back with one mark missing: the caller
       is told that the outcome is unknown, and a repetition completes it.
"""

from uuid import UUID

import libvirt

from domain.errors import EngineError, NotFound
from domain.foreign import ForeignGuest, autostarts, refuse_claimed
from domain.inventory import DEFAULT_MACHINE
from drivers.domain_xml import NAMESPACE, PREFIX, adopted_run, claim_in, generation_in
from drivers.foreign_xml import Definition, cpu_losses, read_definition
from drivers.libvirt_domains import CONFIG, CURRENT, LIVE, find, mark_of, not_as_sent, state_of
from drivers.libvirt_lane import Ticket

ELEMENT = libvirt.VIR_DOMAIN_METADATA_ELEMENT
REASON_MAX = 300


def list_foreign(connection: libvirt.virConnect) -> tuple[ForeignGuest, ...]:
    """Every domain without our mark, by name; one that vanishes while it is read is left out."""
    found = (_read(domain, only_foreign=True) for domain in connection.listAllDomains())
    return tuple(sorted((guest for guest in found if guest), key=lambda guest: guest.name))


def describe_foreign(connection: libvirt.virConnect, guest: UUID | str) -> ForeignGuest | None:
    """One domain by UUID or by name, marked or not; None when the host does not know it."""
    domain = find(connection, guest) if isinstance(guest, UUID) else _named(connection, guest)
    return None if domain is None else _read(domain, only_foreign=False)


def adopt(
    connection: libvirt.virConnect, ticket: Ticket, guest_id: UUID, generation: int, claim: UUID
) -> None:
    """Mark a guest as ours; marked so already is success.

    NotFound. Conflict: GUEST_CLAIMED by another, GUEST_AUTOSTART. OutcomeUnknown when it does not
    read back as marked, in what runs and in what is defined.
    """
    domain = find(connection, guest_id)
    if domain is None:
        raise _gone(guest_id)
    _refuse_others(domain, claim)
    if domain.autostart():
        raise autostarts(domain.name())
    wanted = adopted_run(generation, claim)
    if all(_carries(domain, where, generation, claim) for where in _places(domain)):
        return
    ticket.sending()
    domain.setMetadata(ELEMENT, wanted, PREFIX, NAMESPACE, sum(_places(domain)))
    for where in _places(domain):
        if not _carries(domain, where, generation, claim):
            raise not_as_sent("marked", domain, f"reads {mark_of(domain, where)!r}, not {wanted!r}")


def disown(connection: libvirt.virConnect, ticket: Ticket, guest_id: UUID, claim: UUID) -> None:
    """Take the mark of this import away; another's is left. Unmarked or unknown is success."""
    domain = find(connection, guest_id)
    if domain is None:
        return
    marked = [where for where in _places(domain) if _claim(domain, where) == claim]
    if not marked:
        return
    ticket.sending()
    domain.setMetadata(ELEMENT, None, None, NAMESPACE, sum(marked))
    if any(_claim(domain, where) == claim for where in _places(domain)):
        raise not_as_sent("unmarked", domain, "it still carries the mark of the import")


def _read(domain: libvirt.virDomain, *, only_foreign: bool) -> ForeignGuest | None:
    try:
        mark = mark_of(domain, CURRENT)
        generation = None if mark is None else generation_in(mark)
        if only_foreign and generation is not None:
            return None
        found = _definition(domain)
        return ForeignGuest(
            guest_id=found.guest_id,
            name=found.name,
            state=state_of(domain.state()[0]),
            memory_mib=found.memory_mib,
            vcpus=found.vcpus,
            virt_type=found.virt_type,
            machine=found.machine,
            boot=found.boot,
            disks=tuple(found.disks),
            nics=tuple(found.nics),
            persistent=bool(domain.isPersistent()),
            autostart=bool(domain.autostart()),
            generation=generation,
            claim=None if mark is None else claim_in(mark),
            unsupported=tuple(sorted(found.unsupported)),
            lost=tuple(sorted(found.lost)),
        )
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return None
        raise


def _definition(domain: libvirt.virDomain) -> Definition:
    """What runs, or is defined; with what stands against it outside of the XML."""
    try:
        now = domain.XMLDesc(0)
        later = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE) if domain.isPersistent() else now
        found, defined = read_definition(now), read_definition(later)
        found.lost |= cpu_losses(later)
    except (EngineError, ValueError) as unreadable:
        return Definition(
            guest_id=UUID(domain.UUIDString()),
            name=domain.name(),
            memory_mib=0,
            vcpus=0,
            virt_type="",
            machine=DEFAULT_MACHINE,
            unsupported={_why(unreadable)},
        )
    if found.substance != defined.substance:
        found.lost.add("changes to its definition that wait for its next boot")
    found.unsupported |= set(_kept_beside(domain))
    return found


def _why(unreadable: EngineError | ValueError) -> str:
    if isinstance(unreadable, EngineError):
        return unreadable.detail
    return f"its definition cannot be read: {unreadable}"[:REASON_MAX]


def _kept_beside(domain: libvirt.virDomain) -> tuple[str, ...]:
    """State of a guest that its host keeps apart from its disks."""
    kept = []
    if snapshots := domain.snapshotNum(0):
        kept.append(f"snapshots ({snapshots})")
    if domain.hasManagedSaveImage(0):
        kept.append("a saved memory image")
    try:
        if checkpoints := len(domain.listAllCheckpoints(0)):
            kept.append(f"checkpoints ({checkpoints})")
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_SUPPORT:
            raise
    return tuple(kept)


def _named(connection: libvirt.virConnect, name: str) -> libvirt.virDomain | None:
    try:
        return connection.lookupByName(name)
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return None
        raise


def _places(domain: libvirt.virDomain) -> tuple[int, ...]:
    """Where a domain has metadata: in what runs, in what is defined, or in both."""
    places = []
    if domain.isActive():
        places.append(LIVE)
    if domain.isPersistent():
        places.append(CONFIG)
    return tuple(places)


def _claim(domain: libvirt.virDomain, where: int) -> UUID | None:
    mark = mark_of(domain, where)
    return None if mark is None else claim_in(mark)


def _carries(domain: libvirt.virDomain, where: int, generation: int, claim: UUID) -> bool:
    mark = mark_of(domain, where)
    return mark is not None and (generation_in(mark), claim_in(mark)) == (generation, claim)


def _refuse_others(domain: libvirt.virDomain, claim: UUID) -> None:
    for where in _places(domain):
        mark = mark_of(domain, where)
        if mark is not None:
            refuse_claimed(domain.name(), generation_in(mark), claim_in(mark), claim)


def _gone(guest_id: UUID) -> NotFound:
    return NotFound(
        "GUEST_NOT_FOUND",
        f"the host knows no guest {guest_id}",
        next_step="list what the host has: it may have been moved or removed meanwhile",
        guest=str(guest_id),
    )
