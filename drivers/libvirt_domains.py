"""What the calls of a session do with domains; each function runs in a lane's thread.

Each change looks first, says that it is sending, acts, and reads back what it did. The generation
in a domain's metadata decides who may touch it: none means foreign, a higher one means that the
caller was overtaken.

Races  libvirt cannot compare and set. Between look and act only the engine itself could come in,
       and it claims a run in its database first; the connection of a session is what an old
       claimant loses when its host was fenced.
"""

from uuid import UUID

import libvirt

from domain.errors import Conflict, OutcomeUnknown, Superseded
from domain.inventory import GuestSpec
from domain.readings import Domain, DomainState, StateReason
from drivers.domain_xml import NAMESPACE, domain_xml, generation_in
from drivers.libvirt_lane import Ticket

STATES = (
    DomainState.NOSTATE,
    DomainState.RUNNING,
    DomainState.BLOCKED,
    DomainState.PAUSED,
    DomainState.SHUTDOWN,
    DomainState.SHUTOFF,
    DomainState.CRASHED,
    DomainState.PMSUSPENDED,
)
"""By libvirt's number (virDomainState)."""

REASONS = {
    (DomainState.SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN): StateReason.SHUTDOWN,
    (DomainState.SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_DESTROYED): StateReason.DESTROYED,
    (DomainState.SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_CRASHED): StateReason.CRASHED,
    (DomainState.SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_MIGRATED): StateReason.MIGRATED,
    (DomainState.SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_SAVED): StateReason.SAVED,
    (DomainState.SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_FAILED): StateReason.FAILED,
    (DomainState.SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_DAEMON): StateReason.FAILED,
    (DomainState.PAUSED, libvirt.VIR_DOMAIN_PAUSED_IOERROR): StateReason.IO_ERROR,
}
"""By state and libvirt's number; what is not told apart here is unknown."""
HELD_REASONS = frozenset(
    {libvirt.VIR_DOMAIN_PAUSED_MIGRATION, libvirt.VIR_DOMAIN_PAUSED_STARTING_UP}
)
"""Why a domain is paused that libvirt keeps for the other side of a migration."""

LIVE = libvirt.VIR_DOMAIN_AFFECT_LIVE
CONFIG = libvirt.VIR_DOMAIN_AFFECT_CONFIG
CURRENT = libvirt.VIR_DOMAIN_AFFECT_CURRENT
UNDEFINE_FLAGS = (
    libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
    | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
)


def state_of(number: int) -> DomainState:
    """libvirt's state number in our words; a new, unknown one counts as alive."""
    return STATES[number] if 0 <= number < len(STATES) else DomainState.NOSTATE


def reason_of(state: DomainState, number: int) -> StateReason:
    """libvirt's reason number for a state in our words; CRASHED needs none."""
    if state is DomainState.CRASHED:
        return StateReason.CRASHED
    return REASONS.get((state, number), StateReason.UNKNOWN)


def list_domains(connection: libvirt.virConnect) -> tuple[Domain, ...]:
    """Every domain; one that vanishes while it is read is left out."""
    starting = connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_AUTOSTART)
    autostart = {domain.UUIDString() for domain in starting}
    found = []
    for domain, stats in connection.getAllDomainStats(libvirt.VIR_DOMAIN_STATS_STATE):
        state = int(stats.get("state.state", 0)), int(stats.get("state.reason", 0))
        try:
            found.append(_described(domain, state, domain.UUIDString() in autostart))
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                raise
    return tuple(found)


def describe(connection: libvirt.virConnect, vm_id: UUID) -> Domain | None:
    """One domain, or None when the host does not know it."""
    domain = find(connection, vm_id)
    if domain is None:
        return None
    try:
        number, reason = domain.state()
        return _described(domain, (number, reason), bool(domain.autostart()))
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return None
        raise


