"""The error tree: what each "no" answers over HTTP and whether asking again may help."""

import re

import pytest

from domain import errors
from domain.errors import (
    Conflict,
    Denied,
    EngineError,
    Invalid,
    NoAnswer,
    NotFound,
    OutcomeUnknown,
    Refused,
    Superseded,
    Unavailable,
)

pytestmark = pytest.mark.unit

TREE = [
    (EngineError, Exception, 500, False),
    (Refused, EngineError, 409, False),
    (Invalid, Refused, 422, False),
    (NotFound, Refused, 404, False),
    (Conflict, Refused, 409, False),
    (Denied, Refused, 403, False),
    (Superseded, Refused, 409, False),
    (Unavailable, EngineError, 503, True),
    (NoAnswer, Unavailable, 503, True),
    (OutcomeUnknown, Unavailable, 503, True),
]
CLASSES = [row[0] for row in TREE]


@pytest.mark.parametrize(
    ("error", "parent", "status", "retryable"), TREE, ids=[c.__name__ for c in CLASSES]
)
def test_each_error_has_its_place_status_and_hope(
    error: type[EngineError], parent: type[Exception], status: int, retryable: bool
) -> None:
    assert error.__bases__ == (parent,)
    assert (error.status, error.retryable) == (status, retryable)


def test_the_table_of_these_tests_knows_every_error_there_is() -> None:
    defined = [
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, EngineError)
    ]
    assert set(defined) == set(CLASSES)


def test_the_drawn_tree_names_every_error_with_its_status() -> None:
    drawn = dict(re.findall(r"[├└]── (\w+).*?(\d{3})?$", errors.__doc__ or "", re.MULTILINE))
    expected = {c.__name__: c.status for c in CLASSES if c is not EngineError}
    assert set(drawn) == set(expected)
    assert {n: int(s) for n, s in drawn.items() if s}.items() <= expected.items()


@pytest.mark.parametrize("error", CLASSES)
def test_an_error_carries_code_detail_next_step_and_numbers(error: type[EngineError]) -> None:
    raised = error("NO_ROOM", "needs 2 MiB", next_step="add a host", needed_mib=2, host=None)
    assert str(raised) == "NO_ROOM: needs 2 MiB"
    assert (raised.code, raised.detail) == ("NO_ROOM", "needs 2 MiB")
    assert (raised.next_step, raised.context) == ("add a host", {"needed_mib": 2, "host": None})


def test_an_error_without_advice_has_an_empty_next_step() -> None:
    raised = Conflict("VM_RUNS", "it runs")
    assert (raised.next_step, raised.context) == ("", {})


def test_what_may_be_retried_is_exactly_what_is_unavailable() -> None:
    assert {c for c in CLASSES if c.retryable} == {c for c in CLASSES if issubclass(c, Unavailable)}
