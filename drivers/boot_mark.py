"""The mark of one boot of a host: a transient storage pool named after the host's epoch.

libvirt forgets a transient object when the machine restarts and keeps it when only its daemon
does, which is the difference that matters. The pool holds nothing.

Invariants  The highest mark counts. The new one is made before older ones go, so a host that was
            cut off in between still carries a mark.
Races       Two engines marking at once leave the higher mark, whatever their order.
"""

import re

import libvirt

from domain.errors import Superseded
from drivers.libvirt_lane import Ticket

NAME_PATTERN = re.compile(r"holdfast-epoch-([0-9]{1,18})")
FOLDER = "/run/holdfast"
"""On the host; each mark has an empty folder of its own, because libvirt scans a pool's folder and
refuses two pools over one."""


def read_boot_mark(connection: libvirt.virConnect) -> int | None:
    """The highest epoch that this boot was marked with."""
    return max(_marks(connection), default=None)


def write_boot_mark(connection: libvirt.virConnect, ticket: Ticket, epoch: int) -> None:
    """Mark with an epoch and remove older marks; idempotent. Superseded below the present one."""
    present = _marks(connection)
    if present and max(present) > epoch:
        raise Superseded(
            "EPOCH_STALE",
            f"the host is marked with epoch {max(present)}, {epoch} is older",
            next_step="another activation has overtaken this one, or another engine marked this "
            f"boot: reboot the host, or remove its pool holdfast-epoch-{max(present)}",
            epoch=epoch,
            found=max(present),
        )
    if epoch not in present:
        ticket.sending()
        _create(connection, epoch)
    for older in sorted(present - {epoch}):
        ticket.sending()
        _remove(connection, older)


def _marks(connection: libvirt.virConnect) -> set[int]:
    active = connection.listAllStoragePools(libvirt.VIR_CONNECT_LIST_STORAGE_POOLS_ACTIVE)
    found = (NAME_PATTERN.fullmatch(pool.name()) for pool in active)
    return {int(match[1]) for match in found if match}


def _create(connection: libvirt.virConnect, epoch: int) -> None:
    name = f"holdfast-epoch-{epoch}"
    xml = (
        f"<pool type='dir'><name>{name}</name>"
        f"<target><path>{FOLDER}/epoch-{epoch}</path></target></pool>"
    )
    in_test_driver = connection.getType() == "TEST"  # It has no folders, and refuses the flag.
    flags = 0 if in_test_driver else libvirt.VIR_STORAGE_POOL_CREATE_WITH_BUILD
    try:
        connection.storagePoolCreateXML(xml, flags)
    except libvirt.libvirtError:
        # Another engine may have marked it at the same time, which is as good.
        if epoch not in _marks(connection):
            raise


def _remove(connection: libvirt.virConnect, epoch: int) -> None:
    try:
        connection.storagePoolLookupByName(f"holdfast-epoch-{epoch}").destroy()
    except libvirt.libvirtError:
        if epoch in _marks(connection):
            raise
