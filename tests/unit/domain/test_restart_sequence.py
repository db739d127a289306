"""The order in which VMs return: dependencies first, then protection, priority and name."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import Invalid
from domain.placement import Guest, restart_order
from domain.recovery import restart_sequence
from tests.unit.domain.builders import guest, id_of

pytestmark = pytest.mark.unit


def names(*guests: Guest) -> list[str]:
    return [g.name for g in restart_sequence(guests)]


def test_nothing_to_restart_is_an_empty_sequence() -> None:
    assert restart_sequence(()) == ()


def test_protected_vms_go_first_then_high_priority_then_by_name() -> None:
    guests = (
        guest("free", protected=False, priority=100),
        guest("low", priority=1),
        guest("b", priority=50),
        guest("a", priority=50),
        guest("high", priority=99),
    )
    assert names(*guests) == ["high", "a", "b", "low", "free"]


def test_a_vm_starts_after_the_vms_it_depends_on_whatever_their_priority() -> None:
    web, app = guest("web", "app", priority=100), guest("app", "db", priority=50)
    db = guest("db", priority=0, protected=False)
    assert names(web, app, db) == ["db", "app", "web"]


def test_a_vm_waits_for_all_of_its_dependencies() -> None:
    web = guest("web", "db", "cache", priority=100)
    assert names(web, guest("cache", priority=1), guest("db", priority=2)) == ["db", "cache", "web"]


def test_an_important_dependant_does_not_wait_for_unimportant_strangers() -> None:
    db, web = guest("db", priority=100), guest("web", "db", priority=90)
    stranger, free = guest("batch", priority=1), guest("free", protected=False)
    assert names(free, stranger, web, db) == ["db", "web", "batch", "free"]


def test_dependencies_on_vms_that_run_elsewhere_are_dropped() -> None:
    (db, web) = restart_sequence((guest("web", "dns", "db"), guest("db", "ntp")))
    assert (db.depends_on, web.depends_on) == ((), (id_of("db"),))


@pytest.mark.parametrize(
    ("guests", "waiting"),
    [
        ((guest("a", "a"),), {"a"}),
        ((guest("a", "b"), guest("b", "a")), {"a", "b"}),
        ((guest("a", "c"), guest("b", "a"), guest("c", "b"), guest("d", "a")), {"a", "b", "c"}),
    ],
    ids=["itself", "each other", "ring with a dependant"],
)
def test_vms_that_wait_for_each_other_are_refused_by_name(
    guests: tuple[Guest, ...], waiting: set[str]
) -> None:
    with pytest.raises(Invalid) as caught:
        restart_sequence((*guests, guest("bystander")))
    assert caught.value.code == "DEPENDENCY_CYCLE"
    assert caught.value.next_step == "remove one of the dependencies"
    prefix, ring = caught.value.detail.split(": ")
    assert prefix == "these VMs wait for each other"
    assert set(ring.split(" → ")) == waiting
    assert ring.split(" → ")[0] == ring.split(" → ")[-1]


@st.composite
def guests_without_cycles(draw: st.DrawFn) -> list[Guest]:
    """VMs that depend only on earlier ones, in any order, and now and then on a stranger."""
    guests: list[Guest] = []
    for n in range(draw(st.integers(0, 10))):
        earlier = [f"vm{k}" for k in range(n)] + ["stranger"]
        after = draw(st.lists(st.sampled_from(earlier), unique=True, max_size=3))
        priority, protected = draw(st.integers(0, 3)), draw(st.booleans())
        guests.append(guest(f"vm{n}", *after, priority=priority, protected=protected))
    return draw(st.permutations(guests))


@given(guests_without_cycles())
def test_every_sequence_is_complete_and_topological(guests: list[Guest]) -> None:
    sequence = restart_sequence(tuple(guests))
    assert sorted(g.name for g in sequence) == sorted(g.name for g in guests)
    present = {g.vm_id for g in guests}
    wanted = {g.vm_id: [d for d in g.depends_on if d in present] for g in guests}
    started: set[UUID] = set()
    for one in sequence:
        assert list(one.depends_on) == wanted[one.vm_id]
        assert started.issuperset(one.depends_on)
        started.add(one.vm_id)


@given(guests_without_cycles())
def test_of_all_vms_that_could_start_the_most_important_is_next(guests: list[Guest]) -> None:
    left = list(restart_sequence(tuple(guests)))
    while left:
        waiting = {g.vm_id for g in left}
        startable = [g for g in left if waiting.isdisjoint(g.depends_on)]
        assert left[0] == min(startable, key=restart_order)
        left.pop(0)


@given(data=st.data(), guests=guests_without_cycles())
def test_the_sequence_does_not_depend_on_how_the_vms_were_read(
    data: st.DataObject, guests: list[Guest]
) -> None:
    shuffled = data.draw(st.permutations(guests))
    assert restart_sequence(tuple(shuffled)) == restart_sequence(tuple(guests))
