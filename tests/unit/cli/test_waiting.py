"""Waiting for an operation: progress, exit codes, time-outs, interrupts, a restarting engine."""

import json
from datetime import UTC, datetime
from typing import Any

import httpx2
import pytest

from cli.client import Api
from cli.endpoint import find_endpoint
from cli.failures import Exit, Failure
from cli.progress import Silent
from cli.watch import ENGINE_GONE_S, POLL_LAST_S, Watch
from tests.unit.cli.fake_engine import Desk, Json, at, operation, plain, problem, step, uid, vm

pytestmark = pytest.mark.unit

START = f"/vms/{uid('db01')}/actions/start"
SELF = f"/operations/{uid('operation')}"
NO_ROOM = {"code": "NO_ROOM", "detail": "needs 512 MiB", "next_step": "free some", "context": {}}


@pytest.fixture
def busy(desk: Desk) -> Desk:
    """An engine that accepts the start of db01."""
    desk.has(vm())
    desk.engine.on("POST", START, plain(operation("pending")))
    return desk


def test_without_a_terminal_each_change_is_one_line_beside_the_data(busy: Desk) -> None:
    retried = step("guest.start", "running", tries=2)
    busy.engine.on(
        "GET",
        SELF,
        plain(operation("running", steps=(step("guest.place", "running"),))),
        plain(operation("running", steps=(step("guest.place"), retried))),
        plain(operation("running", steps=(step("guest.place"), retried))),
        plain(operation(steps=(step("guest.place"), step("guest.start", detail="on h2")))),
    )
    result = busy.run("vm", "start", "db01")
    assert result.exit_code == 0
    assert result.stdout == "vm.start db01 succeeded: running on h2\n"
    pending, *lines = result.stderr.splitlines()
    assert pending.endswith("vm.start db01: pending")
    assert lines == [
        "07:00:00Z vm.start db01: running",
        "07:00:01Z vm.start db01 › guest.place: running",
        "07:00:01Z vm.start db01 › guest.start: running (try 2)",
        "07:00:01Z vm.start db01 › guest.place: succeeded after 0.50 s",
        "07:00:01Z vm.start db01 › guest.start: succeeded after 0.50 s: on h2",
        "07:00:02Z vm.start db01: succeeded after 1.50 s: running on h2",
    ]


def test_children_are_part_of_the_progress(busy: Desk) -> None:
    child = operation(
        "waiting", id=uid("child"), kind="vm.restart", target_name="web", waiting_for="512 MiB"
    )
    running = operation("running", kind="host.recover", target_name="h1", children=(child,))
    busy.engine.on("GET", SELF, plain(running), plain(operation()))
    result = busy.run("op", "watch", str(uid("operation")))
    assert "vm.restart web: waiting: 512 MiB" in result.stderr


@pytest.mark.parametrize(
    ("state", "code"),
    [
        ("succeeded", Exit.OK),
        ("failed", Exit.FAILED),
        ("cancelled", Exit.CANCELLED),
        ("needs_attention", Exit.NEEDS_ATTENTION),
    ],
)
@pytest.mark.parametrize("command", ["vm start db01", f"op wait {uid('operation')}"])
def test_the_exit_code_says_how_the_operation_ended(
    busy: Desk, command: str, state: str, code: Exit
) -> None:
    busy.engine.on("GET", SELF, plain(operation("running")), plain(operation(state)))
    assert busy.run(*command.split()).exit_code == code


def test_a_failed_operation_says_what_why_and_what_next(busy: Desk) -> None:
    busy.engine.on("GET", SELF, plain(operation("failed", problem=NO_ROOM)))
    result = busy.run("vm", "start", "db01", "--progress", "none")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.splitlines() == [
        "error: vm.start db01: needs 512 MiB (NO_ROOM)",
        "  correlation id chg-4711",
        "  next: free some",
    ]


def test_json_gives_the_operation_and_the_problem_on_their_own_streams(busy: Desk) -> None:
    ended = plain(operation("failed", problem=NO_ROOM | {"context": {"name": "db01", "code": 1}}))
    busy.engine.on("GET", SELF, ended)
    result = busy.run("vm", "start", "db01", "-o", "json")
    assert result.exit_code == 1
    assert json.loads(result.stdout) == ended
    document = json.loads(result.stderr)
    assert document["code"] == "NO_ROOM"
    assert document["context"]["operation_id"] == str(uid("operation"))
    assert document["context"]["name"] == "db01"


def test_no_wait_prints_the_id_alone_and_asks_no_more(busy: Desk) -> None:
    result = busy.run("vm", "start", "db01", "--no-wait")
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{uid('operation')}\n", "")
    assert busy.engine.requests[-1].method == "POST"
    shown = busy.run("vm", "start", "db01", "--no-wait", "-o", "json")
    assert json.loads(shown.stdout) == plain(operation("pending"))


