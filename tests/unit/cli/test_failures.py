"""What goes wrong on the way to the engine and back, and how it is told."""

import json

import httpx2
import pytest

from cli.failures import Exit
from tests.unit.cli.fake_engine import Desk, operation, paged, plain, problem, uid, vm

pytestmark = pytest.mark.unit

START = f"/vms/{uid('db01')}/actions/start"


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, Exit.USAGE),
        (401, Exit.NOT_LOGGED_IN),
        (403, Exit.DENIED),
        (404, Exit.NOT_FOUND),
        (409, Exit.CONFLICT),
        (422, Exit.USAGE),
        (500, Exit.FAILED),
        (503, Exit.UNREACHABLE),
    ],
)
def test_a_refusal_ends_by_its_exit_code_with_what_why_and_next(
    desk: Desk, status: int, code: Exit
) -> None:
    refusal = problem(status, "SOME_CODE", "it says no", next_step="do that", correlation_id="c-1")
    desk.engine.on("GET", "/vms", refusal)
    result = desk.run("vm", "list")
    assert (result.exit_code, result.stdout) == (code, "")
    first, second, last = result.stderr.splitlines()
    assert first == "error: it says no (SOME_CODE)"
    assert second == "  correlation id c-1"
    assert last.startswith("  next: set HOLDFAST_TOKEN" if status == 401 else "  next: do that")


def test_with_json_the_problem_document_is_all_there_is(desk: Desk) -> None:
    refusal = problem(409, "OBJECT_BUSY", "busy", context={"holder": "x"})
    desk.engine.on("GET", "/vms", refusal)
    result = desk.run("vm", "list", "-o", "json")
    assert (result.exit_code, result.stdout) == (Exit.CONFLICT, "")
    assert json.loads(result.stderr) == refusal.json()


@pytest.mark.parametrize("noun", ["vm", "host"])
def test_a_name_that_is_unknown_is_not_found(desk: Desk, noun: str) -> None:
    desk.engine.on("GET", f"/{noun}s", paged())
    result = desk.run(noun, "show", "nobody", "-o", "json")
    assert result.exit_code == Exit.NOT_FOUND
    assert json.loads(result.stderr)["code"] == f"{noun.upper()}_NOT_FOUND"


def test_an_engine_that_is_not_there_is_told_at_once(desk: Desk) -> None:
    desk.engine.on("GET", "/vms", httpx2.ConnectError("Connection refused"))
    result = desk.run("vm", "list")
    assert result.exit_code == Exit.UNREACHABLE
    assert "http://127.0.0.1:8420: Connection refused (ENGINE_UNREACHABLE)" in result.stderr
    assert "holdfast up" in result.stderr.splitlines()[-1]
    assert desk.pauses == []


def test_a_lost_answer_is_asked_for_again_under_the_same_key(desk: Desk) -> None:
    desk.has(vm())
    lost = httpx2.ReadError("connection reset")
    desk.engine.on("POST", START, lost, httpx2.ConnectError("refused"), plain(operation()))
    result = desk.run("vm", "start", "db01")
    assert result.exit_code == 0, result.output
    keys = {request.headers["Idempotency-Key"] for request in desk.engine.posted()}
    assert (len(desk.engine.posted()), len(keys)) == (3, 1)


@pytest.mark.parametrize(
    "error", [httpx2.ReadError("reset"), httpx2.RemoteProtocolError("closed"), None]
)
def test_an_action_whose_answer_stays_lost_may_have_been_accepted(
    desk: Desk, error: Exception | None
) -> None:
    desk.has(vm())
    desk.engine.on("POST", START, error or httpx2.ReadTimeout("timed out"))
    result = desk.run("vm", "start", "db01")
    key = desk.engine.posted()[0].headers["Idempotency-Key"].strip('"')
    assert result.exit_code == Exit.UNREACHABLE
    assert "may or may not have been accepted" in result.stderr
    assert f"--idempotency-key {key}" in result.stderr.splitlines()[-1]
    assert len(desk.engine.posted()) == (4 if error else 1), "a hung engine is not asked again"


def test_an_action_that_never_left_is_not_called_doubtful(desk: Desk) -> None:
    desk.has(vm())
    desk.engine.on("POST", START, httpx2.ConnectError("refused"))
    result = desk.run("vm", "start", "db01")
    assert result.exit_code == Exit.UNREACHABLE
    assert "may or may not" not in result.stderr


@pytest.mark.parametrize(
    ("answer", "code", "word"),
    [
        (httpx2.Response(200, html="<h1>hello</h1>"), Exit.FAILED, "ANSWER_NOT_UNDERSTOOD"),
        (httpx2.Response(502, html="<h1>bad gateway</h1>"), Exit.UNREACHABLE, "HTTP_502"),
        (httpx2.Response(404, json={"detail": "Not Found"}), Exit.NOT_FOUND, "HTTP_404"),
    ],
)
def test_something_else_than_an_engine_is_recognised(
    desk: Desk, answer: httpx2.Response, code: Exit, word: str
) -> None:
    desk.engine.on("GET", "/vms", answer)
    result = desk.run("vm", "list")
    assert result.exit_code == code
    assert word in result.stderr


def test_what_others_wrote_cannot_steer_the_terminal(desk: Desk) -> None:
    evil = "db\x1b[2J\x9b31m\u202eevil\r\nroot# "
    found = plain(operation("failed", problem={"code": "BAD", "detail": evil, "next_step": evil}))
    desk.engine.on("GET", f"/operations/{uid('operation')}", found)
    for command in ("show", "watch"):
        result = desk.run("op", command, str(uid("operation")))
        assert "evil" in result.output
        assert not set("\x1b\x9b\u202e\r") & set(result.output)


def test_an_interrupt_of_a_question_is_no_failure_of_the_engine(desk: Desk) -> None:
    desk.engine.on("GET", "/vms", KeyboardInterrupt())
    assert desk.run("vm", "list").exit_code == Exit.INTERRUPTED
