"""Where VMs go: the same plan for the same facts, and never more memory than there is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.placement import Guest, NoRoom, Placed, Room, place_all, place_one
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


sizes = st.integers(min_value=1, max_value=2000)
some_guests = st.lists(st.tuples(sizes, st.booleans(), st.integers(0, 100)), max_size=12).map(
    lambda rows: [
        guest(f"vm{n}", memory_mib=size, protected=protected, priority=priority)
        for n, (size, protected, priority) in enumerate(rows)
    ]
)
some_rooms = st.lists(st.tuples(sizes, st.integers(0, 2500)), max_size=5).map(
    lambda rows: [
        room(f"h{n}", memory_mib=size, reserved_mib=reserved)
        for n, (size, reserved) in enumerate(rows, start=1)
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
def test_a_vm_waits_only_when_no_host_has_room_left_for_it(
    guests: list[Guest], rooms: list[Room]
) -> None:
    needs = {g.vm_id: g.memory_mib for g in guests}
    free = {r.host_id: r.free_mib for r in rooms}
    for choice in place_all(tuple(guests), tuple(rooms)):
        if isinstance(choice, Placed):
            free[choice.host_id] -= needs[choice.vm_id]
        else:
            assert all(gap < needs[choice.vm_id] for gap in free.values())


@given(data=st.data(), guests=some_guests, rooms=some_rooms)
def test_the_order_in_which_facts_are_read_does_not_change_the_plan(
    data: st.DataObject, guests: list[Guest], rooms: list[Room]
) -> None:
    plan = place_all(tuple(guests), tuple(rooms))
    shuffled_guests = data.draw(st.permutations(guests))
    shuffled_rooms = data.draw(st.permutations(rooms))
    assert place_all(tuple(shuffled_guests), tuple(shuffled_rooms)) == plan
