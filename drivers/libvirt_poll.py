"""One poll of one host: everything in four calls, none of which waits for a guest."""

import threading
import time
from uuid import UUID

import libvirt

from domain.readings import GuestStats, HostReading
from drivers.boot_mark import read_boot_mark
from drivers.libvirt_domains import reason_of, state_of

STATS = (
    libvirt.VIR_DOMAIN_STATS_STATE
    | libvirt.VIR_DOMAIN_STATS_CPU_TOTAL
    | libvirt.VIR_DOMAIN_STATS_BALLOON
)
ACTIVE_AT_ONCE = (
    libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE
    | libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
)
"""Running domains; figures that only a busy QEMU could give are left out rather than waited for."""

MIB = 1024 * 1024

_reading = threading.Lock()
"""One thread at a time reads libvirt's answers. Reading one is dozens of small calls that each let
go of the interpreter; with a thread a host, all of a round's threads would wake one another at each
of them, which on several cores costs more than the polls. Nothing under the lock waits for a host.
"""


def read_host(connection: libvirt.virConnect) -> HostReading:
    """Read a host; `took_s` is what libvirt needed. libvirt's errors pass through."""
    start = time.monotonic()
    found = connection.getAllDomainStats(STATS, ACTIVE_AT_ONCE)
    node = connection.getInfo()
    free = connection.getFreeMemory()
    mark = read_boot_mark(connection)
    with _reading:
        guests = tuple(_guest(domain, stats) for domain, stats in found)
        found.clear()  # Freeing libvirt's objects is such a call, too.
    return HostReading(
        guests=guests,
        boot_mark=mark,
        memory_total_mib=int(node[1]),
        memory_free_mib=int(free) // MIB,
        cpus=int(node[2]),
        took_s=time.monotonic() - start,
    )


def _guest(domain: libvirt.virDomain, stats: dict[str, int]) -> GuestStats:
    state = state_of(stats.get("state.state", 0))
    return GuestStats(
        vm_id=UUID(bytes=domain.UUID()),
        name=domain.name(),
        state=state,
        reason=reason_of(state, stats.get("state.reason", 0)),
        cpu_time_ns=stats.get("cpu.time", 0),
        memory_kib=stats.get("balloon.current", 0),
    )
