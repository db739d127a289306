"""Who watches which host: everybody works out the same, and little moves when monitors do."""

from collections import Counter
from random import Random
from uuid import UUID

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from domain.eyes import (
    GONE_S,
    LOOK_S,
    TARGETS_MIN,
    Eye,
    Pulse,
    after_look,
    eyes_of,
    seated,
    targets_of,
    weight,
)
from tests.unit.domain.builders import id_of

pytestmark = pytest.mark.unit

HOSTS = tuple(id_of(f"h{number}") for number in range(60))


def eye(name: str, machine: str = "", **values: bool) -> Eye:
    return Eye(name=name, machine=machine or name, **values)


@st.composite
def monitors(draw: st.DrawFn) -> tuple[Eye, ...]:
    names = draw(st.lists(st.integers(0, 30), unique=True, min_size=1, max_size=8))
    return tuple(eye(f"m{n}", f"e{draw(st.integers(0, 4))}") for n in names)


def test_a_weight_is_the_same_in_every_process_and_release() -> None:
    assert weight(UUID(int=7), "engine-1-monitor") == 11175549237138437182


@given(monitors(), monitors(), st.integers(1, 4))
def test_a_monitor_that_joins_takes_hosts_and_moves_no_others(
    there: tuple[Eye, ...], more: tuple[Eye, ...], wanted: int
) -> None:
    new = more[0]
    assume(new.name not in {one.name for one in there})
    for host in HOSTS:
        before, after = eyes_of(host, there, wanted), eyes_of(host, (*there, new), wanted)
        assert set(before) == set(after) or new.name in after


@given(monitors(), st.integers(1, 4))
def test_a_monitor_that_leaves_gives_its_hosts_away_and_moves_no_others(
    there: tuple[Eye, ...], wanted: int
) -> None:
    left = there[1:]
    for host in HOSTS:
        before, after = eyes_of(host, there, wanted), eyes_of(host, left, wanted)
        assert set(before) == set(after) or there[0].name in before


@given(monitors(), st.integers(1, 4))
def test_as_many_machines_watch_a_host_as_there_are(there: tuple[Eye, ...], wanted: int) -> None:
    machine = {one.name: one.machine for one in there}
    for host in HOSTS:
        chosen = eyes_of(host, there, wanted)
        assert len(chosen) == len(set(chosen)) == min(wanted, len(there))
        machines = {machine[name] for name in chosen}
        assert len(machines) == min(wanted, len(set(machine.values())))


@given(monitors(), st.randoms())
def test_the_order_in_which_monitors_are_read_says_nothing(
    there: tuple[Eye, ...], dice: Random
) -> None:
    mixed = list(there)
    dice.shuffle(mixed)
    assert all(eyes_of(host, there, 2) == eyes_of(host, mixed, 2) for host in HOSTS)


@pytest.mark.parametrize("count", [2, 3, 5, 10])
def test_hosts_are_spread_evenly(count: int) -> None:
    there = [eye(f"engine-{number}-monitor") for number in range(count)]
    hosts = [id_of(f"host-{number}") for number in range(1000)]
    load = Counter(name for host in hosts for name in eyes_of(host, there, 2))
    fair = 2 * len(hosts) / count
    assert all(0.7 * fair < load[one.name] < 1.3 * fair for one in there)


def test_two_monitors_of_one_machine_count_as_one_eye_while_others_exist() -> None:
    there = (eye("a1", "a"), eye("a2", "a"), eye("b1", "b"))
    assert all("b1" in eyes_of(host, there, 2) for host in HOSTS)
    assert all(len(eyes_of(host, there[:2], 2)) == 2 for host in HOSTS)


def test_hosts_are_given_to_those_that_live_see_and_have_for_a_while() -> None:
    good, new = eye("good"), eye("new", warm=False)
    blind, gone = eye("blind", blind=True), eye("gone", gone=True)
    assert seated((good, new, blind, gone)) == (good,)
    assert seated((new, blind, gone)) == (new,)
    assert seated((blind, gone)) == (blind,)
    assert seated((gone,)) == ()


def test_a_monitor_always_has_a_few_hosts_to_see_though_none_is_its_own() -> None:
    many = tuple(eye(f"m{number}") for number in range(20))
    assert all(len(targets_of(one.name, HOSTS[:5], many, 2)) >= TARGETS_MIN for one in many)
    unseated = (*many, eye("late", warm=False))
    assert len(targets_of("late", HOSTS, unseated, 2)) == TARGETS_MIN
    assert targets_of("m1", HOSTS[:3], many, 2) == frozenset(HOSTS[:3])


def test_a_monitor_that_is_alone_watches_everything() -> None:
    assert targets_of("m1", HOSTS, (eye("m1"),), 2) == frozenset(HOSTS)


def test_every_host_is_a_target_of_the_monitors_that_are_its_eyes() -> None:
    there = tuple(eye(f"m{number}") for number in range(4))
    watched = {one.name: targets_of(one.name, HOSTS, there, 2) for one in there}
    assert all(host in watched[name] for host in HOSTS for name in eyes_of(host, there, 2))


def test_a_monitor_whose_number_stands_still_is_gone_after_its_time() -> None:
    pulse, now_s = after_look(None, 5, 100.0), 100.0
    while not pulse.gone:
        now_s += 2.0
        pulse = after_look(pulse, 5, now_s)
    assert now_s == 100.0 + GONE_S
    assert not after_look(pulse, 6, now_s + 2.0).gone


def test_a_look_after_a_long_pause_speaks_for_a_few_seconds_only() -> None:
    pulse = after_look(after_look(None, 5, 0.0), 5, 3600.0)
    assert pulse == Pulse(sequence=5, looked_at_s=3600.0, still_s=LOOK_S)
    assert not pulse.gone


def test_a_number_that_went_back_is_a_sign_of_life_too() -> None:
    assert after_look(Pulse(sequence=5, looked_at_s=0.0, still_s=9.0), 4, 1.0).still_s == 0.0
