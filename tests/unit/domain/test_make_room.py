"""Whom a recovery stops for a VM that finds no room: checked against all sets there are."""

from itertools import combinations
from random import Random
from typing import Any
from uuid import UUID

import pytest

from domain.affinity import Affinity, AffinityRule
from domain.make_room import (
    NobodyToStop,
    RoomMade,
    Running,
    make_room,
    needed_most,
    stop_again_after_s,
)
from domain.placement import Guest, Placed, Room, place_one

pytestmark = pytest.mark.unit

WANTING = Guest(vm_id=UUID(int=999), name="wanting", memory_mib=400, protected=True, priority=80)


def host(
    number: int, reserved_mib: int = 1000, memory_mib: int = 1000, **vcpus: int | None
) -> Room:
    return Room(
        host_id=UUID(int=number),
        name=f"h{number}",
        epoch=1,
        memory_mib=memory_mib,
        reserved_mib=reserved_mib,
        vms=3,
        **vcpus,
    )


def vm(name: str, on: int, memory_mib: int = 400, priority: int = 10, **facts: Any) -> Running:
    protected = bool(facts.pop("protected", False))
    guest = Guest(
        vm_id=UUID(int=int.from_bytes(name.encode())),
        name=name,
        memory_mib=memory_mib,
        protected=protected,
        priority=priority,
        vcpus=int(facts.pop("vcpus", 1)),
    )
    return Running.model_validate({"guest": guest, "host_id": UUID(int=on), **facts})


def stopped(*running: Running, rooms: tuple[Room, ...] = (host(1), host(2)), **how: object) -> str:
    """`host: names` of the choice, or what is said instead."""
    affinity = how.get("affinity", Affinity())
    most = how.get("most", 10)
    assert isinstance(affinity, Affinity)
    assert isinstance(most, int)
    found = make_room(WANTING, rooms, affinity, running, most)
    return f"{found.host}: {found.names}" if isinstance(found, RoomMade) else found.detail


NOBODY = "nobody may be stopped for wanting on any of 2 usable hosts"


def test_an_unprotected_vm_goes_before_a_protected_one_whatever_their_priorities() -> None:
    assert stopped(vm("a", 1, priority=1, protected=True), vm("b", 2, priority=70)) == "h2: b"


def test_of_unprotected_ones_the_least_important_goes_though_it_takes_more_of_them() -> None:
    small = (vm("a", 1, 200, priority=5), vm("b", 1, 200, priority=6))
    assert stopped(*small, vm("c", 2, priority=7)) == "h1: a, b"


def test_of_equally_important_ones_the_fewest_go_and_of_those_the_smallest() -> None:
    two = (vm("a", 1, 200), vm("b", 1, 200))
    assert stopped(*two, vm("c", 2, 900), vm("d", 2, 500)) == "h2: d"


@pytest.mark.parametrize("priority", [80, 81])
def test_a_vm_of_the_same_or_of_higher_priority_is_never_stopped(priority: int) -> None:
    assert stopped(vm("a", 1, priority=priority)) == NOBODY
    assert stopped(vm("a", 1, priority=79)) == "h1: a"


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ({"may_be_stopped": False}, "0 of 1"),
        ({"needed_by": 11}, "0 of 1"),
        ({"in_hands": True}, "0 of 1"),
    ],
)
def test_whoever_may_not_be_stopped_is_not(facts: dict[str, Any], why: str) -> None:
    found = make_room(WANTING, (host(1),), Affinity(), (vm("a", 1, **facts),), 10)
    assert isinstance(found, NobodyToStop)
    (passed,) = found.passed_over
    assert why in passed.why


def test_one_that_only_less_important_vms_need_is_stopped() -> None:
    assert stopped(vm("a", 1, needed_by=10)) == "h1: a"


def test_no_more_are_stopped_than_the_policy_allows() -> None:
    two = (vm("a", 1, 200), vm("b", 1, 200))
    assert stopped(*two, most=2) == "h1: a, b"
    assert stopped(*two, most=1) == NOBODY
    assert stopped(*two, vm("big", 2, 900, priority=70), most=1) == "h2: big"


def rule(*names: Running, together: bool) -> AffinityRule:
    ids = (WANTING.vm_id, *(one.guest.vm_id for one in names))
    return AffinityRule(name="r", together=together, hard=True, vm_ids=ids)


