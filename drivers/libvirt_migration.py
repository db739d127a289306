"""Moving a running domain to another host; each function runs in a lane's thread.

Peer to peer: the source's libvirtd connects to the target's and carries on when whoever asked is
gone. So a lost answer says nothing, and only reading both hosts tells who has the guest. The
target's copy is sent with a definition of its own, which differs from the source's in nothing but
the generation in our metadata.

Disks are on shared storage at the same path (`VIR_MIGRATE_UNSAFE`: a plain directory is no shared
file system to libvirt, and ours are opened without the host's cache, which is what it asks for).
"""

from uuid import UUID
from xml.etree import ElementTree as ET

import libvirt

from domain.errors import Conflict
from domain.readings import Migration
from drivers.domain_xml import bar_xml, with_generation
from drivers.libvirt_domains import (
    CONFIG,
    check_running,
    check_touchable,
    find,
    generation_of,
    not_as_sent,
    undefine,
)
from drivers.libvirt_lane import Ticket

FLAGS = (
    libvirt.VIR_MIGRATE_LIVE
    | libvirt.VIR_MIGRATE_PEER2PEER
    | libvirt.VIR_MIGRATE_PERSIST_DEST
    | libvirt.VIR_MIGRATE_UNDEFINE_SOURCE
    | libvirt.VIR_MIGRATE_UNSAFE
    | libvirt.VIR_MIGRATE_ABORT_ON_ERROR
)
MOVING_JOBS = frozenset(
    {libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT, libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_IN}
)
NOT_LEAVING = frozenset(
    {
        *(libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID),  # it has left, or ended
        libvirt.VIR_ERR_OPERATION_UNSUPPORTED,  # it is arriving: only its source counts
    }
)
"""What libvirt says of the job of a domain that nothing moves away."""
MIB = 1024 * 1024


def migrate(
    connection: libvirt.virConnect,
    ticket: Ticket,
    vm_id: UUID,
    generation: int,
    target_uri: str,
    target_generation: int,
) -> None:
    """Move a domain that runs with this generation; returns when libvirt says that it is there.

    Conflict: DOMAIN_NOT_RUNNING, DOMAIN_RUNNING_OLDER, or what libvirt says against it.
    """
    domain = _running(connection, vm_id, generation)
    live = with_generation(
        domain.XMLDesc(libvirt.VIR_DOMAIN_XML_MIGRATABLE | libvirt.VIR_DOMAIN_XML_SECURE),
        target_generation,
    )
    kept = with_generation(
        domain.XMLDesc(
            libvirt.VIR_DOMAIN_XML_MIGRATABLE
            | libvirt.VIR_DOMAIN_XML_SECURE
            | libvirt.VIR_DOMAIN_XML_INACTIVE
        ),
        target_generation,
    )
    given = {
        libvirt.VIR_MIGRATE_PARAM_DEST_XML: live,
        libvirt.VIR_MIGRATE_PARAM_PERSIST_XML: kept,
    }
    ticket.sending()
    domain.migrateToURI3(target_uri, given, FLAGS)


def migration(connection: libvirt.virConnect, vm_id: UUID) -> Migration | None:
    """How far a job that moves the domain is; None without one."""
    domain = find(connection, vm_id)
    if domain is None or not domain.isActive():
        return None
    try:
        stats = domain.jobStats()
    except libvirt.libvirtError as error:
        if error.get_error_code() in NOT_LEAVING:
            return None
        raise
    if stats.get("type", 0) == libvirt.VIR_DOMAIN_JOB_NONE:
        return None
    if stats.get("operation", 0) not in MOVING_JOBS:
        return None
    return Migration(
        done_mib=int(stats.get("data_processed", 0)) // MIB,
        total_mib=max(int(stats.get("data_total", 0)), int(stats.get("data_processed", 0))) // MIB,
        took_s=int(stats.get("time_elapsed", 0)) / 1000,
    )


def abort_migration(
    connection: libvirt.virConnect, ticket: Ticket, vm_id: UUID, generation: int
) -> None:
    """Give up moving a domain; none under way is success. The guest runs on where it is."""
    if migration(connection, vm_id) is None:
        return
    domain = find(connection, vm_id)
    if domain is None:
        return
    check_touchable(domain, generation)
    ticket.sending()
    try:
        domain.abortJob()
    except libvirt.libvirtError:
        if migration(connection, vm_id) is not None:
            raise


def refuse_arrival(
    connection: libvirt.virConnect, ticket: Ticket, vm_id: UUID, generation: int
) -> None:
    """Keep the domain's UUID taken by a definition of another name, which libvirt never replaces.

    A `migrateToURI3` that a stopped process sends late, long after its migration was settled, is
    then refused by the target: libvirt itself cannot compare generations. Nobody starts this.
    """
    domain = find(connection, vm_id)
    bar = bar_xml(vm_id, generation)
    if domain is not None:
        if domain.name() == _name_in(bar) and generation_of(domain, CONFIG) == generation:
            return
        undefine(connection, ticket, vm_id, generation)
    ticket.sending()
    made = connection.defineXML(bar)
    if (found := generation_of(made, CONFIG)) != generation:
        raise not_as_sent("barred", made, f"its generation reads {found}, not {generation}")


def _running(connection: libvirt.virConnect, vm_id: UUID, generation: int) -> libvirt.virDomain:
    domain = find(connection, vm_id)
    if domain is None or not domain.isActive():
        detail = f"domain {vm_id} does not run on this host"
        raise Conflict("DOMAIN_NOT_RUNNING", detail, next_step="read where it runs")
    check_touchable(domain, generation)
    check_running(domain, generation)
    return domain


def _name_in(xml: str) -> str | None:
    return ET.fromstring(xml).findtext("name")
