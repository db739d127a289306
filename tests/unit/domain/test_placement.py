"""Where VMs go: the same plan for the same facts, and never more memory than there is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.affinity import Affinity, AffinityRule
from domain.placement import (
    Guest,
    NoRoom,
    Placed,
    Room,
    place_all,
    place_and_tell,
    place_one,
)
from tests.unit.domain.builders import guest, id_of, room

pytestmark = pytest.mark.unit


def hosts_of(choices: tuple[Placed | NoRoom, ...]) -> list[str | None]:
    """Names of the chosen hosts h1…h9, None where there was no room."""
    names = {id_of(f"h{n}"): f"h{n}" for n in range(1, 10)}
    return [names[c.host_id] if isinstance(c, Placed) else None for c in choices]


@pytest.mark.parametrize(
    ("rooms", "chosen"),
    [
        ([room("h1", reserved_mib=512), room("h2")], "h2"),
        ([room("h1", memory_mib=2048, reserved_mib=1500), room("h2")], "h2"),
        ([room("h1", vms=3), room("h2", vms=1)], "h2"),
        ([room("h2"), room("h1")], "h1"),
        ([room("h1", memory_mib=127), room("h2", memory_mib=128)], "h2"),
    ],
    ids=["more free", "free not total", "fewer VMs", "name", "exactly enough"],
)
def test_a_vm_goes_where_most_memory_is_free_then_fewest_vms_then_by_name(
    rooms: list[Room], chosen: str
) -> None:
    assert hosts_of((place_one(guest("db"), tuple(rooms)),)) == [chosen]


def test_a_home_goes_before_memory_and_gives_way_to_what_is_short_or_forbidden() -> None:
    at_home = guest("db").model_copy(update={"home_id": id_of("h2")})
    small, big = room("h2", memory_mib=128), room("h1", memory_mib=4096)
    assert hosts_of((place_one(at_home, (big, small)),)) == ["h2"]
    assert hosts_of((place_one(at_home, (big, room("h2", memory_mib=127))),)) == ["h1"]
    assert hosts_of((place_one(at_home, (big,)),)) == ["h1"]
    alone = AffinityRule(name="r", together=False, hard=False, vm_ids=(id_of("db"), id_of("web")))
    near = Affinity(rules=(alone,), running={id_of("web"): id_of("h2")})
    assert hosts_of((place_one(at_home, (big, small), near),)) == ["h1"]


def test_a_choice_names_the_epoch_of_the_host_it_was_made_for() -> None:
    choice = place_one(guest("db"), (room("h1", epoch=7),))
    assert choice == Placed(vm_id=id_of("db"), host_id=id_of("h1"), epoch=7)


def test_no_room_says_what_is_needed_and_what_the_largest_gap_is() -> None:
    rooms = (room("h1", memory_mib=4096, reserved_mib=3796), room("h2", memory_mib=200))
    choice = place_one(guest("db", memory_mib=301), rooms)
    assert choice == NoRoom(
        vm_id=id_of("db"),
        detail="db needs 301 MiB; the largest gap on 2 usable hosts is 300 MiB",
    )


def test_no_room_without_any_host_says_so_instead_of_failing() -> None:
    choice = place_one(guest("db"), ())
    assert isinstance(choice, NoRoom)
    assert choice.detail == "db needs 128 MiB; the largest gap on 0 usable hosts is 0 MiB"


def test_the_last_room_goes_to_protection_then_priority_then_name() -> None:
    guests = (
        guest("d", protected=False, priority=100),
        guest("c", priority=10),
        guest("b", priority=90),
        guest("a", priority=10),
    )
    choices = place_all(guests, (room("h1", memory_mib=3 * 128),))
    assert [c.vm_id for c in choices] == [id_of(name) for name in "bacd"]
    assert hosts_of(choices) == ["h1", "h1", "h1", None]


def test_a_small_vm_is_placed_although_a_larger_one_before_it_was_not() -> None:
    guests = (guest("large", memory_mib=5000, priority=99), guest("small", memory_mib=100))
    assert hosts_of(place_all(guests, (room("h1"),))) == [None, "h1"]


def test_each_choice_takes_its_memory_from_the_next() -> None:
    guests = tuple(guest(f"vm{n}", memory_mib=400) for n in range(1, 6))
    rooms = (room("h1", memory_mib=1000), room("h2", memory_mib=900))
    assert hosts_of(place_all(guests, rooms)) == ["h1", "h2", "h1", "h2", None]


def test_equal_hosts_share_the_vms_evenly() -> None:
    guests = tuple(guest(f"vm{n}") for n in range(9))
    chosen = hosts_of(place_all(guests, (room("h1"), room("h2"), room("h3"))))
    assert sorted(map(str, chosen)) == ["h1"] * 3 + ["h2"] * 3 + ["h3"] * 3


def test_no_vcpus_left_says_who_holds_how_many_of_how_many_and_what_to_do() -> None:
    rooms = (
        room("h2", vcpus_reserved=30, vcpus_most=32),
        room("h3", vcpus_reserved=29, vcpus_most=32),
        room("h4", memory_mib=100, vcpus_most=32),
    )
    choice = place_one(guest("db", vcpus=4), rooms)
    assert isinstance(choice, NoRoom)
    assert choice.detail == (
        "no host has 4 vCPUs left for db: h3 holds 29 of 32, h2 holds 30 of 32; its 128 MiB are "
        "free on 2 of 3 usable hosts. End or move VMs, or allow more: "
        "`holdfast cluster edit --vcpu-overcommit`"
    )
    assert hosts_of((place_one(guest("db", vcpus=3), rooms),)) == ["h3"]


def test_many_hosts_without_vcpus_are_counted_beyond_the_first() -> None:
    rooms = tuple(room(f"h{n}", vcpus_reserved=n, vcpus_most=9) for n in range(1, 7))
    choice = place_one(guest("db", vcpus=9), rooms)
    assert isinstance(choice, NoRoom)
    assert "h1 holds 1 of 9, h2 holds 2 of 9, h3 holds 3 of 9 and 3 more;" in choice.detail


def test_a_host_without_a_limit_takes_any_number_of_vcpus() -> None:
    rooms = (room("h1", vcpus_most=4), room("h2", memory_mib=512, vcpus_reserved=5000))
    assert hosts_of((place_one(guest("db", vcpus=500), rooms),)) == ["h2"]


def test_a_limit_that_was_lowered_below_what_is_held_takes_nobody_more() -> None:
    rooms = (room("h1", vcpus_reserved=9, vcpus_most=8),)
    assert hosts_of((place_one(guest("db"), rooms),)) == [None]


def test_vms_that_are_kept_together_look_for_a_host_that_has_the_vcpus_of_all() -> None:
    two = (guest("a", vcpus=2), guest("b", vcpus=2))
    rule = AffinityRule(name="r", together=True, hard=True, vm_ids=(id_of("a"), id_of("b")))
    rooms = (room("h1", memory_mib=4096, vcpus_most=3), room("h2", vcpus_most=4))
    assert hosts_of(place_all(two, rooms, Affinity(rules=(rule,)))) == ["h2", "h2"]


def test_the_hosts_passed_over_for_their_vcpus_say_so() -> None:
    rooms = (room("h1", vcpus_reserved=7, vcpus_most=8), room("h2", vcpus_most=2))
    (told,) = place_and_tell((guest("db", vcpus=2),), rooms)
    assert (told.host, told.free_vcpus) == ("h2", 2)
    (passed,) = told.passed_over
    assert (passed.name, passed.why) == ("h1", "7 of 8 vCPUs are held, 2 are needed")


sizes = st.integers(min_value=1, max_value=2000)
vcpus = st.integers(1, 8)
some_guests = st.lists(
    st.tuples(sizes, st.booleans(), st.integers(0, 100), vcpus), max_size=12
).map(
    lambda rows: [
        guest(f"vm{n}", memory_mib=size, protected=protected, priority=priority, vcpus=count)
        for n, (size, protected, priority, count) in enumerate(rows)
    ]
)
limits = st.tuples(st.integers(0, 8), st.none() | st.integers(0, 24))
some_rooms = st.lists(st.tuples(sizes, st.integers(0, 2500), limits), max_size=5).map(
    lambda rows: [
        room(f"h{n}", memory_mib=size, reserved_mib=taken, vcpus_reserved=held, vcpus_most=most)
        for n, (size, taken, (held, most)) in enumerate(rows, start=1)
    ]
)


@given(guests=some_guests, rooms=some_rooms)
def test_no_plan_promises_more_memory_than_a_host_has(
    guests: list[Guest], rooms: list[Room]
) -> None:
    choices = place_all(tuple(guests), tuple(rooms))
    assert sorted(c.vm_id for c in choices) == sorted(g.vm_id for g in guests)
    needs = {g.vm_id: g.memory_mib for g in guests}
    for host in rooms:
        taken = [needs[c.vm_id] for c in choices if getattr(c, "host_id", None) == host.host_id]
        assert taken == [] or sum(taken) <= host.free_mib


@given(guests=some_guests, rooms=some_rooms)
def test_no_plan_promises_more_vcpus_than_a_limit_allows(
    guests: list[Guest], rooms: list[Room]
) -> None:
    needs = {g.vm_id: g.vcpus for g in guests}
    choices = place_all(tuple(guests), tuple(rooms))
    for host in rooms:
        taken = [needs[c.vm_id] for c in choices if getattr(c, "host_id", None) == host.host_id]
        most = host.vcpus_most
        assert taken == [] or most is None or host.vcpus_reserved + sum(taken) <= most


@given(guests=some_guests, rooms=some_rooms)
def test_a_vm_waits_only_when_no_host_has_room_left_for_it(
    guests: list[Guest], rooms: list[Room]
) -> None:
    needs = {g.vm_id: g for g in guests}
    free = {r.host_id: [r.free_mib, r.free_vcpus] for r in rooms}
    for choice in place_all(tuple(guests), tuple(rooms)):
        wanted = needs[choice.vm_id]
        if isinstance(choice, Placed):
            mib, left = free[choice.host_id]
            free[choice.host_id] = [
                (mib or 0) - wanted.memory_mib,
                None if left is None else left - wanted.vcpus,
            ]
        else:
            for mib, left in free.values():
                short = left is not None and left < wanted.vcpus
                assert (mib or 0) < wanted.memory_mib or short


@given(data=st.data(), guests=some_guests, rooms=some_rooms)
def test_the_order_in_which_facts_are_read_does_not_change_the_plan(
    data: st.DataObject, guests: list[Guest], rooms: list[Room]
) -> None:
    plan = place_all(tuple(guests), tuple(rooms))
    shuffled_guests = data.draw(st.permutations(guests))
    shuffled_rooms = data.draw(st.permutations(rooms))
    assert place_all(tuple(shuffled_guests), tuple(shuffled_rooms)) == plan
