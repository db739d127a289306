"""By when an operation that waits is looked at again."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from domain.next_looks import Wait, next_look, ready_look_s, silent_look_max_s
from domain.orders import StartVmOrder
from domain.profiles import Policy
from domain.readiness import ReadyRule, ReadyWhen
from domain.start_tries import Tries
from domain.storm import HoldReason
from store.ids import new_id
from workflows.operation import next_look_s

pytestmark = pytest.mark.unit

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
POLICY = Policy()


def seconds(kind: str, code: str, **changes: Any) -> float | None:
    """How long after its last look, by now, the next one is at the latest."""
    facts: dict[str, Any] = {"since": NOW - timedelta(hours=1), "told_at": NOW} | changes
    found = next_look(Wait(kind=kind, code=code, policy=POLICY, **facts), NOW)
    return None if found is None else (found - NOW).total_seconds()


@pytest.mark.parametrize("reason", list(HoldReason))
def test_every_fence_that_is_held_is_judged_again_within_the_longest_wait_of_a_hold(
    reason: HoldReason,
) -> None:
    assert seconds("host.recover", reason.value) == POLICY.hold_retry_max_s == 30


@pytest.mark.parametrize(
    ("kind", "code", "expected"),
    [
        ("vm.start", "NO_ROOM", 5),
        ("vm.migrate", "NO_ROOM", 5),
        ("host.maintain", "VMS_CANNOT_MOVE", 5),
        ("vm.start", "DISARMED", 300),
        ("vm.migrate", "HOST_NOT_PROVEN_DEAD", 300),
        ("vm.recover", "GUEST_ELSEWHERE", 30),
        ("vm.recover", "GUEST_PAUSED", 30),
        ("vm.recover", "RESTARTS_SPENT", None),
        ("vm.start", "WORKFLOW_UNKNOWN", None),
        ("host.activate", "LOCK_HELD", None),
    ],
)
def test_each_wait_has_the_longest_period_of_its_own_kind(
    kind: str, code: str, expected: float | None
) -> None:
    assert seconds(kind, code) == expected


def test_it_counts_from_when_its_workflow_has_last_said_so() -> None:
    told = NOW - timedelta(seconds=12)
    assert seconds("host.recover", "MANY_SILENT", told_at=told) == 18


def test_a_start_that_waits_for_its_turn_looks_by_the_clock_too() -> None:
    assert seconds("vm.start", "STARTS_AT_LIMIT", told_at=NOW) == POLICY.hold_retry_max_s


def test_what_somebody_else_says_for_it_has_no_next_look() -> None:
    assert seconds("host.recover", "WORKFLOW_UNKNOWN", told_at=None) is None


@pytest.mark.parametrize(
    ("kind", "code", "expected"), [("vm.start", "DEPENDENCY", 60), ("host.reboot", "VMS_START", 5)]
)
def test_what_is_said_once_and_looked_at_over_and_over_counts_from_now(
    kind: str, code: str, expected: float
) -> None:
    assert seconds(kind, code, told_at=NOW - timedelta(hours=1)) == expected


def test_a_silent_host_is_never_asked_later_than_told_and_soon_at_first() -> None:
    waited_s, wait_s = 0.0, POLICY.hold_retry_max_s
    told = []
    for _ in range(8):
        since = NOW - timedelta(seconds=waited_s)
        found = seconds("vm.start", "START_NOT_UNDONE", since=since)
        assert found is not None
        assert found >= wait_s
        told.append(found)
        waited_s, wait_s = waited_s + wait_s, next_look_s(wait_s, POLICY)
    assert told == [30, 60, 120, 240, *[silent_look_max_s(POLICY)] * 4]


def test_a_start_that_failed_everywhere_is_never_tried_later_than_told() -> None:
    context: Any = {"principal": "ann", "correlation_id": "c"}
    order = StartVmOrder(
        operation_id=new_id(), context=context, policy=POLICY, vm_id=new_id(), vm_name="db"
    )
    tries, waited_s, told = Tries.of(order), 0.0, []
    for _ in range(7):
        found = seconds("vm.start", "START_FAILED", since=NOW - timedelta(seconds=waited_s))
        assert found is not None
        assert found >= tries.wait_s(POLICY)
        told.append(found)
        waited_s, tries = waited_s + tries.wait_s(POLICY), tries.next_round()
    assert told[:3] == [2, 4, 8]
    assert told[-1] == POLICY.start_again_max_s


AGENT = ReadyRule(when=ReadyWhen.AGENT, limit_s=3600)
DELAY = ReadyRule(when=ReadyWhen.DELAY, delay_s=30)


@pytest.mark.parametrize(
    ("rule", "waited_s", "next_s"),
    [
        (AGENT, 0, 1),
        (AGENT, 50, 5),
        (AGENT, 2000, 200),
        (AGENT, 3200, 300),
        (AGENT, 3590, 10),
        (AGENT, 3600, 0.1),
        (DELAY, 0, 30),
        (DELAY.model_copy(update={"delay_s": 3600.0}), 0, 60),
        (DELAY.model_copy(update={"delay_s": 3600.0}), 1500, 150),
        (DELAY, 29.5, 0.5),
        (DELAY, 31, 0.1),
    ],
)
def test_a_vm_that_is_not_ready_is_looked_at_ever_less_often_and_at_its_limit(
    rule: ReadyRule, waited_s: float, next_s: float
) -> None:
    assert ready_look_s(rule, waited_s) == next_s
