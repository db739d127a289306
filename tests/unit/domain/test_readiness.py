"""Rules of readiness: each says what it needs, and nothing that it does not."""

from typing import Any

import pytest
from pydantic import ValidationError

from domain.readiness import ReadyRule, ReadyWhen

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("fields", "within_s", "told"),
    [
        ({"when": "delay", "delay_s": 30}, 30, "30 s after it runs"),
        ({"when": "agent"}, 120, "its guest agent answers"),
        (
            {"when": "tcp", "host": "db", "port": 5432, "limit_s": 60},
            60,
            "db takes connections at port 5432",
        ),
        (
            {"when": "tcp", "host": "fd00::7", "port": 80},
            120,
            "fd00::7 takes connections at port 80",
        ),
    ],
)
def test_a_rule_says_what_is_waited_for_and_how_long(
    fields: dict[str, Any], within_s: float, told: str
) -> None:
    rule = ReadyRule.model_validate(fields)
    assert (rule.within_s, rule.told()) == (within_s, told)
    assert ReadyRule.model_validate(rule.model_dump(mode="json")) == rule


@pytest.mark.parametrize(
    "fields",
    [
        {"when": "delay"},
        {"when": "agent", "delay_s": 3},
        {"when": "agent", "host": "db", "port": 1},
        {"when": "tcp", "host": "db"},
        {"when": "tcp", "port": 5432},
        {"when": "tcp", "host": "a b", "port": 5432},
        {"when": "tcp", "host": "db", "port": 65536},
        {"when": "agent", "limit_s": 0},
        {"when": "prayer"},
    ],
)
def test_a_rule_that_lacks_something_or_says_too_much_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ReadyRule.model_validate(fields)


def test_there_is_a_rule_for_each_kind_but_running() -> None:
    assert {word.value for word in ReadyWhen} == {"delay", "tcp", "agent"}
