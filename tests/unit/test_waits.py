"""What a person can do about an operation that waits."""

import re
from typing import Any

import pytest
import typer

from cli.main import app
from domain.storm import HoldReason
from domain.waits import STEPS, next_step

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("reason", list(HoldReason))
def test_every_reason_to_hold_a_fence_has_a_next_step(reason: HoldReason) -> None:
    assert next_step(reason.value, "h1", "op")


def test_a_next_step_names_the_target_and_the_operation() -> None:
    assert next_step("PAUSED", "h1", 7) == "`holdfast op resume 7`"
    found = next_step("MANY_SILENT", "h1", 7)
    assert found == "`holdfast approval give h1 --why TEXT` if it is really down; else wait"


@pytest.mark.parametrize("code", [None, "WORKFLOW_UNKNOWN"])
def test_what_ends_by_itself_has_none(code: str | None) -> None:
    assert next_step(code, "h1", 7) is None


@pytest.mark.parametrize("code", sorted(STEPS))
def test_every_command_that_is_named_exists_with_its_options(code: str) -> None:
    for words in re.findall(r"`holdfast ([^`]+)`", STEPS[code]):
        found: Any = typer.main.get_command(app)
        parts = words.split()
        while hasattr(found, "commands"):
            found = found.commands[parts.pop(0)]
        known = {o for each in found.params for o in (*each.opts, *each.secondary_opts)}
        given = {part for part in parts if part.startswith("--")}
        needed = {each.opts[0] for each in found.params if each.required} - {"--timeout"}
        assert given <= known | {"--help"}
        assert "--help" in given or {one for one in needed if one.startswith("--")} <= given
