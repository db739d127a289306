"""When a guest is hung: its agent has answered, its channel is open, and it stays silent."""

from typing import Any

import pytest

from domain.ended_guests import HUNG, EndedGuest, NextMove
from domain.hung_guests import GAP_S, Listening, after_question, judge_hung
from domain.inventory import OnHang
from domain.readings import AgentState, StateReason
from tests.unit.domain.test_ended_guests import H1, H2, ended, past

pytestmark = pytest.mark.unit

ANSWERS, SILENT, ABSENT = AgentState.ANSWERS, AgentState.SILENT, AgentState.ABSENT
UNSYNCED = AgentState.UNSYNCED


def silent_s(*said: AgentState | None, heard: bool = False, every_s: float = 5.0) -> float:
    """How long the agent is silent after these, asked one after the other."""
    now = Listening(heard=heard)
    for number, word in enumerate(said):
        now = after_question(now, word, 1000.0 + number * every_s)
    return now.silent_s


def test_silence_counts_from_the_first_question_that_was_not_answered() -> None:
    assert silent_s(ANSWERS, SILENT) == 0.0
    assert silent_s(ANSWERS, SILENT, SILENT, SILENT) == 10.0


def test_an_answer_ends_it() -> None:
    assert silent_s(ANSWERS, SILENT, SILENT, ANSWERS) == 0.0
    assert silent_s(ANSWERS, SILENT, SILENT, ANSWERS, SILENT, SILENT) == 5.0


def test_an_agent_that_never_answered_in_this_run_is_never_silent() -> None:
    assert silent_s(*[SILENT] * 100) == 0.0


def test_one_that_answered_another_monitor_in_this_run_has_answered() -> None:
    assert silent_s(SILENT, SILENT, SILENT, heard=True) == 10.0


@pytest.mark.parametrize("between", [None, ABSENT, UNSYNCED])
def test_what_cannot_be_asked_has_closed_its_channel_or_is_late_begins_anew(
    between: AgentState | None,
) -> None:
    assert silent_s(ANSWERS, SILENT, SILENT, between) == 0.0
    assert silent_s(ANSWERS, SILENT, SILENT, between, SILENT, SILENT) == 5.0


def test_a_pause_of_whoever_listens_is_no_silence_of_the_guest() -> None:
    assert silent_s(ANSWERS, SILENT, SILENT, every_s=GAP_S + 10.0) == 0.0


def test_a_round_that_asks_many_silent_guests_takes_longer_and_is_no_pause() -> None:
    now = Listening(heard=True)
    for number in range(4):
        now = after_question(now, SILENT, number * 100.0, between=20)  # libvirt takes 5 s for each
    assert now.silent_s == 300.0


def hung(**changes: Any) -> EndedGuest:
    facts = {"reason": StateReason.UNKNOWN, "on_hang": OnHang.RESTART} | changes
    return ended(**facts)


def test_a_protected_one_is_ended_and_started_again_on_its_host() -> None:
    verdict = judge_hung(hung())
    assert (verdict.move, verdict.kill, verdict.end_reason) == (NextMove.RESTART, True, HUNG)
    assert verdict.prefer_id == H1


def test_it_goes_elsewhere_once_its_host_has_tried_often_enough() -> None:
    verdict = judge_hung(hung(past=past(H1, H1)))
    assert (verdict.move, verdict.kill, verdict.avoid) == (NextMove.RESTART, True, (H1,))


def test_where_its_restarts_are_spent_it_is_left_and_looked_at_again() -> None:
    verdict = judge_hung(hung(past=past(H1, H1, H2, H2, H2)))
    assert (verdict.move, verdict.kill, verdict.code) == (NextMove.HOLD, False, "RESTARTS_SPENT")
    assert verdict.next_try_at is not None


@pytest.mark.parametrize(
    ("changes", "move", "code"),
    [
        ({"armed": False}, NextMove.HOLD, "DISARMED"),
        ({"elsewhere": ("h3",)}, NextMove.HOLD, "GUEST_ELSEWHERE"),
        ({"protected": False}, NextMove.NOTHING, ""),
        ({"wanted": False}, NextMove.NOTHING, ""),
        ({"on_hang": OnHang.REPORT}, NextMove.NOTHING, ""),
        ({"on_hang": OnHang.OFF}, NextMove.NOTHING, ""),
    ],
)
def test_nothing_is_ended_where_nobody_asked_for_it_or_it_is_not_safe(
    changes: dict[str, Any], move: NextMove, code: str
) -> None:
    verdict = judge_hung(hung(**changes))
    assert (verdict.move, verdict.code, verdict.kill) == (move, code, False)
