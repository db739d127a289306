"""Where VMs go: most free memory first, one VM at a time, in restart order.

Pure and deterministic: the same facts give the same plan. The reservation itself is a conditional
update in the store, so a plan made from old facts is refused there, never half carried out.
"""

from uuid import UUID

from domain.base import Frozen


class Room(Frozen):
    """One host that may receive VMs."""

    host_id: UUID
    name: str
    epoch: int
    memory_mib: int
    reserved_mib: int
    vms: int

    @property
    def free_mib(self) -> int:
        """Memory not yet promised to a VM."""
        return self.memory_mib - self.reserved_mib


class Guest(Frozen):
    """One VM that needs a place."""

    vm_id: UUID
    name: str
    memory_mib: int
    protected: bool
    priority: int
    depends_on: tuple[UUID, ...] = ()


class Placed(Frozen):
    """A choice: this VM on that host."""

    vm_id: UUID
    host_id: UUID
    epoch: int


class NoRoom(Frozen):
    """No host has room now."""

    vm_id: UUID
    detail: str


def place_one(guest: Guest, rooms: tuple[Room, ...]) -> Placed | NoRoom:
    """The host with the most free memory, fewer VMs and then name breaking ties."""
    fitting = [room for room in rooms if room.free_mib >= guest.memory_mib]
    if not fitting:
        largest = max((room.free_mib for room in rooms), default=0)
        detail = (
            f"{guest.name} needs {guest.memory_mib} MiB; the largest gap on "
            f"{len(rooms)} usable hosts is {largest} MiB"
        )
        return NoRoom(vm_id=guest.vm_id, detail=detail)
    best = min(fitting, key=lambda room: (-room.free_mib, room.vms, room.name))
    return Placed(vm_id=guest.vm_id, host_id=best.host_id, epoch=best.epoch)


def restart_order(guest: Guest) -> tuple[bool, int, str]:
    """Sort key: protected first, then higher priority, then name."""
    return (not guest.protected, -guest.priority, guest.name)


def place_all(guests: tuple[Guest, ...], rooms: tuple[Room, ...]) -> tuple[Placed | NoRoom, ...]:
    """A place for each VM, in restart order, each choice taking its memory from the next."""
    free = {room.host_id: room for room in rooms}
    choices: list[Placed | NoRoom] = []
    for guest in sorted(guests, key=restart_order):
        choice = place_one(guest, tuple(free.values()))
        if isinstance(choice, Placed):
            room = free[choice.host_id]
            taken = {"reserved_mib": room.reserved_mib + guest.memory_mib, "vms": room.vms + 1}
            free[choice.host_id] = room.model_copy(update=taken)
        choices.append(choice)
    return tuple(choices)
