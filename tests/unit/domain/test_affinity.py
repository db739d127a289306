"""Rules about where VMs belong: kept by every plan, weighed, and refused when they clash."""

from itertools import product
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.affinity import (
    Affinity,
    AffinityRule,
    companies,
    find_contradiction,
    refuse_contradiction,
    strain,
)
from domain.errors import Invalid
from domain.placement import Guest, NoRoom, Placed, Room, place_all, place_one
from tests.unit.domain.builders import guest, id_of, room

pytestmark = pytest.mark.unit

HOSTS = ("h1", "h2", "h3")
VMS = ("a", "b", "c", "d", "e")
NAMES = {id_of(name): name for name in (*HOSTS, *VMS)}


def rule(
    name: str, vms: str, hosts: str = "", *, together: bool = True, hard: bool = True
) -> AffinityRule:
    """A rule about VMs and hosts, each named by words in a row."""
    return AffinityRule(
        name=name,
        together=together,
        hard=hard,
        vm_ids=tuple(id_of(vm) for vm in vms.split()),
        host_ids=tuple(id_of(host) for host in hosts.split()),
    )


def affinity(*rules: AffinityRule, **running: str) -> Affinity:
    return Affinity(rules=rules, running={id_of(vm): id_of(host) for vm, host in running.items()})


def host_of(choice: Placed | NoRoom) -> str | None:
    return NAMES[choice.host_id] if isinstance(choice, Placed) else None


def placed(vms: str, rooms: tuple[Room, ...], known: Affinity) -> dict[str, str | None]:
    guests = tuple(guest(vm) for vm in vms.split())
    return {NAMES[c.vm_id]: host_of(c) for c in place_all(guests, rooms, known)}


ROOMS = (room("h1"), room("h2", vms=1), room("h3", vms=2))


@pytest.mark.parametrize(
    ("known", "chosen"),
    [
        (affinity(rule("r", "a b"), b="h3"), "h3"),
        (affinity(rule("r", "a b", together=False), b="h1"), "h2"),
        (affinity(rule("r", "a", "h2 h3")), "h2"),
        (affinity(rule("r", "a", "h1 h2", together=False)), "h3"),
        (affinity(rule("r", "a b")), "h1"),
        (affinity(rule("r", "b c", together=False), b="h1", c="h2"), "h1"),
        (affinity(rule("r", "a b", together=False), a="h1"), "h1"),
    ],
    ids=[
        "together",
        "apart",
        "only on",
        "never on",
        "nobody there yet",
        "about others",
        "itself does not count",
    ],
)
@pytest.mark.parametrize("hard", [True, False], ids=["hard", "soft"])
def test_a_rule_that_can_be_kept_is_kept_and_nothing_gives_way(
    known: Affinity, chosen: str, hard: bool
) -> None:
    rules = tuple(item.model_copy(update={"hard": hard}) for item in known.rules)
    choice = place_one(guest("a"), ROOMS, known.model_copy(update={"rules": rules}))
    assert host_of(choice) == chosen
    assert isinstance(choice, Placed)
    assert choice.gave_way == ()


def test_a_hard_rule_that_leaves_no_host_is_named_with_its_numbers() -> None:
    rules = (rule("pinned", "a", "h1 h2"), rule("web", "a b c", together=False))
    choice = place_one(guest("a"), ROOMS, affinity(*rules, b="h1", c="h2"))
    assert choice == NoRoom(
        vm_id=id_of("a"),
        detail="a: hard rule web (apart) leaves none of the 2 of 3 usable hosts that its other "
        "rules leave",
    )


COMPANY = (rule("pair", "a b"), rule("spread", "b c", together=False))
"""a is bound by b's rule about c: they are kept together."""


