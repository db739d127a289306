"""Where a start that failed is tried next, and when no more."""

from uuid import UUID

import pytest

from domain.orders import StartLimits
from domain.profiles import Policy
from domain.start_tries import Tries

pytestmark = pytest.mark.unit
H1, H2 = UUID(int=1), UUID(int=2)


def tries(max_restart: int, max_relocate: int) -> Tries:
    return Tries(limits=StartLimits(max_restart=max_restart, max_relocate=max_relocate))


def test_within_a_round_no_host_is_tried_twice() -> None:
    first = tries(1, 3).after(H1, "h1", "LIBVIRT_REFUSED")
    assert (first.avoid, first.round_is_over) == ((H1,), False)
    assert first.after(H2, "h2", "LIBVIRT_REFUSED").avoid == (H1, H2)


def test_a_new_round_lets_every_host_try_again() -> None:
    assert tries(1, 0).after(H1, "h1", "X").next_round().avoid == ()


@pytest.mark.parametrize("max_restart", range(3))
@pytest.mark.parametrize("max_relocate", range(3))
def test_there_are_as_many_tries_as_the_limits_say(max_restart: int, max_relocate: int) -> None:
    state, count = tries(max_restart, max_relocate), 0
    while True:
        count += 1
        state = state.after(UUID(int=count), f"h{count}", "X")
        if not state.round_is_over:
            continue
        if state.spent:
            break
        state = state.next_round()
    assert count == (1 + max_restart) * (1 + max_relocate)


def test_a_round_that_ends_early_takes_no_try_away() -> None:
    state = tries(0, 3).after(H1, "h1", "X").next_round().after(H1, "h1", "X").next_round()
    assert (state.spent, state.after(H1, "h1", "X").after(H1, "h1", "X").spent) == (False, True)


def test_the_wait_between_rounds_doubles_up_to_its_limit() -> None:
    state, policy, waits = tries(9, 0), Policy(), []
    for _ in range(7):
        waits.append(state.wait_s(policy))
        state = state.next_round()
    assert waits == [2, 4, 8, 16, 32, 60, 60]


def test_failures_are_told_by_host_with_how_often_and_why_at_last() -> None:
    state = tries(2, 1).after(H1, "h1", "A").after(H2, "h2", "B").next_round().after(H1, "h1", "C")
    assert state.told() == "h1 2 times (C), h2 (B)"
