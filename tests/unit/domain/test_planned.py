"""What becomes of a VM that was shut down with its host."""

from typing import Any

import pytest

from domain.inventory import HostState
from domain.planned import Return, ReturnFacts, what_next

pytestmark = pytest.mark.unit

RUNS: dict[str, Any] = {
    "frozen": False,
    "wanted": True,
    "running": True,
    "busy": False,
    "planned": False,
    "host_state": HostState.MAINTENANCE,
    "after": False,
}


@pytest.mark.parametrize(
    ("how", "found"),
    [
        ({}, Return.FORGET),
        ({"stopping": True}, Return.STOP),
        ({"stopping": True, "busy": True}, Return.WAIT),
        ({"stopping": True, "planned": True}, Return.WAIT),
        ({"stopping": True, "wanted": False}, Return.FORGET),
        ({"running": False}, Return.START),
    ],
    ids=str,
)
def test_one_that_was_asked_to_end_is_not_forgotten(how: dict[str, Any], found: Return) -> None:
    assert what_next(ReturnFacts(**RUNS | how)) is found