def define(
    connection: libvirt.virConnect, ticket: Ticket, spec: GuestSpec, generation: int
) -> None:
    """Define, or redefine while inactive; the same generation running is success."""
    domain = find(connection, spec.vm_id)
    if domain is not None:
        check_touchable(domain, generation)
        if domain.isActive():
            check_running(domain, generation)
            return
        _forget_old_name(domain, ticket, spec.name, in_test=_in_test_driver(connection))
    ticket.sending()
    domain = connection.defineXML(domain_xml(spec, generation))
    if domain.autostart():  # Redefining keeps the flag of the earlier definition.
        domain.setAutostart(0)
    if (found := generation_of(domain, CONFIG)) != generation:
        raise not_as_sent("defined", domain, f"its generation reads {found}, not {generation}")


def create(connection: libvirt.virConnect, ticket: Ticket, vm_id: UUID, generation: int) -> None:
    """Start a defined domain; running with this generation is success."""
    domain = find(connection, vm_id)
    if domain is None:
        detail = f"domain {vm_id} is not defined on this host"
        raise Conflict("DOMAIN_NOT_DEFINED", detail, next_step="define it first", vm=str(vm_id))
    check_touchable(domain, generation)
    if domain.isActive():
        check_running(domain, generation)
        return
    if (defined := generation_of(domain, CONFIG)) != generation:
        detail = f"{domain.name()} is defined with generation {defined}, not {generation}"
        raise Conflict("DOMAIN_DEFINED_OLDER", detail, next_step="define it first")
    ticket.sending()
    _create(connection, domain, generation)
    if not domain.isActive():
        raise Conflict(
            "DOMAIN_ENDED_AT_ONCE",
            f"{domain.name()} was started and has ended already",
            next_step="look at the guest's console and at the host's log of its QEMU",
            vm=str(vm_id),
        )
    if (found := generation_of(domain, LIVE)) != generation:
        raise not_as_sent("started", domain, f"its generation reads {found}, not {generation}")


def shutdown(connection: libvirt.virConnect, ticket: Ticket, vm_id: UUID, generation: int) -> None:
    """Press the guest's power button; not running is success. The guest may ignore it."""
    domain = find(connection, vm_id)
    if domain is None:
        return
    check_touchable(domain, generation)
    if not domain.isActive():
        return
    ticket.sending()
    try:
        if _in_test_driver(connection):
            domain.shutdown()
        else:
            domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN)
    except libvirt.libvirtError:
        if _is_active(connection, vm_id):
            raise


def resume(connection: libvirt.virConnect, ticket: Ticket, vm_id: UUID, generation: int) -> None:
    """Let a paused domain of this generation go on; one that is not paused is left as it is."""
    domain = find(connection, vm_id)
    if domain is None:
        return
    check_touchable(domain, generation)
    if state_of(domain.state()[0]) is not DomainState.PAUSED:
        return
    check_running(domain, generation)
    ticket.sending()
    domain.resume()


def destroy(connection: libvirt.virConnect, ticket: Ticket, vm_id: UUID, generation: int) -> None:
    """End a domain of this or an older generation; not running is success."""
    domain = find(connection, vm_id)
    if domain is None:
        return
    check_touchable(domain, generation)
    if not domain.isActive():
        return
    ticket.sending()
    try:
        domain.destroy()
    except libvirt.libvirtError as error:
        if not _is_active(connection, vm_id):
            return
        if error.get_error_code() != libvirt.VIR_ERR_SYSTEM_ERROR:
            raise
        # The kill was sent and QEMU has not gone: stuck in storage I/O, it dies when that ends.
        raise not_as_sent("destroyed", domain, str(error.get_error_message())) from None
    if _is_active(connection, vm_id):
        raise not_as_sent("destroyed", domain, "it still runs")


def undefine(connection: libvirt.virConnect, ticket: Ticket, vm_id: UUID, generation: int) -> None:
    """Forget an inactive domain of this or an older generation; unknown is success."""
    domain = find(connection, vm_id)
    if domain is None:
        return
    check_touchable(domain, generation)
    if domain.isActive():
        detail = f"{domain.name()} runs, and would run on without a definition"
        raise Conflict("DOMAIN_RUNNING", detail, next_step="destroy it first", vm=str(vm_id))
    ticket.sending()
    try:
        domain.undefineFlags(0 if _in_test_driver(connection) else UNDEFINE_FLAGS)
    except libvirt.libvirtError:
        if find(connection, vm_id) is None:
            return
        raise
    if find(connection, vm_id) is not None:
        raise not_as_sent("undefined", domain, "it is still there")


