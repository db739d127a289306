"""Whom to stop so that a more important VM finds room: pure, and on one host at a time.

A VM is stopped only where its cluster allows it (`MakeRoom.SHUTDOWN`), for one of strictly higher
priority that a recovery could place nowhere. Of all hosts and sets of VMs whose end makes room
under every hard rule, the choice stops the fewest protected VMs; then the least important ones,
by the highest priority among them; then the fewest; then those with the least memory. What decides
last is the host's name. For the memory alone that is a good set, not the best of all: no single VM
of it can be exchanged for a smaller one. Room is memory and, where the cluster limits them, vCPUs.

Invariants  A set is offered only once `place_one` has put the VM on that host without it.
            Nobody is in it whom a VM of higher priority than its own needs, who is in other hands,
            who may not be stopped for others, or whom hard rules keep together with the VM.
"""

from bisect import bisect
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from typing import NamedTuple
from uuid import UUID

from domain.affinity import Affinity, companies
from domain.base import Frozen
from domain.placement import Guest, NoRoom, PassedOver, Placed, Room, place_one


class MakeRoom(StrEnum):
    """Whether VMs are stopped for those of higher priority that a recovery cannot place."""

    OFF = "off"
    SHUTDOWN = "shutdown"


MAKE_ROOM_MAX = 10
"""VMs that are stopped for others in one incident, unless the cluster says otherwise. Higher: one
dead host may take down much of what still ran. Lower: important VMs wait for a person."""

MAKE_ROOM_MAX_MOST = 1000

STOP_AGAIN_S = 30
STOP_AGAIN_MAX_S = 1800
"""First and longest wait before a stop that failed half way is ordered again; doubled each time.
Higher: a VM stays half stopped longer. Lower: a host that cannot end it is asked again and again.
By the clock on the wall: a wrong one makes a stop come early or late, which harms nobody."""


def stop_again_after_s(failures: int) -> int:
    """How long is waited after so many stops of one VM that failed."""
    return int(min(STOP_AGAIN_S * 2.0 ** min(failures - 1, 16), STOP_AGAIN_MAX_S))


class Running(Frozen):
    """One VM that runs, and what is known of it.

    needed_by  the highest priority of the VMs that are wanted and cannot do without it
    in_hands   an operation works on it, or it is owed a start
    """

    guest: Guest
    host_id: UUID
    may_be_stopped: bool = True
    needed_by: int | None = None
    in_hands: bool = False


class RoomMade(Frozen):
    """A choice: these VMs of that host are stopped."""

    host_id: UUID
    host: str
    stop: tuple[Guest, ...]
    passed_over: tuple[PassedOver, ...] = ()

    @property
    def names(self) -> str:
        """The VMs for a sentence."""
        return ", ".join(sorted(guest.name for guest in self.stop))


class NobodyToStop(Frozen):
    """No host would have room whoever of those that may be is stopped."""

    detail: str
    passed_over: tuple[PassedOver, ...] = ()


def make_room(
    guest: Guest,
    rooms: tuple[Room, ...],
    affinity: Affinity,
    running: tuple[Running, ...],
    most: int,
) -> RoomMade | NobodyToStop:
    """Whom to stop for a VM that has no room on any of `rooms`; at most `most` VMs."""
    offers: dict[str, tuple[Room, tuple[Running, ...]]] = {}
    passed: dict[str, str] = {}
    for room in sorted(rooms, key=lambda room: room.name):
        found = _on(guest, room, affinity, running, most)
        if isinstance(found, str):
            passed[room.name] = found
        else:
            offers[room.name] = (room, found)
    if not offers:
        detail = f"nobody may be stopped for {guest.name} on any of {len(rooms)} usable hosts"
        return NobodyToStop(detail=detail, passed_over=_passed(passed))
    best = min(offers, key=lambda name: (_cost(offers[name][1]), name))
    for name, (_room, others) in offers.items():
        if name != best:
            passed[name] = f"it would cost more: {_told(others)}"
    room, stopped = offers[best]
    return RoomMade(
        host_id=room.host_id,
        host=room.name,
        stop=tuple(one.guest for one in stopped),
        passed_over=_passed(passed),
    )


def needed_most(
    depends_on: Mapping[UUID, Iterable[UUID]], wanted: Mapping[UUID, int]
) -> dict[UUID, int]:
    """For each VM the highest priority of the wanted ones that need it, directly or through others.

    `wanted` has the priority of each VM that is to run. A VM that nobody needs is left out.
    """
    found: dict[UUID, int] = {}
    for vm_id in sorted(wanted, key=lambda one: (-wanted[one], one)):
        path = [vm_id]
        while path:
            for other in depends_on.get(path.pop(), ()):
                if other not in found:  # whoever came here before is at least as important
                    found[other] = wanted[vm_id]
                    path.append(other)
    return found


