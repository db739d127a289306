"""Where VMs go: hosts that hard rules allow and that have room; soft rules, its home, then memory.

Room is memory and, where the cluster limits them, vCPUs. Which host is better, memory alone says.

Pure and deterministic: the same facts give the same plan. The reservation itself is a conditional
update in the store, so a plan made from old facts is refused there, never half carried out.

VMs are placed one at a time, in restart order. A VM that hard rules keep together with others is
bound by the hard rules of those that are still to come: where they may not be they could never
join it, since nothing moves a VM that runs. So it waits for a host where all of them may be. Among
those it first looks for one that has room for them all; beyond that nobody keeps room for those who
come later, so a plan may leave a VM out that a cleverer one would have placed.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from uuid import UUID

from domain.affinity import Affinity, AffinityRule, companies, strain
from domain.base import Frozen


class Room(Frozen):
    """One host that may receive VMs."""

    host_id: UUID
    name: str
    epoch: int
    memory_mib: int  # that it may promise
    reserved_mib: int
    vms: int
    vcpus_reserved: int = 0
    vcpus_most: int | None = None  # it may promise; None: there is no limit
    has_mib: int | None = None  # memory of its own, where it may promise more; None: the same

    @property
    def free_mib(self) -> int:
        """Memory not yet promised to a VM."""
        return self.memory_mib - self.reserved_mib

    @property
    def free_vcpus(self) -> int | None:
        """vCPUs that may still be promised, fewer than none after a limit was lowered; or None."""
        return None if self.vcpus_most is None else self.vcpus_most - self.vcpus_reserved

    def has_vcpus(self, *guests: "Guest") -> bool:
        """Whether it may promise the vCPUs of all of these together."""
        free = self.free_vcpus
        return free is None or sum(guest.vcpus for guest in guests) <= free

    @property
    def largest_mib(self) -> int:
        """What one VM may have: of what is promised twice, nobody gets more than there is."""
        return self.memory_mib if self.has_mib is None else min(self.has_mib, self.memory_mib)

    @property
    def gap_mib(self) -> int:
        """The largest VM that it has memory for now."""
        return min(self.free_mib, self.largest_mib)

    def takes(self, *guests: "Guest") -> bool:
        """Whether it has room for all of these together."""
        memory_mib = sum(guest.memory_mib for guest in guests)
        small = all(guest.memory_mib <= self.largest_mib for guest in guests)
        return small and memory_mib <= self.free_mib and self.has_vcpus(*guests)


class Guest(Frozen):
    """One VM that needs a place."""

    vm_id: UUID
    name: str
    memory_mib: int
    protected: bool
    priority: int
    depends_on: tuple[UUID, ...] = ()
    home_id: UUID | None = None  # the host where it is to run best
    vcpus: int = 1


class Placed(Frozen):
    """A choice: this VM on that host, and the names of the soft rules that gave way."""

    vm_id: UUID
    host_id: UUID
    epoch: int
    gave_way: tuple[str, ...] = ()


class NoRoom(Frozen):
    """No host has room now, or the hard rules leave none of those that have."""

    vm_id: UUID
    detail: str
    shown_on: tuple[str, ...] = ()  # hosts that show a process of it, where no row says so
    after: tuple[str, ...] = ()  # VMs of others that are to be back before it gets a place


class PassedOver(Frozen):
    """A host that a VM did not get, and the first thing that spoke against it."""

    name: str
    why: str


class Told(Frozen):
    """A choice with the VM that it is about and every other host."""

    guest: Guest
    choice: Placed | NoRoom
    host: str | None  # the chosen one's name
    free_mib: int | None  # of the chosen one, before the VM took its part
    free_vcpus: int | None  # likewise; None also where there is no limit
    passed_over: tuple[PassedOver, ...]


NO_RULES = Affinity()
NAMED_MAX = 3
"""Hosts that a sentence about vCPUs names. Higher: a waiting operation says more than one reads."""


def place_one(
    guest: Guest, rooms: tuple[Room, ...], affinity: Affinity = NO_RULES
) -> Placed | NoRoom:
    """The host where the fewest soft rules give way, then its home, then the most free memory.

    Fewer VMs and then the name break ties. Where the VM itself runs now plays no part.
    """
    return _choose(guest, rooms, (guest,), _rules_of(affinity))


def place_again(
    guest: Guest,
    rooms: tuple[Room, ...],
    affinity: Affinity = NO_RULES,
    prefer_id: UUID | None = None,
    avoid: tuple[UUID, ...] = (),
) -> Placed | NoRoom:
    """A place for a VM that failed: where it is preferred, else on the best host not to avoid."""
    return place_again_and_tell(guest, rooms, affinity, prefer_id, avoid).choice


def place_again_and_tell(
    guest: Guest,
    rooms: tuple[Room, ...],
    affinity: Affinity = NO_RULES,
    prefer_id: UUID | None = None,
    avoid: tuple[UUID, ...] = (),
) -> Told:
    """The choice of `place_again`, with what it was made from and the hosts passed over."""
    rules = _rules_of(affinity)
    left = tuple(room for room in rooms if room.host_id not in avoid)
    failed = tuple(room for room in rooms if room.host_id in avoid)
    preferred = tuple(room for room in left if room.host_id == prefer_id)
    among = preferred
    choice = _choose(guest, among, (guest,), rules)
    if isinstance(choice, NoRoom):
        among = left
        choice = _choose(guest, among, (guest,), rules)
    told = _told(_Weighed(guest, among, (guest,), rules, choice))
    others = tuple(room for room in left if room not in among)
    passed = (
        *told.passed_over,
        *(PassedOver(name=room.name, why=f"{told.host} is tried again first") for room in others),
        *(PassedOver(name=room.name, why="its failures keep it away") for room in failed),
    )
    if isinstance(choice, NoRoom) and failed:
        names = ", ".join(sorted(room.name for room in failed))
        detail = f"{choice.detail}; it has failed on {names}"
        choice = NoRoom(vm_id=guest.vm_id, detail=detail)
    return told.model_copy(update={"choice": choice, "passed_over": passed})


def restart_order(guest: Guest) -> tuple[bool, int, str]:
    """Sort key: protected first, then higher priority, then name."""
    return (not guest.protected, -guest.priority, guest.name)


def place_all(
    guests: tuple[Guest, ...], rooms: tuple[Room, ...], affinity: Affinity = NO_RULES
) -> tuple[Placed | NoRoom, ...]:
    """A place for each VM, in restart order, each choice taking its room from the next.

    Rules count VMs that run elsewhere and those that were placed before. Where a VM of `guests`
    ran until now does not count: it needs a place because it is not there any more.
    """
    return tuple(weighed.choice for weighed in _weigh_all(guests, rooms, affinity))


def place_and_tell(
    guests: tuple[Guest, ...], rooms: tuple[Room, ...], affinity: Affinity = NO_RULES
) -> tuple[Told, ...]:
    """The choices of `place_all`, each with what it was made from and the hosts passed over."""
    return tuple(_told(weighed) for weighed in _weigh_all(guests, rooms, affinity))


def _weigh_all(
    guests: tuple[Guest, ...], rooms: tuple[Room, ...], affinity: Affinity
) -> Iterator["_Weighed"]:
    """Each choice with the situation that it was made in, which the next step changes."""
    free = {room.host_id: room for room in rooms}
    waiting = {guest.vm_id: guest for guest in sorted(guests, key=restart_order)}
    rules = _rules_of(affinity)
    for vm_id in waiting:
        rules.running.pop(vm_id, None)
    rules.coming.update(waiting)
    while waiting:
        guest = next(iter(waiting.values()))
        kept = rules.companies.get(guest.vm_id, frozenset({guest.vm_id}))
        group = tuple(waiting[vm_id] for vm_id in sorted(kept) if vm_id in waiting)
        situation = tuple(free.values())
        choice = _choose(guest, situation, group, rules)
        yield _Weighed(guest, situation, group, rules, choice)
        if isinstance(choice, Placed):
            room = free[choice.host_id]
            free[choice.host_id] = _with(room, guest)
            rules.running[guest.vm_id] = choice.host_id
        del waiting[guest.vm_id]


def _with(room: Room, guest: Guest) -> Room:
    taken = {
        "reserved_mib": room.reserved_mib + guest.memory_mib,
        "vcpus_reserved": room.vcpus_reserved + guest.vcpus,
        "vms": room.vms + 1,
    }
    return room.model_copy(update=taken)


@dataclass(frozen=True)
class _Rules:
    """Rules by VM, and where VMs run as far as the plan has come."""

    of: dict[UUID, list[AffinityRule]]
    companies: dict[UUID, frozenset[UUID]]
    running: dict[UUID, UUID]
    coming: set[UUID]

    def strain(self, rule: AffinityRule, vm_id: UUID, room: Room) -> int:
        return strain(rule, vm_id, room.host_id, self.running)

    def binding(self, guest: Guest) -> list[tuple[UUID, AffinityRule]]:
        """The hard rules that bind a VM: its own, then those of whoever is to join it."""
        kept = self.companies.get(guest.vm_id, frozenset()) & self.coming
        joining = sorted(vm for vm in kept if vm != guest.vm_id and vm not in self.running)
        members = (guest.vm_id, *joining)
        return [(vm, rule) for vm in members for rule in self.of.get(vm, []) if rule.hard]


@dataclass(frozen=True)
class _Weighed:
    """One choice and its situation."""

    guest: Guest
    rooms: tuple[Room, ...]
    group: tuple[Guest, ...]
    rules: _Rules
    choice: Placed | NoRoom


def _told(weighed: _Weighed) -> Told:
    choice = weighed.choice
    chosen = choice.host_id if isinstance(choice, Placed) else None
    best = next((room for room in weighed.rooms if room.host_id == chosen), None)
    others = sorted((r for r in weighed.rooms if r is not best), key=lambda room: room.name)
    return Told(
        guest=weighed.guest,
        choice=choice,
        host=best.name if best else None,
        free_mib=best.free_mib if best else None,
        free_vcpus=best.free_vcpus if best else None,
        passed_over=tuple(
            PassedOver(name=room.name, why=_why_not(weighed, room, best)) for room in others
        ),
    )


def _why_not(weighed: _Weighed, room: Room, best: Room | None) -> str:
    return _unfit(weighed, room) or _worse(weighed, room, best)


def _unfit(weighed: _Weighed, room: Room) -> str | None:
    guest = weighed.guest
    for vm_id, rule in weighed.rules.binding(guest):
        if weighed.rules.strain(rule, vm_id, room):
            whose = "" if vm_id == guest.vm_id else ", of a VM that it is kept together with,"
            return f"{rule.words}{whose} forbids it"
    if room.free_mib < guest.memory_mib:
        return f"{room.free_mib} MiB are free, {guest.memory_mib} are needed"
    if room.largest_mib < guest.memory_mib:
        return f"it has {room.largest_mib} MiB in all, {guest.memory_mib} are needed"
    if not room.has_vcpus(guest):
        held = f"{room.vcpus_reserved} of {room.vcpus_most} vCPUs are held"
        return f"{held}, {guest.vcpus} are needed"
    return None


def _worse(weighed: _Weighed, room: Room, best: Room | None) -> str:
    assert best is not None, "a host that is not unfit would have been chosen"
    guest, rules = weighed.guest, weighed.rules
    if _takes(best, weighed.group) and not _takes(room, weighed.group):
        return f"no room for all {len(weighed.group)} VMs that are kept together"
    soft = [rule for rule in rules.of.get(guest.vm_id, []) if not rule.hard]
    given = {r.name: sum(rules.strain(rule, guest.vm_id, r) for rule in soft) for r in (best, room)}
    if given[room.name] > given[best.name]:
        names = ", ".join(rule.name for rule in soft if rules.strain(rule, guest.vm_id, room))
        return f"soft rules would give way: {names}"
    if best.host_id == guest.home_id:
        return f"{best.name} is its home"
    if room.free_mib < best.free_mib:
        return f"{room.free_mib} MiB are free, on {best.name} {best.free_mib}"
    if room.vms > best.vms:
        return f"as much memory is free as on {best.name}, but it runs {room.vms} VMs to {best.vms}"
    return f"as good as {best.name}, which comes first by name"


def _rules_of(affinity: Affinity) -> _Rules:
    of: defaultdict[UUID, list[AffinityRule]] = defaultdict(list)
    for rule in sorted(affinity.rules, key=lambda rule: rule.name):
        for vm_id in set(rule.vm_ids):
            of[vm_id].append(rule)
    kept = companies(affinity.rules)
    return _Rules(dict(of), kept, dict(affinity.running), set(affinity.coming))


def _choose(
    guest: Guest, rooms: tuple[Room, ...], group: tuple[Guest, ...], rules: _Rules
) -> Placed | NoRoom:
    allowed, used = rooms, []
    for vm_id, rule in rules.binding(guest):
        left = tuple(room for room in allowed if rules.strain(rule, vm_id, room) == 0)
        if not left and allowed:
            return NoRoom(vm_id=guest.vm_id, detail=_none_left(guest, rule, len(allowed), rooms))
        used += [rule.name] if len(left) < len(allowed) else []
        allowed = left
    fitting = [room for room in allowed if room.takes(guest)]
    if not fitting:
        return NoRoom(vm_id=guest.vm_id, detail=_too_small(guest, allowed, rooms, used))
    soft = [rule for rule in rules.of.get(guest.vm_id, []) if not rule.hard]

    def rank(room: Room) -> tuple[bool, int, bool, int, int, str]:
        given = sum(rules.strain(rule, guest.vm_id, room) for rule in soft)
        away = room.host_id != guest.home_id
        return (not _takes(room, group), given, away, -room.free_mib, room.vms, room.name)

    best = min(fitting, key=rank)
    gave_way = tuple(rule.name for rule in soft if rules.strain(rule, guest.vm_id, best))
    return Placed(vm_id=guest.vm_id, host_id=best.host_id, epoch=best.epoch, gave_way=gave_way)


def _takes(room: Room, group: tuple[Guest, ...]) -> bool:
    """Whether a host has room for all of a group; their hard rules allow it already."""
    return len(group) == 1 or room.takes(*group)


def _none_left(guest: Guest, rule: AffinityRule, before: int, rooms: tuple[Room, ...]) -> str:
    hosts = f"{len(rooms)} usable hosts"
    if before < len(rooms):
        hosts = f"{before} of {hosts} that its other rules leave"
    whose = "" if guest.vm_id in rule.vm_ids else ", of a VM that it is kept together with,"
    return f"{guest.name}: {rule.words}{whose} leaves none of the {hosts}"


def _too_small(
    guest: Guest, allowed: tuple[Room, ...], rooms: tuple[Room, ...], used: list[str]
) -> str:
    largest = max((room.gap_mib for room in allowed), default=0)
    where = f"{len(rooms)} usable hosts"
    if used:
        where = f"the {len(allowed)} of {where} that {', '.join(used)} leave"
    if roomy := [room for room in allowed if room.gap_mib >= guest.memory_mib]:
        return _too_few_vcpus(guest, roomy, where)
    return f"{guest.name} needs {guest.memory_mib} MiB; the largest gap on {where} is {largest} MiB"


def _too_few_vcpus(guest: Guest, roomy: list[Room], where: str) -> str:
    """What is missing where the memory would do: `roomy` hosts have that."""
    best = sorted(roomy, key=lambda room: (-(room.free_vcpus or 0), room.name))
    held = [f"{room.name} holds {room.vcpus_reserved} of {room.vcpus_most}" for room in best]
    more = f" and {len(held) - NAMED_MAX} more" if len(held) > NAMED_MAX else ""
    wanted = "1 vCPU" if guest.vcpus == 1 else f"{guest.vcpus} vCPUs"
    return (
        f"no host has {wanted} left for {guest.name}: {', '.join(held[:NAMED_MAX])}"
        f"{more}; its {guest.memory_mib} MiB are free on {len(roomy)} of {where}. End or move VMs, "
        "or allow more: `holdfast cluster edit --vcpu-overcommit`"
    )