def test_a_vm_that_a_hard_rule_keeps_apart_has_to_go_from_a_host_that_has_room() -> None:
    a, b = vm("a", 1, 100), vm("b", 1, 100)
    where = {a.guest.vm_id: a.host_id}
    kept = Affinity(rules=(rule(a, together=False),), running=where)
    assert stopped(a, b, rooms=(host(1, reserved_mib=200),), affinity=kept) == "h1: a"


def test_a_vm_that_it_is_to_join_is_not_stopped_for_it() -> None:
    a, b = vm("a", 1), vm("b", 2)
    where = {a.guest.vm_id: a.host_id}
    kept = Affinity(rules=(rule(a, together=True),), running=where)
    assert stopped(a, b, affinity=kept) == NOBODY
    assert stopped(a, b, vm("c", 1, priority=70), affinity=kept) == "h1: c"


def test_the_hosts_passed_over_say_why() -> None:
    found = make_room(WANTING, (host(1), host(2), host(3)), Affinity(), (vm("a", 1), vm("b", 2)), 9)
    assert isinstance(found, RoomMade)
    told = {one.name: one.why for one in found.passed_over}
    assert told["h2"] == "it would cost more: b (0 protected, priority up to 10, 400 MiB)"
    assert told["h3"].startswith("0 MiB would be free without the 0 of 0 VMs")


def test_what_needs_a_vm_is_followed_through_all_that_stand_between() -> None:
    a, b, c, d = (UUID(int=n) for n in range(1, 5))
    depends = {a: [b], b: [c], d: [c]}
    assert needed_most(depends, {a: 90, c: 5, d: 20}) == {b: 90, c: 90}
    assert needed_most(depends, {d: 20}) == {c: 20}
    assert needed_most({a: [b], b: [a]}, {a: 3}) == {a: 3, b: 3}


WIDE = WANTING.model_copy(update={"vcpus": 4})


def test_vms_are_stopped_for_vcpus_though_there_is_memory() -> None:
    room = host(1, reserved_mib=0, vcpus_reserved=8, vcpus_most=8)
    narrow = tuple(vm(f"n{n}", 1, 10) for n in range(4))
    found = make_room(WIDE, (room,), Affinity(), (*narrow, vm("wide", 1, 300, vcpus=4)), 10)
    assert isinstance(found, RoomMade)
    assert found.names == "wide", "one in place of four"


def test_who_gives_the_memory_and_who_gives_the_vcpus_may_be_different_vms() -> None:
    room = host(1, reserved_mib=1000, vcpus_reserved=8, vcpus_most=8)
    running = (vm("big", 1, 380), vm("wide", 1, 20, vcpus=3), vm("c", 1, 200), vm("d", 1, 200))
    found = make_room(WIDE, (room,), Affinity(), running, 10)
    assert isinstance(found, RoomMade)
    assert found.names == "big, wide"


def test_a_protected_one_goes_with_more_unprotected_ones_rather_than_with_a_protected_one() -> None:
    wanting = WANTING.model_copy(update={"memory_mib": 100, "vcpus": 100})
    pair = (vm("pm", 1, 100, protected=True), vm("pv", 1, 1, protected=True, vcpus=100))
    three = tuple(vm(name, 1, 1, vcpus=34) for name in "abc")
    room = host(1, vcpus_reserved=203, vcpus_most=203)
    found = make_room(wanting, (room,), Affinity(), (*pair, *three), 10)
    assert isinstance(found, RoomMade)
    assert found.names == "a, b, c, pm"


def test_nobody_is_exchanged_for_a_smaller_one_with_too_few_vcpus() -> None:
    room = host(1, reserved_mib=0, vcpus_reserved=8, vcpus_most=8)
    found = make_room(
        WIDE, (room,), Affinity(), (vm("wide", 1, 300, vcpus=4), vm("less", 1, 100, vcpus=3)), 10
    )
    assert isinstance(found, RoomMade)
    assert found.names == "wide"


def test_a_host_whose_vms_have_too_few_vcpus_together_says_so() -> None:
    room = host(1, reserved_mib=0, vcpus_reserved=8, vcpus_most=8)
    found = make_room(WIDE, (room,), Affinity(), (vm("a", 1, vcpus=3),), 10)
    assert isinstance(found, NobodyToStop)
    assert found.passed_over[0].why == (
        "3 vCPUs would be free without the 1 of 1 VMs that may be stopped (at most 10), "
        "4 are needed"
    )