def why_spared(one: Running, guest: Guest) -> str | None:
    """Why a VM is not stopped for another; None: it may be."""
    own = one.guest.priority
    if not outranked(one.guest, guest):
        return f"its priority {own} is not below {guest.priority}"
    if not one.may_be_stopped:
        return "it may not be stopped for others"
    if one.needed_by is not None and one.needed_by > own:
        return f"a VM of priority {one.needed_by} needs it"
    return "it is in other hands" if one.in_hands else None


def outranked(one: Guest, by: Guest) -> bool:
    """Whether a VM is strictly less important than another."""
    return one.priority < by.priority


def _on(
    guest: Guest, room: Room, affinity: Affinity, running: tuple[Running, ...], most: int
) -> tuple[Running, ...] | str:
    """The VMs to stop on one host, or why that does not help."""
    here = [one for one in running if one.host_id == room.host_id]
    kept = companies(affinity.rules).get(guest.vm_id, frozenset())
    free = [one for one in here if why_spared(one, guest) is None]
    able = [one for one in free if one.guest.vm_id not in kept]
    in_the_way = set(_in_the_way(guest, affinity))
    forced = [one for one in here if one.guest.vm_id in in_the_way]
    for one in forced:
        if one not in able:
            why = why_spared(one, guest) or "it is kept together with it"
            return f"hard rules keep it apart from {one.guest.name}: {why}"
    others = [one for one in able if one not in forced]
    chosen = _fewest(_needed(guest, room), forced, others, most)
    if chosen is None:
        whom = f"the {len(able)} of {len(here)} VMs that may be stopped (at most {most})"
        return f"{_at_most(guest, room, able, whom)} are needed"
    placed = _placed_without(guest, room, affinity, chosen)
    return placed.detail if isinstance(placed, NoRoom) else chosen


def _in_the_way(guest: Guest, affinity: Affinity) -> Iterator[UUID]:
    """VMs that hard rules keep apart from a VM."""
    for rule in affinity.rules:
        if rule.hard and not rule.together and not rule.host_ids and guest.vm_id in rule.vm_ids:
            yield from (vm_id for vm_id in rule.vm_ids if vm_id != guest.vm_id)


class _Needed(NamedTuple):
    """What the end of VMs has to give; nothing or less where there is enough."""

    memory_mib: int
    vcpus: int

    def less(self, these: Iterable[Running]) -> "_Needed":
        """What is left to give once these have ended."""
        gone = tuple(these)
        return _Needed(self.memory_mib - _memory(gone), self.vcpus - _vcpus(gone))

    def met_by(self, these: Iterable[Running]) -> bool:
        left = self.less(these)
        return left.memory_mib <= 0 and left.vcpus <= 0


def _needed(guest: Guest, room: Room) -> _Needed:
    free = room.free_vcpus
    vcpus = 0 if free is None else guest.vcpus - free
    return _Needed(guest.memory_mib - room.free_mib, vcpus)


def _at_most(guest: Guest, room: Room, able: list[Running], whom: str) -> str:
    """What the end of all that may be stopped would give of what is missing."""
    mib, vcpus = room.free_mib + _memory(able), _vcpus(able) + (room.free_vcpus or 0)
    if mib >= guest.memory_mib and room.free_vcpus is not None and vcpus < guest.vcpus:
        return f"{vcpus} vCPUs would be free without {whom}, {guest.vcpus}"
    return f"{mib} MiB would be free without {whom}, {guest.memory_mib}"


def _fewest(
    needed: _Needed, forced: list[Running], others: list[Running], most: int
) -> tuple[Running, ...] | None:
    """The cheapest VMs that give what is needed, those among them that have to go anyhow."""
    needed = needed.less(forced)
    least = max((one.guest.priority for one in forced), default=0)
    levels = sorted({max(least, one.guest.priority) for one in others} or {least})
    unprotected = [one for one in others if not one.guest.protected]
    protected = [one for one in others if one.guest.protected]

    def among(level: int, count: int) -> tuple[Running, ...] | None:
        """As many protected ones, and none above a priority."""
        first, left = _largest(protected, level), most - len(forced) - count
        if left < 0 or len(first) < count:
            return None
        return _enough(needed, first, count, _largest(unprotected, level), left)

    for count in range(len(protected) + 1):
        if among(levels[-1], count) is not None:
            # Whoever may be stopped up to a priority may be stopped up to a higher one, too.
            lowest = bisect(levels, False, key=lambda level: among(level, count) is not None)
            pool = [one for one in others if one.guest.priority <= levels[lowest]]
            chosen = among(levels[lowest], count)
            assert chosen is not None
            return (*forced, *_exchanged(needed, chosen, pool))
    return None


def _largest(these: list[Running], level: int) -> list[Running]:
    fitting = [one for one in these if one.guest.priority <= level]
    return sorted(fitting, key=lambda one: (-one.guest.memory_mib, one.guest.name))