@pytest.mark.parametrize(
    ("known", "coming", "chosen"),
    [
        (affinity(*COMPANY, c="h1"), "a b", "h2"),
        (affinity(*COMPANY, c="h1"), "a", "h1"),
        (affinity(*COMPANY, b="h1", c="h1"), "a", "h1"),
        (affinity(rule("pair", "a b"), rule("pinned", "b", "h3")), "a b", "h3"),
        (affinity(rule("one", "a b"), rule("two", "b c"), c="h3"), "a b", "h3"),
    ],
    ids=["apart", "nobody is to come", "it is there already", "only on", "in a row"],
)
def test_a_vm_is_bound_by_the_hard_rules_of_those_that_are_to_join_it(
    known: Affinity, coming: str, chosen: str
) -> None:
    joining = frozenset(id_of(vm) for vm in coming.split())
    choice = place_one(guest("a"), ROOMS, known.model_copy(update={"coming": joining}))
    assert host_of(choice) == chosen


def test_a_vm_waits_for_a_host_where_those_that_are_to_join_it_may_be_and_says_so() -> None:
    known = affinity(*COMPANY, c="h1").model_copy(update={"coming": frozenset({id_of("b")})})
    assert place_one(guest("a"), ROOMS[:1], known) == NoRoom(
        vm_id=id_of("a"),
        detail="a: hard rule spread (apart), of a VM that it is kept together with, leaves none "
        "of the 1 usable hosts",
    )
    assert placed("a b", ROOMS[:1], known) == {"a": None, "b": None}
    assert placed("a b", ROOMS, known) == {"a": "h2", "b": "h2"}


def test_a_group_too_large_for_any_host_begins_where_all_of_it_may_be() -> None:
    rooms = (room("h1", memory_mib=300), room("h2", memory_mib=200))
    known = affinity(*COMPANY, c="h1")
    assert placed("a b", rooms, known) == {"a": "h2", "b": None}


def test_a_rule_that_leaves_only_full_hosts_is_named_beside_the_gap() -> None:
    known = affinity(rule("pinned", "a", "h2 h3"))
    rooms = (room("h1"), room("h2", memory_mib=100), room("h3", memory_mib=90))
    choice = place_one(guest("a"), rooms, known)
    assert choice == NoRoom(
        vm_id=id_of("a"),
        detail="a needs 128 MiB; the largest gap on the 2 of 3 usable hosts that pinned leave is "
        "100 MiB",
    )


def test_a_soft_rule_gives_way_to_room_and_the_choice_says_so() -> None:
    known = affinity(
        rule("near", "a b", hard=False), rule("kept", "a", "h1 h2", hard=False), b="h3"
    )
    choice = place_one(guest("a"), (room("h1"), room("h3", memory_mib=100)), known)
    assert isinstance(choice, Placed)
    assert (host_of(choice), choice.gave_way) == ("h1", ("near",))


def test_the_host_that_breaks_the_fewest_soft_rules_wins_over_free_memory() -> None:
    rules = [rule(name, "a", "h1", together=False, hard=False) for name in ("r1", "r2")]
    known = affinity(*rules, rule("r3", "a", "h2", together=False, hard=False))
    choice = place_one(guest("a"), (room("h1", memory_mib=9000), room("h2")), known)
    assert isinstance(choice, Placed)
    assert (host_of(choice), choice.gave_way) == ("h2", ("r3",))


def test_vms_of_one_plan_keep_the_rules_among_themselves() -> None:
    apart = affinity(rule("web", "a b c d", together=False))
    assert placed("a b c d", ROOMS, apart) == {"a": "h1", "b": "h2", "c": "h3", "d": None}
    assert set(placed("a b c", ROOMS, affinity(rule("db", "a b c"))).values()) == {"h1"}


def test_where_a_vm_ran_until_now_does_not_bind_those_that_move_with_it() -> None:
    known = affinity(rule("db", "a b"), a="h9", b="h9")
    assert placed("a b", ROOMS, known) == {"a": "h1", "b": "h1"}


def test_the_first_of_a_group_goes_where_the_whole_group_has_room() -> None:
    rooms = (room("h1", memory_mib=300), room("h2", memory_mib=400, reserved_mib=112))
    assert placed("a b", rooms, affinity(rule("db", "a b"))) == {"a": "h1", "b": "h1"}
    rooms = (room("h1", memory_mib=200), room("h2", memory_mib=1000, reserved_mib=744))
    assert placed("a b", rooms, affinity(rule("db", "a b"))) == {"a": "h2", "b": "h2"}


