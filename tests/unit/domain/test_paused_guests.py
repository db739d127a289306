"""What becomes of a guest that QEMU has paused because a disk failed it."""

from typing import Any

import pytest

from domain.ended_guests import NextMove
from domain.inventory import OnIoError
from domain.paused_guests import KILL_AFTER_S, KILLED, judge_paused
from domain.readings import StateReason
from tests.unit.domain.test_ended_guests import H1, ended

pytestmark = pytest.mark.unit


def paused(on_io_error: OnIoError, **changes: Any) -> Any:
    return ended(reason=StateReason.IO_ERROR, on_io_error=on_io_error, **changes)


@pytest.mark.parametrize(
    ("policy", "paused_s", "move"),
    [
        (OnIoError.RESUME, 0.0, NextMove.RESUME),
        (OnIoError.RESUME, 1e6, NextMove.RESUME),
        (OnIoError.LEAVE_PAUSED, 1e6, NextMove.LEAVE),
        (OnIoError.KILL, KILL_AFTER_S - 1, NextMove.RESUME),
        (OnIoError.KILL, KILL_AFTER_S, NextMove.RESTART),
    ],
)
def test_each_policy_has_its_move(policy: OnIoError, paused_s: float, move: NextMove) -> None:
    verdict = judge_paused(paused(policy), paused_s)
    assert (verdict.move, verdict.kill) == (move, move is NextMove.RESTART)


@pytest.mark.parametrize("policy", OnIoError)
def test_nothing_is_done_while_that_is_forbidden(policy: OnIoError) -> None:
    assert judge_paused(paused(policy, armed=False), 1e6).code == "DISARMED"


def test_what_was_ended_is_not_started_where_its_disk_failed_it() -> None:
    verdict = judge_paused(paused(OnIoError.KILL), KILL_AFTER_S)
    assert (verdict.prefer_id, verdict.avoid, verdict.end_reason) == (None, (H1,), KILLED)


def test_where_no_other_host_is_left_the_same_one_tries() -> None:
    verdict = judge_paused(paused(OnIoError.KILL, hosts=(H1,)), KILL_AFTER_S)
    assert (verdict.move, verdict.prefer_id) == (NextMove.RESTART, H1)


def test_an_unprotected_vm_is_ended_and_stays_down() -> None:
    verdict = judge_paused(paused(OnIoError.KILL, protected=False), KILL_AFTER_S)
    assert (verdict.move, verdict.kill) == (NextMove.CLOSE, True)


def test_nothing_is_ended_while_another_copy_is_seen() -> None:
    verdict = judge_paused(paused(OnIoError.KILL, elsewhere=("h2",)), KILL_AFTER_S)
    assert verdict.move is NextMove.RESUME