def _enough(
    needed: _Needed, first: list[Running], count: int, more: list[Running], most: int
) -> tuple[Running, ...] | None:
    """`count` of `first` and as few of `more` as it takes, at most so many; None: too little.

    Both come with the largest memory first.
    """
    for_memory = _greedily(_Needed(needed.memory_mib, 0), first[:count], more[:most])
    if for_memory is None or needed.met_by(for_memory):
        return for_memory
    by_vcpus = {one.guest.vm_id: -one.guest.vcpus for one in (*first, *more)}
    widest = [sorted(these, key=lambda one: by_vcpus[one.guest.vm_id]) for these in (first, more)]
    vcpus = _Needed(0, needed.vcpus)
    if _greedily(vcpus, widest[0][:count], widest[1][:most]) is None:
        return None
    # Beside the same of `first`, whoever give the memory and whoever give the vCPUs are enough
    # together. Where those cannot give the vCPUs, others of `first` may, with as many as allowed.
    for_vcpus = _greedily(vcpus, first[:count], widest[1][:most])
    bound = min(most, len(more))
    if for_vcpus is not None:
        bound = min(bound, len(for_memory) + len(for_vcpus) - 2 * count)
    return _both(needed, _richest(first, count, needed)[count], _richest(more, bound, needed))


def _greedily(
    needed: _Needed, first: list[Running], more: list[Running]
) -> tuple[Running, ...] | None:
    """`first` and as few of `more` as it takes, in their order; None: all are too little."""
    chosen = list(first)
    rest = iter(more)
    while not needed.met_by(chosen):
        following = next(rest, None)
        if following is None:
            return None
        chosen.append(following)
    return tuple(chosen)


_Sets = dict[int, tuple[Running, ...]]


def _richest(pool: list[Running], most: int, needed: _Needed) -> list[_Sets]:
    """For each number of VMs up to `most`, and of vCPUs up to those needed: the most memory.

    More vCPUs than are needed count as those needed.
    """
    found: list[_Sets] = [{0: ()}, *({} for _ in range(most))]
    for one in pool:
        for number in reversed(range(most)):
            for vcpus, chosen in found[number].items():
                given = min(needed.vcpus, vcpus + one.guest.vcpus)
                better = (*chosen, one)
                if _memory(better) > _memory(found[number + 1].get(given, ())):
                    found[number + 1][given] = better
    return found


def _both(needed: _Needed, first: _Sets, more: list[_Sets]) -> tuple[Running, ...] | None:
    """One set of `first` with the smallest of `more` that gives both memory and vCPUs."""
    for sets in more:
        pairs = ((*some, *others) for some in first.values() for others in sets.values())
        enough = [pair for pair in pairs if needed.met_by(pair)]
        if enough:
            return min(enough, key=_memory)
    return None


def _exchanged(
    needed: _Needed, chosen: tuple[Running, ...], pool: list[Running]
) -> tuple[Running, ...]:
    """The same number of VMs with less memory, as far as exchanging one at a time leads."""
    kept = list(chosen)
    for index, one in enumerate(chosen):
        rest = [*kept[:index], *kept[index + 1 :]]
        fitting = [
            other
            for other in pool
            if other not in kept
            and other.guest.protected == one.guest.protected
            and other.guest.memory_mib < one.guest.memory_mib
            and needed.met_by((*rest, other))
        ]
        if fitting:
            kept[index] = min(fitting, key=lambda one: (one.guest.memory_mib, one.guest.name))
    return tuple(kept)


def _placed_without(
    guest: Guest, room: Room, affinity: Affinity, stopped: tuple[Running, ...]
) -> Placed | NoRoom:
    gone = {one.guest.vm_id for one in stopped}
    left = room.model_copy(
        update={
            "reserved_mib": room.reserved_mib - _memory(stopped),
            "vcpus_reserved": room.vcpus_reserved - _vcpus(stopped),
            "vms": room.vms - len(stopped),
        }
    )
    elsewhere = {vm: host for vm, host in affinity.running.items() if vm not in gone}
    return place_one(guest, (left,), affinity.model_copy(update={"running": elsewhere}))


def _memory(these: Iterable[Running]) -> int:
    return sum(one.guest.memory_mib for one in these)


def _vcpus(these: Iterable[Running]) -> int:
    return sum(one.guest.vcpus for one in these)


def _cost(stopped: tuple[Running, ...]) -> tuple[int, int, int, int]:
    guests = [one.guest for one in stopped]
    highest = max((guest.priority for guest in guests), default=-1)
    return (sum(guest.protected for guest in guests), highest, len(guests), _memory(stopped))


def _told(stopped: tuple[Running, ...]) -> str:
    names = ", ".join(sorted(one.guest.name for one in stopped))
    protected, highest, _count, memory_mib = _cost(stopped)
    return f"{names} ({protected} protected, priority up to {highest}, {memory_mib} MiB)"


def _passed(passed: Mapping[str, str]) -> tuple[PassedOver, ...]:
    return tuple(PassedOver(name=name, why=passed[name]) for name in sorted(passed))
