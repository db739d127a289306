"""Whether a VM goes home: each no has its code and its numbers, and the first one is told."""

from typing import Any
from uuid import UUID

import pytest

from domain.affinity import Affinity, AffinityRule
from domain.failback import (
    Failback,
    FailbackFacts,
    call_off,
    decide,
    followers,
    soft_broken,
    try_again_after_s,
)
from domain.placement import Guest, Room

pytestmark = pytest.mark.unit

READY: dict[str, Any] = {
    "vm": "db",
    "mode": Failback.AUTO,
    "rests": False,
    "run_state": "running",
    "host": "h2",
    "host_state": "up",
    "home": "h1",
    "home_state": "up",
    "up_s": 600.0,
    "after_s": 600,
    "cluster": "c1",
    "armed": True,
}


def test_a_vm_whose_home_has_served_long_enough_goes_home() -> None:
    found = decide(FailbackFacts(**READY))
    assert (found.code, found.detail) == ("GO", "db is moved from h2 home to h1")


NOT_NOW: list[tuple[dict[str, Any], str, str]] = [
    ({"mode": Failback.OFF}, "FAILBACK_OFF", "db stays where it runs"),
    ({"home": None}, "NO_HOME", "has no home"),
    ({"under_way": UUID(int=7)}, "UNDER_WAY", "operation 00000000-"),
    ({"host": "h1"}, "AT_HOME", "runs on h1"),
    ({"run_state": None, "host": None}, "VM_NOT_RUNNING", "db is down"),
    ({"run_state": "migrating"}, "VM_NOT_RUNNING", "db is migrating"),
    ({"rests": True}, "RESTS", "a person has put db on h2"),
    ({"armed": False}, "DISARMED", "c1 is disarmed"),
    ({"incidents": ("h3", "h4")}, "INCIDENT_OPEN", "2 incidents are open in c1: h3, h4"),
    (
        {"failures": 2, "wait_s": 120, "waited_s": 20, "failed": "X, y"},
        "TRIES_AGAIN",
        "failed 2 times in a row, the last time: X, y",
    ),
    ({"home_state": "maintenance"}, "HOME_NOT_UP", "h1 is maintenance"),
    ({"up_s": 599.0}, "HOME_NOT_STABLE", "h1 has been up for 599 s of 600"),
    ({"home_busy": "host.maintain"}, "HOME_BUSY", "host.maintain is under way or planned on h1"),
    ({"host_state": "connecting"}, "HOST_NOT_UP", "h2 is connecting"),
    ({"vm_busy": "vm.stop"}, "VM_BUSY", "vm.stop works on db"),
    ({"no_room": "the largest gap is 3 MiB"}, "NO_ROOM", "3 MiB"),
    ({"soft": ("near", "far")}, "SOFT_RULES", "2 soft rules kept on h2 would be broken: near, far"),
    ({"going": "web"}, "TAKES_TURNS", "web goes home to h1 first"),
    ({"leaving": 2}, "MIGRATIONS_MAX", "h2 has 2 migrations under way, 2 are the limit"),
    ({"coming": 2}, "MIGRATIONS_MAX", "h1 has 2 migrations under way"),
]


@pytest.mark.parametrize(("how", "code", "words"), NOT_NOW, ids=[f"{n}" for _, n, _ in NOT_NOW])
def test_each_no_has_a_code_and_its_numbers(how: dict[str, Any], code: str, words: str) -> None:
    found = decide(FailbackFacts(**READY | how))
    assert found.code == code
    assert words in found.detail


def test_what_waits_for_a_time_says_how_long() -> None:
    young = decide(FailbackFacts(**READY | {"up_s": 480.0}))
    tried = {"failures": 1, "wait_s": 60, "waited_s": 12.5, "failed": "X, y"}
    assert young.tries_in_s == 120
    assert decide(FailbackFacts(**READY | tried)).tries_in_s == 47.5
    assert decide(FailbackFacts(**READY | tried | {"waited_s": 60.0})).code == "GO"