def _forget_old_name(
    domain: libvirt.virDomain, ticket: Ticket, name: str, *, in_test: bool
) -> None:
    """libvirt keeps the name of a UUID: a VM that was imported or renamed is defined from anew."""
    if domain.name() != name and domain.isPersistent():
        ticket.sending()
        domain.undefineFlags(0 if in_test else UNDEFINE_FLAGS)


def _create(connection: libvirt.virConnect, domain: libvirt.virDomain, generation: int) -> None:
    # A saved memory image would bring an earlier run back to life instead of booting this one.
    flags = 0 if _in_test_driver(connection) else libvirt.VIR_DOMAIN_START_FORCE_BOOT
    try:
        domain.createWithFlags(flags)
    except libvirt.libvirtError:
        if not domain.isActive():
            raise
        check_running(domain, generation)


def find(connection: libvirt.virConnect, vm_id: UUID) -> libvirt.virDomain | None:
    """The domain with this UUID, or None when the host does not know it."""
    try:
        return connection.lookupByUUIDString(str(vm_id))
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return None
        raise


def _is_active(connection: libvirt.virConnect, vm_id: UUID) -> bool:
    domain = find(connection, vm_id)
    return domain is not None and bool(domain.isActive())


def _described(domain: libvirt.virDomain, numbers: tuple[int, int], autostart: bool) -> Domain:
    state = state_of(numbers[0])
    return Domain(
        vm_id=UUID(domain.UUIDString()),
        name=domain.name(),
        state=state,
        reason=reason_of(state, numbers[1]),
        generation=generation_of(domain, CURRENT),
        autostart=autostart,
        held=state is DomainState.PAUSED and numbers[1] in HELD_REASONS,
    )


def generation_of(domain: libvirt.virDomain, where: int) -> int | None:
    """The generation in the metadata that runs (LIVE), is defined (CONFIG), or counts (CURRENT)."""
    element = mark_of(domain, where)
    return None if element is None else generation_in(element)


def mark_of(domain: libvirt.virDomain, where: int) -> str | None:
    """Our element of a domain's metadata, or None."""
    try:
        element: str = domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, NAMESPACE, where)
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN_METADATA:
            return None
        raise
    return element


def check_touchable(domain: libvirt.virDomain, generation: int) -> None:
    """Conflict for a foreign domain, Superseded for one of a newer generation."""
    found = generation_of(domain, CURRENT)
    if found is None:
        raise Conflict(
            "DOMAIN_FOREIGN",
            f"{domain.name()} carries no metadata of ours and is never touched",
            next_step="move or remove it by hand, or give the VM another id",
            domain=domain.name(),
        )
    newest = found
    if domain.isActive() and domain.isPersistent():
        newest = max(found, generation_of(domain, CONFIG) or 0)
    if newest > generation:
        raise Superseded(
            "GENERATION_STALE",
            f"{domain.name()} has generation {newest} on this host, {generation} is older",
            next_step="stop; a newer run owns this VM",
            generation=generation,
            found=newest,
        )


def check_running(domain: libvirt.virDomain, generation: int) -> None:
    """Conflict where another generation than this one runs."""
    found = generation_of(domain, LIVE)
    if found != generation:
        raise Conflict(
            "DOMAIN_RUNNING_OLDER",
            f"{domain.name()} still runs with generation {found}, not {generation}",
            next_step="destroy the older run first",
            generation=generation,
            found=found,
        )


def not_as_sent(verb: str, domain: libvirt.virDomain, why: str) -> OutcomeUnknown:
    """The error for a change that was sent and reads back as something else."""
    return OutcomeUnknown(
        "READ_BACK_DIFFERS",
        f"{domain.name()} was {verb}, but {why}",
        next_step="read the domain's state before trying again",
    )


def _in_test_driver(connection: libvirt.virConnect) -> bool:
    return bool(connection.getType() == "TEST")
