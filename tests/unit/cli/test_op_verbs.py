"""`holdfast op`: cancel, retry, pause, resume, prioritise, and what blocks an operation."""

import json
import re
from datetime import UTC, datetime, timedelta

import pytest

from engine.views import BlockView
from tests.unit.cli.fake_engine import Desk, Json, at, operation, plain, problem, uid

pytestmark = pytest.mark.unit

ID = str(uid("operation"))
PATH = f"/operations/{ID}"
DONE = operation(id=uid("control"), kind="operation.cancel", summary="asked to cancel")


def on(desk: Desk, verb: str, *answers: Json) -> None:
    desk.engine.on("POST", f"{PATH}/actions/{verb}", *answers)


@pytest.mark.parametrize("verb", ["cancel", "pause", "resume"])
def test_a_verb_is_asked_for_once_with_a_reason_and_a_key(desk: Desk, verb: str) -> None:
    on(desk, verb, plain(DONE))
    result = desk.run("op", verb, ID, "--reason", "too slow")
    assert result.exit_code == 0, result.output
    assert "succeeded: asked to cancel" in result.stdout
    (request,) = desk.engine.posted()
    assert request.headers["X-Reason"] == "too slow"
    assert request.headers["Idempotency-Key"]
    assert desk.engine.body() == {}


def test_a_priority_is_sent_as_a_number_and_must_be_a_class(desk: Desk) -> None:
    on(desk, "prioritise", plain(DONE))
    assert desk.run("op", "prioritise", ID, "2").exit_code == 0
    assert desk.engine.body() == {"priority": 2}
    for wrong in ("0", "6", "soon"):
        assert desk.run("op", "prioritise", ID, wrong).exit_code == 2


def test_a_retry_follows_the_operation_that_is_tried_again(desk: Desk) -> None:
    on(desk, "retry", plain(operation(id=uid("control"), kind="operation.retry")))
    desk.engine.on("GET", PATH, plain(operation("pending")), plain(operation("running")))
    desk.engine.answers["GET", f"/api/v1{PATH}"].append(plain(operation()))
    result = desk.run("op", "retry", ID)
    assert result.exit_code == 0, result.output
    assert "vm.start db01 succeeded: running on h2" in result.stdout


def test_a_retry_that_fails_again_ends_like_the_operation(desk: Desk) -> None:
    on(desk, "retry", plain(DONE))
    trouble = {"code": "NO_ROOM", "detail": "no room", "next_step": "", "context": {}}
    desk.engine.on("GET", PATH, plain(operation("failed", problem=trouble)))
    result = desk.run("op", "retry", ID)
    assert (result.exit_code, "NO_ROOM" in result.stderr) == (1, True)


def test_a_refused_cancel_prints_why_and_what_to_do(desk: Desk) -> None:
    refusal = problem(409, "CANCEL_TOO_LATE", "its VMs are claimed", next_step="cancel a child")
    desk.engine.on("POST", f"{PATH}/actions/cancel", refusal)
    result = desk.run("op", "cancel", ID)
    assert result.exit_code != 0
    assert "CANCEL_TOO_LATE" in result.stderr
    assert "cancel a child" in result.stderr


def test_what_is_no_id_is_refused_before_anything_is_asked(desk: Desk) -> None:
    for verb in ("cancel", "retry", "pause", "resume"):
        assert desk.run("op", verb, "not-an-id").exit_code == 2
    assert desk.engine.requests == []


def waiting() -> Json:
    blocks = (
        BlockView(
            what="lock",
            detail="vm.stop (running) holds this vm",
            operation_id=uid("holder"),
            kind="vm.stop",
        ),
        BlockView(what="lock", detail="2 others wait for this vm and get it first", position=2),
    )
    return plain(operation("waiting", blocked_by=blocks, attempt=2, waiting_for="busy"))


def test_a_waiting_operation_shows_what_can_be_done_about_it(desk: Desk) -> None:
    step = "`holdfast op cancel 7` gives it up"
    desk.engine.on("GET", PATH, plain(operation("waiting", waiting_for="busy", next_step=step)))
    assert step in desk.run("op", "show", ID).stdout


@pytest.mark.parametrize(
    ("left_s", "said"),
    [
        (90.0, r"in 1 min \d\d s at the latest, and at once when something changes"),
        (-1.0, "now; if this stays so, no worker has come to it"),
    ],
)
def test_a_waiting_operation_shows_when_it_is_looked_at_again(
    desk: Desk, left_s: float, said: str
) -> None:
    due = datetime.now(UTC) + timedelta(seconds=left_s)
    desk.engine.on("GET", PATH, plain(operation("waiting", waiting_for="room", next_look_at=due)))
    assert re.search(said, desk.run("op", "show", ID).stdout)


def test_one_that_waits_for_its_locks_shows_until_when(desk: Desk) -> None:
    desk.engine.on("GET", PATH, plain(operation("waiting", waiting_for="busy", gives_up_at=at(30))))
    assert "07:00:30" in desk.run("op", "show", ID).stdout


def test_what_blocks_an_operation_is_shown_with_who_it_is(desk: Desk) -> None:
    desk.engine.on("GET", PATH, waiting())
    shown = desk.run("op", "show", ID, "--blocked").stdout
    assert "vm.stop (running) holds this vm" in shown
    assert str(uid("holder")) in shown
    assert "2 others wait" in shown
    assert "chg-4711" not in shown
    whole = desk.run("op", "show", ID).stdout
    assert f"holds this vm ({uid('holder')}); 2 others wait" in whole
    assert "tries" in whole
    answer = json.loads(desk.run("op", "show", ID, "--blocked", "-o", "json").stdout)
    assert [block["what"] for block in answer] == ["lock", "lock"]


@pytest.mark.parametrize(("state", "word"), [("running", "at work"), ("failed", "has ended")])
def test_an_operation_that_nothing_blocks_says_so(desk: Desk, state: str, word: str) -> None:
    desk.engine.on("GET", PATH, plain(operation(state)))
    result = desk.run("op", "show", ID, "--blocked")
    assert (result.stdout, word in result.stderr) == ("", True)


def test_progress_and_expected_end_are_shown_where_they_are_known(desk: Desk) -> None:
    counted = {"progress_done": 3, "progress_total": 40, "predicted_end_at": at(60)}
    desk.engine.on("GET", PATH, plain(operation("running", **counted)))
    assert "3 of 40, should end at" in desk.run("op", "show", ID).stdout


def test_a_list_is_narrowed_by_parent_principal_and_time(desk: Desk) -> None:
    empty: Json = {"items": [], "next_cursor": None, "total": None}
    desk.engine.on("GET", "/operations", empty)
    narrowed = ("--parent", ID, "--by", "ann", "--since", "2026-11-22T07:00", "--state", "failed")
    assert desk.run("op", "list", *narrowed).exit_code == 0
    asked = desk.engine.requests[-1].url.params
    assert (asked["parent_id"], asked["principal"], asked["state"]) == (ID, "ann", "failed")
    assert asked["since"] == "2026-11-22T07:00:00+00:00"