def test_the_wait_doubles_from_a_minute_to_an_hour() -> None:
    waits = [try_again_after_s(failures) for failures in (1, 2, 3, 6, 7, 1000)]
    assert waits == [60, 120, 240, 1920, 3600, 3600]


def test_only_a_soft_rule_that_is_kept_now_and_broken_at_home_counts() -> None:
    db, web, here, home = (UUID(int=n) for n in range(1, 5))

    def broken(*, hard: bool, **running: UUID) -> tuple[str, ...]:
        rule = AffinityRule(name="far", together=False, hard=hard, vm_ids=(db, web))
        where = {db: here, web: running["web"]}
        return soft_broken(Affinity(rules=(rule,), running=where), db, here, home)

    assert broken(hard=False, web=home) == ("far",)
    assert broken(hard=False, web=here) == ()  # going home mends it
    assert broken(hard=True, web=home) == ()  # a matter of room
    only = AffinityRule(name="only", together=True, hard=False, vm_ids=(db,), host_ids=(here,))
    assert soft_broken(Affinity(rules=(only,)), db, here, home) == ("only",)
    assert soft_broken(Affinity(rules=(only,)), web, here, home) == ()


def homebound(vm_id: UUID, home_id: UUID) -> Guest:
    return Guest(
        vm_id=vm_id, name="vm", memory_mib=100, protected=True, priority=50, home_id=home_id
    )


def room(host_id: UUID, free_mib: int) -> Room:
    return Room(host_id=host_id, name="h1", epoch=1, memory_mib=free_mib, reserved_mib=0, vms=0)


def test_vms_kept_together_with_one_home_follow_each_other_there_if_all_have_room() -> None:
    db, web, log, here, home, other = (UUID(int=n) for n in range(1, 7))
    rule = AffinityRule(name="near", together=True, hard=False, vm_ids=(db, web, log))
    rules = Affinity(rules=(rule,), running=dict.fromkeys((db, web, log), here))

    def following(free_mib: int, **homes: UUID) -> frozenset[UUID]:
        vms = {"db": db, "web": web, "log": log}
        bound = [homebound(vms[name], host_id) for name, host_id in homes.items()]
        return followers(rules, db, bound, room(home, free_mib))

    assert following(300, db=home, web=home, log=home) == {web, log}
    assert following(299, db=home, web=home, log=home) == frozenset()
    assert following(200, db=home, web=home, log=other) == {web}
    narrow = room(home, 300).model_copy(update={"vcpus_most": 2})
    every = [homebound(vm, home) for vm in (db, web, log)]
    assert followers(rules, db, every, narrow) == frozenset()
    assert following(300, web=home, log=home) == frozenset()  # it does not go itself
    assert soft_broken(rules, db, here, home, frozenset({web, log})) == ()
    assert soft_broken(rules, db, here, home, frozenset({web})) == ("near",), "log stays behind"


def test_vms_kept_apart_do_not_count_as_gone_home_before_they_are() -> None:
    db, web, here, there, home = (UUID(int=n) for n in range(1, 6))
    rule = AffinityRule(name="far", together=False, hard=False, vm_ids=(db, web))
    rules = Affinity(rules=(rule,), running={db: here, web: there})
    bound = [homebound(vm, home) for vm in (db, web)]
    assert followers(rules, db, bound, room(home, 1000)) == frozenset()
    assert soft_broken(rules, db, here, home, frozenset({web})) == ()


@pytest.mark.parametrize(
    ("how", "code"),
    [
        ({}, None),
        ({"armed": False}, "DISARMED"),
        ({"incidents": ("h3",)}, "INCIDENT_OPEN"),
        ({"armed": False, "run_state": "migrating"}, None),
        ({"armed": False, "host": "h1"}, None),
    ],
)
def test_a_move_that_has_not_begun_is_called_off(how: dict[str, Any], code: str | None) -> None:
    found = call_off(FailbackFacts(**READY | {"under_way": UUID(int=7)} | how))
    assert (found and found.code) == code