def test_the_first_of_a_group_goes_where_the_rules_of_the_others_let_them_follow() -> None:
    known = affinity(rule("db", "a b"), rule("disk", "b", "h3"))
    assert placed("a b", ROOMS, known) == {"a": "h3", "b": "h3"}


@pytest.mark.parametrize(
    ("rules", "names"),
    [
        ([rule("x", "a b"), rule("y", "a b", together=False)], ("x", "y")),
        (
            [rule("x", "a b"), rule("z", "b c"), rule("y", "a c d", together=False)],
            ("x", "y", "z"),
        ),
        ([rule("x", "a b"), rule("p", "a", "h1"), rule("q", "b", "h2 h3")], ("p", "q", "x")),
        ([rule("p", "a", "h1"), rule("q", "a", "h1 h2", together=False)], ("p", "q")),
        ([rule("p", "a", "h1 h2 h3", together=False)], ("p",)),
    ],
    ids=["one pair", "a chain", "disjoint hosts", "on and not on", "no host at all"],
)
def test_hard_rules_that_cannot_all_be_kept_are_refused_by_name(
    rules: list[AffinityRule], names: tuple[str, ...]
) -> None:
    hosts = [id_of(host) for host in HOSTS]
    found = find_contradiction(rules, names=NAMES, host_ids=hosts)
    assert found is not None
    assert tuple(sorted(found.rules)) == names
    with pytest.raises(Invalid, match="AFFINITY_CONTRADICTION") as refused:
        refuse_contradiction(reversed(rules), names=NAMES, host_ids=hosts)
    assert refused.value.detail == found.detail
    assert all(name in refused.value.next_step for name in names)


def test_what_clashes_is_named_by_vm_and_a_soft_rule_never_clashes() -> None:
    rules = [rule("x", "a b"), rule("y", "a b", together=False)]
    found = find_contradiction(rules, names=NAMES)
    assert found is not None
    assert found.detail.endswith("are kept apart by y and together by x")
    assert {"a", "b"} <= set(found.detail.split())
    softened = [rules[0], rules[1].model_copy(update={"hard": False})]
    assert find_contradiction(softened, names=NAMES) is None


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (2, 1, 0)], ids=str)
def test_hard_rules_that_share_vms_keep_all_of_them_on_one_host(order: tuple[int, ...]) -> None:
    chain = [rule("r1", "a b"), rule("r2", "b c"), rule("r3", "c d")]
    soft = rule("r4", "d e", hard=False)
    group = frozenset(id_of(vm) for vm in "abcd")
    found = companies([soft, *(chain[number] for number in order)])
    assert found == dict.fromkeys(group, group)


def test_apart_from_more_vms_than_there_are_hosts_is_a_lack_of_hosts_and_no_clash() -> None:
    hosts = [id_of(host) for host in HOSTS]
    refuse_contradiction([rule("web", "a b c d e", together=False)], host_ids=hosts)


some_vms = st.lists(st.sampled_from(VMS), min_size=1, max_size=4, unique=True).map(" ".join)
some_hosts = st.lists(st.sampled_from(HOSTS), max_size=2, unique=True).map(" ".join)
some_rules = st.lists(
    st.tuples(some_vms, some_hosts, st.booleans(), st.booleans()), max_size=5
).map(
    lambda rows: [
        rule(f"r{n}", vms, hosts, together=together, hard=hard)
        for n, (vms, hosts, together, hard) in enumerate(rows)
    ]
)
some_running = st.dictionaries(st.sampled_from(VMS), st.sampled_from(HOSTS), max_size=2)
some_guests = st.lists(
    st.tuples(st.sampled_from(VMS), st.integers(1, 900), st.integers(0, 3)),
    unique_by=lambda row: row[0],
).map(lambda rows: tuple(guest(vm, memory_mib=size, priority=p) for vm, size, p in rows))
some_rooms = st.lists(
    st.tuples(st.integers(1, 2000), st.integers(0, 1000)), min_size=1, max_size=3
).map(
    lambda rows: tuple(
        room(name, memory_mib=size, reserved_mib=used)
        for name, (size, used) in zip(HOSTS, rows, strict=False)
    )
)


