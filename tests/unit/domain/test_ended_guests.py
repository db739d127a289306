"""What becomes of a VM whose guest ended by itself."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from domain.ended_guests import (
    RESTART_WINDOW,
    EndedGuest,
    NextMove,
    PastEnd,
    judge,
)
from domain.inventory import OnGuestShutdown
from domain.readings import StateReason

pytestmark = pytest.mark.unit

H1, H2, H3 = (UUID(int=number) for number in (1, 2, 3))
NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


def ended(**changes: Any) -> EndedGuest:
    """A protected VM that crashed on h1 for the first time."""
    facts: dict[str, Any] = {"vm": "db", "host_id": H1, "host_name": "h1", "now": NOW}
    facts |= {"reason": StateReason.CRASHED, "wanted": True, "protected": True}
    facts |= {"on_guest_shutdown": OnGuestShutdown.STAY, "max_restart": 2, "max_relocate": 1}
    return EndedGuest(**facts | {"hosts": (H1, H2, H3)} | changes)


def past(*hosts: UUID) -> tuple[PastEnd, ...]:
    """One end a minute ago for each host, the first one the oldest."""
    count = len(hosts)
    return tuple(
        PastEnd(host_id=host, host_name="?", at=NOW - timedelta(minutes=count - number))
        for number, host in enumerate(hosts)
    )


@pytest.mark.parametrize(
    "reason",
    [
        StateReason.CRASHED,
        StateReason.FAILED,
        StateReason.DESTROYED,
        StateReason.UNKNOWN,
        None,
    ],
)
def test_a_protected_vm_that_failed_is_restarted_on_its_own_host_first(
    reason: StateReason | None,
) -> None:
    verdict = judge(ended(reason=reason))
    assert (verdict.move, verdict.prefer_id, verdict.avoid) == (NextMove.RESTART, H1, ())
    assert verdict.end_reason.startswith("guest ")


def test_what_is_shut_down_from_inside_stays_down_and_is_not_wanted_any_more() -> None:
    verdict = judge(ended(reason=StateReason.SHUTDOWN))
    assert (verdict.move, verdict.unwanted) == (NextMove.CLOSE, True)
    assert verdict.end_reason == "guest shut down"


def test_what_is_shut_down_from_inside_is_restarted_where_the_vm_says_so() -> None:
    facts = ended(reason=StateReason.SHUTDOWN, on_guest_shutdown=OnGuestShutdown.RESTART)
    assert judge(facts).move is NextMove.RESTART


def test_an_unprotected_vm_that_crashed_stays_down_and_is_still_wanted() -> None:
    verdict = judge(ended(protected=False))
    assert (verdict.move, verdict.unwanted) == (NextMove.CLOSE, False)


def test_a_vm_that_nobody_wants_is_only_closed() -> None:
    assert judge(ended(wanted=False)).move is NextMove.CLOSE


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"armed": False}, "DISARMED"),
        ({"elsewhere": ("h3",)}, "GUEST_ELSEWHERE"),
        ({"elsewhere": ("h3",), "protected": False}, "GUEST_ELSEWHERE"),
        ({"reason": StateReason.MIGRATED}, "GUEST_MIGRATED"),
        ({"reason": StateReason.SAVED}, "GUEST_SAVED"),
        ({"reason": None, "elsewhere": ("h2",)}, "GUEST_ELSEWHERE"),
    ],
)
def test_nothing_is_done_while_a_copy_may_live_on_elsewhere_or_it_is_forbidden(
    changes: dict[str, Any], code: str
) -> None:
    verdict = judge(ended(**changes))
    assert (verdict.move, verdict.code) == (NextMove.HOLD, code)


def test_after_its_restarts_on_one_host_another_one_tries() -> None:
    assert judge(ended(past=past(H1))).prefer_id == H1
    verdict = judge(ended(past=past(H1, H1)))
    assert (verdict.move, verdict.prefer_id, verdict.avoid) == (NextMove.RESTART, None, (H1,))


def test_no_more_hosts_try_than_the_vm_may_be_relocated_to() -> None:
    on_h2 = ended(host_id=H2, host_name="h2", past=past(H1, H1, H1, H2))
    assert (judge(on_h2).prefer_id, judge(on_h2).avoid) == (H2, (H1, H3))
    spent = judge(ended(host_id=H2, host_name="h2", past=past(H1, H1, H1, H2, H2)))
    assert (spent.move, spent.code) == (NextMove.LATER, "RESTARTS_SPENT")


def test_the_next_try_comes_when_the_oldest_restart_is_out_of_the_window() -> None:
    ends = past(H1, H1)
    verdict = judge(ended(past=ends, max_relocate=0))
    assert verdict.next_try_at == ends[0].at + RESTART_WINDOW
    later = judge(ended(past=ends[1:], max_relocate=0, now=verdict.next_try_at))
    assert (later.move, later.prefer_id) == (NextMove.RESTART, H1)


def test_a_vm_without_restarts_on_one_host_goes_elsewhere_at_once() -> None:
    assert judge(ended(max_restart=0)).avoid == (H1,)
    alone = judge(ended(max_restart=0, hosts=(H1,)))
    assert alone.next_try_at == NOW + RESTART_WINDOW


@pytest.mark.parametrize("max_restart", range(4))
@pytest.mark.parametrize("max_relocate", range(4))
def test_restarts_in_a_window_never_exceed_the_limits(max_restart: int, max_relocate: int) -> None:
    host = H1
    ends: list[PastEnd] = []
    for minute in range(60):
        now = NOW + timedelta(seconds=5 * minute)
        limits = {"max_restart": max_restart, "max_relocate": max_relocate}
        verdict = judge(ended(host_id=host, past=tuple(ends), now=now, **limits))
        if verdict.move is NextMove.LATER:
            break
        ends.append(PastEnd(host_id=host, host_name="?", at=now))
        host = verdict.prefer_id or min({H1, H2, H3} - set(verdict.avoid))
    else:
        pytest.fail("it was restarted for ever")
    others = min(max_relocate, 2)
    assert len(ends) == (1 + others) * (1 + max_restart) - 1
