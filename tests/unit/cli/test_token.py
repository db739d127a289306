"""`holdfast token`: given once, listed without secrets, ended."""

import json
from pathlib import Path

import pytest

from api.people import People, people_file
from cli.failures import Exit
from tests.unit.cli.fake_engine import Desk

pytestmark = pytest.mark.unit


def test_a_token_is_the_one_line_on_standard_output_and_is_never_told_again(
    desk: Desk, tmp_path: Path
) -> None:
    added = desk.run("token", "add", "ann", "--role", "operator")
    assert added.exit_code == 0, added.stderr
    token = added.stdout.strip()
    assert People(people_file(tmp_path)).holder(token) == "ann"
    listed = desk.run("token", "list", "-o", "json")
    assert json.loads(listed.stdout) == [
        {"name": "admin", "role": "admin"},
        {"name": "ann", "role": "operator"},
    ]
    assert token not in listed.stdout + desk.run("token", "list").stdout


def test_a_second_token_for_a_name_and_the_end_of_none_are_refused(desk: Desk) -> None:
    assert desk.run("token", "add", "ann", "--role", "viewer").exit_code == 0
    again = desk.run("token", "add", "ann", "--role", "viewer")
    assert (again.exit_code, again.stdout) == (Exit.CONFLICT, "")
    assert "holdfast token remove ann" in again.stderr
    assert desk.run("token", "remove", "ann").exit_code == 0
    assert desk.run("token", "remove", "ann").exit_code == Exit.NOT_FOUND


def test_a_role_of_the_engines_own_is_not_offered(desk: Desk) -> None:
    assert desk.run("token", "add", "ann", "--role", "engine").exit_code == Exit.USAGE