def cost(these: tuple[Running, ...]) -> tuple[int, int, int]:
    guests = [one.guest for one in these]
    return (sum(g.protected for g in guests), max(g.priority for g in guests), len(guests))


def cheapest(
    wanting: Guest, rooms: tuple[Room, ...], running: list[Running], most: int
) -> tuple[int, int, int] | None:
    """What the choice may cost at least, found by trying every set of VMs of every host."""
    costs = []
    for room in rooms:
        here = [one for one in running if one.host_id == room.host_id and one.guest.priority < 80]
        for count in range(1, min(len(here), most) + 1):
            for these in combinations(here, count):
                mib = room.reserved_mib - sum(one.guest.memory_mib for one in these)
                vcpus = room.vcpus_reserved - sum(one.guest.vcpus for one in these)
                left = room.model_copy(update={"reserved_mib": mib, "vcpus_reserved": vcpus})
                if isinstance(place_one(wanting, (left,)), Placed):
                    costs.append(cost(these))
    return min(costs, default=None)


@pytest.mark.parametrize("seed", range(300))
def test_no_set_of_vms_costs_less_than_the_one_that_is_chosen(seed: int) -> None:
    rng = Random(seed)
    rooms = (host(1, rng.randrange(700, 1000)), host(2, rng.randrange(700, 1000)))
    running = [
        vm(f"v{n}", rng.choice((1, 2)), rng.randrange(50, 400, 50), rng.randrange(60, 90, 5),
           protected=rng.random() < 0.5)
        for n in range(8)
    ]  # fmt: skip
    costs_least(WANTING, rooms, running)


@pytest.mark.parametrize("seed", range(300))
def test_nor_where_vcpus_are_short_as_well(seed: int) -> None:
    rng = Random(seed)
    rooms = tuple(
        host(n, rng.randrange(500, 1000), vcpus_reserved=rng.randrange(4, 9), vcpus_most=8)
        for n in (1, 2)
    )
    running = [
        vm(f"v{n}", rng.choice((1, 2)), rng.randrange(50, 400, 50), rng.randrange(60, 90, 5),
           protected=rng.random() < 0.3, vcpus=rng.randrange(1, 4))
        for n in range(10)
    ]  # fmt: skip
    costs_least(WIDE, rooms, running)


@pytest.mark.parametrize("seed", range(300))
def test_nor_where_protected_ones_have_to_go_too_and_give_mostly_one_thing(seed: int) -> None:
    rng = Random(seed)
    full = host(1, 1000, vcpus_reserved=12, vcpus_most=12)

    def given(n: int) -> Running:
        protected = n < 4
        gives: tuple[int, int] = (rng.randrange(1, 50), rng.randrange(1, 5))
        if protected:
            gives = rng.choice(((rng.randrange(100, 400), 1), (1, rng.randrange(6, 11))))
        mib, vcpus = gives
        return vm(f"v{n}", 1, mib, rng.randrange(60, 80, 5), protected=protected, vcpus=vcpus)

    wanting = WANTING.model_copy(update={"memory_mib": rng.randrange(300, 700), "vcpus": 12})
    costs_least(wanting, (full,), [given(n) for n in range(9)], most=rng.randrange(4, 8))


def costs_least(
    wanting: Guest, rooms: tuple[Room, ...], running: list[Running], most: int = 3
) -> None:
    found = make_room(wanting, rooms, Affinity(), tuple(running), most)
    least = cheapest(wanting, rooms, running, most)
    if isinstance(found, NobodyToStop):
        assert least is None
    elif found.stop:
        ids = {guest.vm_id for guest in found.stop}
        assert cost(tuple(one for one in running if one.guest.vm_id in ids)) == least
    else:
        assert isinstance(place_one(wanting, rooms), Placed)


def test_a_stop_that_failed_is_ordered_again_later_each_time_up_to_half_an_hour() -> None:
    waits = [stop_again_after_s(failures) for failures in (1, 2, 3, 6, 7, 1000)]
    assert waits == [30, 60, 120, 960, 1800, 1800]
