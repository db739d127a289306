"""VMs of a dead host that get no place now, whatever room there is."""

from collections.abc import Collection, Mapping
from uuid import UUID

from domain.placement import Guest, NoRoom, Told


def runs_elsewhere(guest: Guest, hosts: tuple[str, ...]) -> Told:
    """No host is chosen for a VM that some show already: a second copy would destroy its disk."""
    where = " and ".join(hosts)
    detail = (
        f"the last poll of {where} shows a process of {guest.name}, which somebody has moved or"
        " started by hand: it is not started a second time. Shut it down there; its start goes on"
        " by itself then"
    )
    return _nowhere(guest, NoRoom(vm_id=guest.vm_id, detail=detail, shown_on=hosts))


def waits_for(guest: Guest, names: tuple[str, ...]) -> Told:
    """No host is chosen yet for a VM whose start waits for others: they may need that room."""
    detail = f"{' and '.join(names)} is to be back first; its place is chosen then"
    return _nowhere(guest, NoRoom(vm_id=guest.vm_id, detail=detail, after=names))


def _nowhere(guest: Guest, none: NoRoom) -> Told:
    return Told(guest=guest, choice=none, host=None, free_mib=None, free_vcpus=None, passed_over=())


def that_wait(
    sequence: tuple[Guest, ...], outside: Mapping[UUID, Collection[str]]
) -> dict[UUID, tuple[str, ...]]:
    """VMs that wait for others, by name: those with some `outside`, and whoever depends on them.

    `sequence` has each VM after every one that it depends on. A place that such a VM held meanwhile
    could be the room that the one needs for which it waits.
    """
    names = {guest.vm_id: guest.name for guest in sequence}
    waiting: dict[UUID, tuple[str, ...]] = {}
    for guest in sequence:
        within = [names[other] for other in guest.depends_on if other in waiting]
        found = (*outside.get(guest.vm_id, ()), *within)
        if found:
            waiting[guest.vm_id] = found
    return waiting