@given(guests=some_guests, rooms=some_rooms, rules=some_rules, running=some_running)
def test_no_plan_breaks_a_hard_rule_or_promises_memory_twice(
    guests: tuple[Guest, ...],
    rooms: tuple[Room, ...],
    rules: list[AffinityRule],
    running: dict[str, str],
) -> None:
    choices = place_all(guests, rooms, affinity(*rules, **running))
    coming = {g.vm_id for g in guests}
    where = {id_of(vm): id_of(h) for vm, h in running.items() if id_of(vm) not in coming}
    where |= {c.vm_id: c.host_id for c in choices if isinstance(c, Placed)}
    for choice in choices:
        for item in rules:
            if isinstance(choice, Placed) and item.hard and choice.vm_id in item.vm_ids:
                assert strain(item, choice.vm_id, choice.host_id, where) == 0
    needs = {g.vm_id: g.memory_mib for g in guests}
    for host in rooms:
        taken = [needs[vm] for vm, h in where.items() if h == host.host_id and vm in needs]
        assert taken == [] or sum(taken) <= host.free_mib


@given(guests=some_guests, rooms=some_rooms, rules=some_rules, running=some_running)
def test_a_soft_rule_is_named_exactly_where_the_choice_breaks_it(
    guests: tuple[Guest, ...],
    rooms: tuple[Room, ...],
    rules: list[AffinityRule],
    running: dict[str, str],
) -> None:
    known = affinity(*rules, **running)
    for one in guests:
        choice = place_one(one, rooms, known)
        if isinstance(choice, Placed):
            broken = [
                item.name
                for item in rules
                if one.vm_id in item.vm_ids
                and strain(item, one.vm_id, choice.host_id, known.running)
            ]
            assert choice.gave_way == tuple(sorted(broken))


@given(data=st.data(), guests=some_guests, rooms=some_rooms, rules=some_rules)
def test_the_order_in_which_rules_are_read_does_not_change_the_plan(
    data: st.DataObject,
    guests: tuple[Guest, ...],
    rooms: tuple[Room, ...],
    rules: list[AffinityRule],
) -> None:
    shuffled = data.draw(st.permutations(rules))
    plan = place_all(guests, rooms, affinity(*rules))
    assert place_all(guests, rooms, affinity(*shuffled)) == plan


@given(rules=some_rules)
def test_a_contradiction_is_found_exactly_when_some_pair_or_group_has_no_way_out(
    rules: list[AffinityRule],
) -> None:
    """The slow way: try every way to put all VMs on hosts, of which there are enough."""
    hosts = [*HOSTS, *(f"spare{n}" for n in range(len(VMS)))]
    hard = [item for item in rules if item.hard]
    found = find_contradiction(rules, host_ids=[id_of(host) for host in hosts])
    if found is None:
        groups = companies(hard)
        for one in VMS:
            members = sorted(groups.get(id_of(one), {id_of(one)}))
            assert any(_kept_by(hard, dict.fromkeys(members, id_of(host))) for host in hosts)
    else:
        named = [item for item in hard if item.name in found.rules]
        members = sorted({vm for item in named for vm in item.vm_ids})
        few = [id_of(host) for host in hosts[: len(HOSTS) + 1]]
        assert not any(
            _kept_by(named, dict(zip(members, ways, strict=True)))
            for ways in product(few, repeat=len(members))
        ), found


def _kept_by(rules: list[AffinityRule], where: dict[UUID, UUID]) -> bool:
    return all(
        strain(item, vm, host, where) == 0
        for vm, host in where.items()
        for item in rules
        if vm in item.vm_ids
    )
