"""What waits for an approval is told with its reasons and whoever gave one."""

import json

import pytest

from tests.unit.cli.fake_engine import Desk, Json, host, uid

pytestmark = pytest.mark.unit

GIVEN: Json = {
    "principal": "ann",
    "reason": "the rack burns",
    "lasts_s": 900,
    "given_at": "2026-11-22T07:01:00Z",
    "withdrawn_at": None,
    "valid": True,
}


def waiting(*approvals: Json, approvable: bool = True) -> Json:
    return {
        "incident_id": str(uid("incident")),
        "host_id": str(uid("h2")),
        "host_name": "h2",
        "opened_at": "2026-11-22T07:00:00Z",
        "reasons": ["BUDGET_SPENT"],
        "why": "1 of 1 fences in the last 300 s are spent",
        "approvable": approvable,
        "approvals": list(approvals),
    }


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (waiting(), "none"),
        (waiting(GIVEN), "by ann: the rack burns"),
        (waiting(GIVEN | {"valid": False}), "expired, by ann"),
        (waiting(GIVEN | {"valid": False, "withdrawn_at": "2026-11-22T07:02:00Z"}), "withdrawn"),
        (waiting(approvable=False), "no use"),
    ],
)
def test_each_wait_says_how_its_approval_stands(desk: Desk, entry: Json, words: str) -> None:
    desk.engine.on("GET", "/approvals", [entry])
    text = desk.run("approval", "list").stdout
    assert words in text
    assert "1 of 1 fences in the last 300 s are spent" in text


def test_nothing_that_waits_is_said_so(desk: Desk) -> None:
    desk.engine.on("GET", "/approvals", [])
    assert "nothing waits for an approval" in desk.run("approval", "list").stderr


def test_json_is_what_the_api_answered(desk: Desk) -> None:
    desk.engine.on("GET", "/approvals", [waiting(GIVEN)])
    assert json.loads(desk.run("approval", "list", "-o", "json").stdout) == [waiting(GIVEN)]


def test_an_approval_is_asked_for_before_it_is_given(desk: Desk) -> None:
    desk.has(host())
    refused = desk.run("approval", "give", "h1", "--why", "burning")
    assert refused.exit_code != 0
    assert "the storm guard holds it back" in refused.stderr
