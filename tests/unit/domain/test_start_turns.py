"""Whose turn it is to start on a host."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from domain.profiles import START_DEADLINE_S
from domain.start_turns import OVERDUE_S, Starts, Turn, next_ones, under_way, why_not_yet

pytestmark = pytest.mark.unit

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
PERSON, PROTECTED = 3, 2


def turn(number: int, since_s: float | None = None, **more: Any) -> Turn:
    """One that has just come, or that asked, or has begun, so many seconds ago."""
    since = None if since_s is None else NOW - timedelta(seconds=since_s)
    told = {"urgency": PROTECTED, "protected": True, "priority": 50, "begun": False}
    told |= {"waits": since is not None, "since": since} | more
    return Turn(run_id=UUID(int=number), operation_id=UUID(int=number), vm=f"vm{number}", **told)


def begun(number: int, since_s: float = 1) -> Turn:
    return turn(number, since_s, begun=True, waits=False)


def why(number: int, *turns: Turn, most: int = 1) -> str | None:
    return why_not_yet(starts(*turns, most=most), UUID(int=number), NOW)


def starts(*turns: Turn, most: int = 1) -> Starts:
    return Starts(host="h3", most=most, turns=turns)


def first(*turns: Turn, most: int = 1) -> list[str]:
    return [one.vm for one in next_ones(starts(*turns, most=most), NOW)]


def test_as_many_begin_as_may_and_the_next_one_is_told_with_numbers_and_names() -> None:
    assert why(3, turn(3), begun(1), most=2) is None
    told = why(3, turn(3), begun(1), begun(2), most=2)
    assert told == "h3 starts 2 VMs at once at the most: 2 start there (vm1, vm2)"


def test_a_long_list_is_cut() -> None:
    told = why(9, turn(9), *(begun(number) for number in range(1, 6)), most=5)
    assert told is not None
    assert told.endswith("5 start there (vm1, vm2, vm3, …)")


def test_who_has_come_later_waits_behind_an_equal_that_waits() -> None:
    told = why(1, turn(1), turn(2, 3))
    assert told == "h3 starts 1 VMs at once at the most: 1 come before vm1 (vm2)"
    assert why(2, turn(1), turn(2, 3)) is None
    assert why(1, turn(1, 1), turn(2, 3)) is not None
    assert why(1, turn(1), turn(2)) is None, "one that nobody has told to wait is not waited for"


@pytest.mark.parametrize(
    "more",
    [{"urgency": PERSON}, {"protected": False}, {"priority": 49}],
)
def test_the_more_important_one_goes_first_however_long_the_other_has_waited(
    more: dict[str, Any],
) -> None:
    lesser = turn(2, OVERDUE_S - 1, **more)
    assert why(1, turn(1), lesser) is None
    assert why(2, turn(1, 0), lesser) is not None
    assert first(lesser, turn(1, 0)) == ["vm1"]


def test_who_has_waited_very_long_goes_before_all_and_waits_for_none_of_them() -> None:
    lesser = turn(2, OVERDUE_S, priority=1)
    assert why(2, turn(1, 1), lesser) is None
    assert why(1, turn(1), lesser) is not None
    assert first(turn(1, 1), lesser) == ["vm2"]
    assert why(3, turn(3, OVERDUE_S, priority=0), lesser) is None, "vm2 may be stuck"
    assert why(2, begun(1), lesser) is not None, "the limit holds for it all the same"


def test_a_start_that_takes_too_long_keeps_nobody_waiting() -> None:
    assert under_way(starts(begun(1, START_DEADLINE_S)), NOW) == ()
    assert len(under_way(starts(begun(1, START_DEADLINE_S - 1)), NOW)) == 1
    assert under_way(starts(begun(1, -START_DEADLINE_S)), NOW) == (), "its clock was ahead"


def test_one_that_an_older_release_has_begun_counts() -> None:
    old = turn(1, None, begun=True)
    assert why(2, turn(2), old) is not None


def test_those_are_woken_whose_turn_has_come_in_their_order() -> None:
    waiting = (turn(4, 1), turn(3, 2), turn(2, 1, priority=60), turn(5))
    assert first(*waiting, begun(1), most=3) == ["vm2", "vm3"]
    assert first(*waiting, begun(1), most=1) == []
    assert first(*waiting, begun(1), begun(6), most=1) == [], "the limit was lowered"


def test_when_all_that_are_woken_look_each_of_them_begins() -> None:
    turns = (turn(4, 1), turn(3, 2), turn(2, 1, priority=60), begun(1))
    woken = next_ones(starts(*turns, most=3), NOW)
    assert [why_not_yet(starts(*turns, most=3), one.run_id, NOW) for one in woken] == [None, None]