def test_a_wait_that_times_out_leaves_the_operation_running(busy: Desk) -> None:
    busy.engine.on("GET", SELF, plain(operation("running")))
    result = busy.run("vm", "start", "db01", "--timeout", "0s")
    assert result.exit_code == Exit.STILL_RUNNING
    assert result.stderr.splitlines()[-1] == f"  next: holdfast op watch {uid('operation')}"


@pytest.mark.parametrize("command", ["vm start db01", f"op watch {uid('operation')}"])
def test_an_interrupt_detaches_and_says_how_to_go_on(busy: Desk, command: str) -> None:
    busy.engine.on("GET", SELF, plain(operation("running")), KeyboardInterrupt())
    if command.startswith("vm"):
        busy.engine.on("GET", SELF, KeyboardInterrupt())
    result = busy.run(*command.split())
    assert result.exit_code == 130
    assert "not cancelled" in result.stderr
    assert result.stderr.splitlines()[-1] == f"  next: holdfast op watch {uid('operation')}"
    assert [r.method for r in busy.engine.requests].count("POST") == command.startswith("vm")


def test_an_interrupt_before_the_answer_names_the_key_to_ask_again_with(busy: Desk) -> None:
    busy.engine.on("POST", START, KeyboardInterrupt())
    result = busy.run("vm", "start", "db01")
    assert result.exit_code == 130
    key = busy.engine.posted()[0].headers["Idempotency-Key"].strip('"')
    assert f"--idempotency-key {key}" in result.stderr


def test_an_engine_that_restarts_meanwhile_is_waited_for(busy: Desk) -> None:
    refused = httpx2.ConnectError("refused")
    not_ready = problem(503, "DATABASE_BUSY", "later")
    busy.engine.on("GET", SELF, refused, refused, not_ready, plain(operation()))
    result = busy.run("vm", "start", "db01")
    assert result.exit_code == 0
    assert result.stderr.count("the engine does not answer; trying again") == 1


class Clock:
    """Time that passes only while somebody pauses."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


def watch(desk: Desk, clock: Clock, **given: Any) -> Watch:
    transport = httpx2.MockTransport(desk.engine)
    api = Api(find_endpoint("http://localhost:1", {}), transport, clock.pause)
    return Watch(api, Silent(), pause=clock.pause, monotonic=lambda: clock.now, **given)


def test_an_engine_that_stays_away_is_given_up(busy: Desk) -> None:
    clock = Clock()
    busy.engine.on("GET", SELF, httpx2.ConnectError("refused"))
    with pytest.raises(Failure) as caught:
        watch(busy, clock).until_done(plain(operation("running")))
    assert caught.value.code is Exit.UNREACHABLE
    assert ENGINE_GONE_S <= clock.now <= ENGINE_GONE_S + 2 * POLL_LAST_S


def test_a_time_out_is_kept_to_the_end_and_not_overslept(busy: Desk) -> None:
    clock = Clock()
    busy.engine.on("GET", SELF, plain(operation("running")))
    with pytest.raises(Failure) as caught:
        watch(busy, clock, timeout_s=7.3).until_done(plain(operation("running")))
    assert caught.value.code is Exit.STILL_RUNNING
    assert clock.now == pytest.approx(7.3)
    assert max(clock.pauses) <= POLL_LAST_S


def test_the_live_tree_shows_tries_problems_and_elapsed_time() -> None:
    from rich.console import Console

    from cli.live import LiveTree

    shown = LiveTree(lambda: at(4).astimezone(UTC))
    done = operation(id=uid("done"), target_name="web", steps=(step("guest.place"),))
    failing = step("guest.start", "running", tries=3, problem=NO_ROOM)
    shown.update(plain(operation("running", steps=(failing,), children=(done,))))
    console = Console(width=100, record=True, force_terminal=False)
    with console.capture() as capture:
        console.print(shown)
    lines = [line.rstrip() for line in capture.get().splitlines()]
    assert [line for line in lines if "vm.start db01" in line and "3.50 s" in line]
    assert [line for line in lines if "running (try 3): needs 512 MiB (NO_ROOM)" in line]
    assert [line for line in lines if line.startswith("✓   vm.start web")]
    assert "guest.place" not in capture.get(), "the steps of a child that is done are folded"


def test_elapsed_time_follows_the_engine_s_clock(desk: Desk) -> None:
    ahead = httpx2.Response(200, json=[], headers={"Date": "Sun, 22 Nov 2099 07:00:00 GMT"})
    desk.engine.on("GET", "/vms", ahead)
    api = Api(find_endpoint("http://localhost:1", {}), httpx2.MockTransport(desk.engine))
    api.get("/vms")
    assert api.now() >= datetime(2099, 11, 22, 7, 0, tzinfo=UTC)


def test_an_operation_that_is_done_at_once_needs_no_progress(desk: Desk) -> None:
    done: Json = plain(operation(kind="cluster.create", target_name="east", summary="created"))
    desk.engine.on("POST", "/clusters", done)
    result = desk.run("cluster", "create", "east")
    assert result.stdout == "cluster.create east succeeded: created\n"
    assert result.stderr == ""
