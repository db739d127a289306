"""Renewing the mark of a domain that lives: it is the copy of a newer run from then on.

Marking writes one element into the metadata, into what runs and into what is defined; the guest
itself is never touched. The mark of an import that once claimed the guest goes with the old one.

Races  A guest that ends while it is marked is read back with a mark missing: the caller is told
       that the outcome is unknown, and a repetition is refused.
"""

from uuid import UUID
from xml.etree import ElementTree as ET

import libvirt

from domain.errors import Conflict
from drivers.domain_xml import NAMESPACE, PREFIX, with_generation
from drivers.libvirt_domains import (
    CONFIG,
    LIVE,
    check_running,
    check_touchable,
    find,
    generation_of,
    not_as_sent,
)
from drivers.libvirt_lane import Ticket


def renew(
    connection: libvirt.virConnect,
    ticket: Ticket,
    vm_id: UUID,
    generation: int,
    new_generation: int,
) -> None:
    """Mark what lives with `generation`; marked as new already is success.

    Conflict: DOMAIN_NOT_RUNNING, DOMAIN_FOREIGN, DOMAIN_RUNNING_OLDER. Superseded where the host
    holds a newer generation. OutcomeUnknown when it does not read back as marked, in what runs and
    in what is defined.
    """
    domain = find(connection, vm_id)
    if domain is None or not domain.isActive():
        detail = f"domain {vm_id} does not run on this host"
        raise Conflict("DOMAIN_NOT_RUNNING", detail, next_step="read where it runs", vm=str(vm_id))
    check_touchable(domain, new_generation)
    if generation_of(domain, LIVE) != new_generation:
        check_running(domain, generation)
    if _reads(domain) == (new_generation, new_generation):
        return
    _write(connection, ticket, domain, new_generation)
    if (found := _reads(domain)) != (new_generation, new_generation):
        raise not_as_sent("marked", domain, f"it runs and is defined with generations {found}")


def _write(
    connection: libvirt.virConnect, ticket: Ticket, domain: libvirt.virDomain, generation: int
) -> None:
    mark = ET.tostring(ET.Element("run", generation=str(generation)), encoding="unicode")
    where = LIVE | CONFIG if domain.isPersistent() else LIVE
    ticket.sending()
    domain.setMetadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, mark, PREFIX, NAMESPACE, where)
    if not domain.isPersistent():
        # `virsh migrate` leaves it undefined there: it would vanish with its end, and its reason.
        flags = libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE
        wanted = with_generation(domain.XMLDesc(flags), generation)
        ticket.sending()  # whoever asked may have given up since the first of the two
        connection.defineXML(wanted)


def _reads(domain: libvirt.virDomain) -> tuple[int | None, int | None]:
    """The generations in what runs and in what is defined."""
    kept = generation_of(domain, CONFIG) if domain.isPersistent() else None
    return generation_of(domain, LIVE), kept
