"""A disarm is asked for again while the engine or its database is away; nothing else is."""

import json
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from cli.failures import Exit
from tests.unit.cli.fake_engine import Desk, cluster, operation, plain, problem, uid

pytestmark = pytest.mark.unit

DISARM = f"/clusters/{uid('lab')}/actions/disarm"
ARM = f"/clusters/{uid('lab')}/actions/arm"
AWAY = problem(503, "DATABASE_UNAVAILABLE", "the database does not answer: refused")
UNKNOWN = problem(503, "COMMIT_OUTCOME_UNKNOWN", "the database went away during the commit")
REFUSED = httpx2.ConnectError("Connection refused")


def taken(name: str = "lab") -> Any:
    return plain(operation(kind="cluster.arm", target_name=name, summary="disarmed: hold"))


def keys(desk: Desk) -> set[str]:
    return {request.headers["Idempotency-Key"] for request in desk.engine.posted()}


@pytest.fixture
def lab(desk: Desk) -> Desk:
    """An engine with one cluster."""
    desk.has(cluster())
    return desk


def test_a_disarm_is_taken_once_the_database_is_back(lab: Desk) -> None:
    lab.engine.on("POST", DISARM, AWAY, AWAY, taken())
    result = lab.run("cluster", "disarm", "lab")
    assert result.exit_code == 0, result.output
    assert result.stdout == "cluster.arm lab succeeded: disarmed: hold\n"
    assert (len(lab.engine.posted()), len(keys(lab)), len(lab.pauses)) == (3, 1, 2)
    told, meanwhile, until = result.stderr.splitlines()
    assert told.endswith("the database does not answer: refused (DATABASE_UNAVAILABLE)")
    assert "no new one begins; one that was claimed before is carried out" in meanwhile
    assert "Ctrl-C ends it" in until


def test_the_cluster_is_looked_for_again_too(lab: Desk) -> None:
    there = lab.engine.answers["GET", "/api/v1/clusters"]
    lab.engine.on("GET", "/clusters", AWAY, REFUSED, *there)
    lab.engine.on("POST", DISARM, taken())
    result = lab.run("cluster", "disarm", "lab")
    assert result.exit_code == 0, result.output
    assert "the engine's other processes may act" in result.stderr, "of an engine that is away"


@pytest.mark.parametrize("lost", [UNKNOWN, httpx2.ReadTimeout("timed out")])
def test_a_disarm_whose_answer_was_lost_is_asked_for_again_under_the_same_key(
    lab: Desk, lost: Any
) -> None:
    lab.engine.on("POST", DISARM, lost, AWAY, taken())
    result = lab.run("cluster", "disarm", "lab")
    assert result.exit_code == 0, result.output
    assert (len(lab.engine.posted()), len(keys(lab))) == (3, 1)


@pytest.mark.parametrize("given", ["45", "0"])
def test_a_disarm_is_given_up_with_the_engine_s_problem_when_time_is_over(
    lab: Desk, given: str
) -> None:
    lab.engine.on("POST", DISARM, AWAY)
    result = lab.run("cluster", "disarm", "lab", "--keep-trying", given)
    assert result.exit_code == Exit.UNREACHABLE
    assert "error: the database does not answer: refused (DATABASE_UNAVAILABLE)" in result.stderr
    assert "may or may not" not in result.stderr
    assert lab.now == float(given)
    assert len(lab.engine.posted()) == 1 + int(given)
    told = {"45": 2, "0": 0}  # at first, and once more after half a minute
    assert result.stderr.count("not taken yet") == told[given]


def test_what_may_have_arrived_once_is_told_though_a_later_try_certainly_did_not(lab: Desk) -> None:
    lab.engine.on("POST", DISARM, UNKNOWN, AWAY)
    result = lab.run("cluster", "disarm", "lab", "--keep-trying", "5s", "-o", "json")
    document = json.loads(result.stderr)
    [key] = keys(lab)
    assert document["code"] == "DATABASE_UNAVAILABLE"
    assert "may or may not have been accepted" in document["detail"]
    assert f"--idempotency-key {key.strip(chr(34))}" in document["next_step"]


def test_ten_minutes_are_the_default(lab: Desk) -> None:
    lab.engine.on("POST", DISARM, REFUSED)
    assert lab.run("cluster", "disarm", "lab").exit_code == Exit.UNREACHABLE
    assert lab.now == 600


def test_an_interrupt_between_two_tries_names_the_key_to_ask_again_with(
    lab: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(lab, "pause", interrupted)
    lab.engine.on("POST", DISARM, AWAY)
    result = lab.run("cluster", "disarm", "lab")
    [key] = keys(lab)
    assert result.exit_code == Exit.INTERRUPTED
    assert f"--idempotency-key {key.strip(chr(34))}" in result.stderr


@pytest.mark.parametrize("options", [("-o", "json"), ("--progress", "none")])
def test_whoever_wants_no_progress_sees_none(lab: Desk, options: tuple[str, ...]) -> None:
    lab.engine.on("POST", DISARM, AWAY, taken())
    result = lab.run("cluster", "disarm", "lab", *options)
    assert (result.exit_code, result.stderr) == (0, "")


def test_a_refusal_for_a_reason_of_its_own_ends_it_at_once(lab: Desk) -> None:
    lab.engine.on("POST", DISARM, AWAY, problem(409, "INCIDENTS_WAIT", "h1 waits"), taken())
    result = lab.run("cluster", "disarm", "lab", "--mode", "ignore")
    assert result.exit_code == Exit.CONFLICT
    assert len(lab.engine.posted()) == 2


NAMES = ("lab", "east", "west")


@pytest.fixture
def three(desk: Desk) -> Desk:
    """An engine with three clusters, of which lab is not taken for a while."""
    desk.has(*(cluster(name) for name in NAMES))
    for name in NAMES:
        answers = (AWAY, AWAY, AWAY) if name == "lab" else (AWAY,)
        desk.engine.on("POST", f"/clusters/{uid(name)}/actions/disarm", *answers, taken(name))
    return desk


def asked_for(desk: Desk) -> list[int]:
    """How often each cluster was asked for."""
    asked = [request.url.path.split("/")[4] for request in desk.engine.posted()]
    return [asked.count(str(uid(name))) for name in NAMES]


def test_of_all_clusters_none_waits_behind_another(three: Desk) -> None:
    result = three.run("cluster", "disarm", "--all")
    assert result.exit_code == 0, result.output
    assert [line.split()[1] for line in result.stdout.splitlines()] == ["east", "west", "lab"]
    assert asked_for(three) == [4, 2, 2], "what was taken is not asked for again"
    assert (len(keys(three)), len(three.pauses)) == (3, 3)


def test_of_all_clusters_those_that_are_left_when_time_is_over_are_named(three: Desk) -> None:
    result = three.run("cluster", "disarm", "--all", "--keep-trying", "1s")
    assert result.exit_code == Exit.UNREACHABLE
    assert asked_for(three) == [2, 2, 2]
    *_, left, error, again = result.stderr.splitlines()
    assert left == "lab: the database does not answer: refused"
    assert "DATABASE_UNAVAILABLE" in error
    key = again.split("--idempotency-key ")[1].split()[0]
    result = three.run("cluster", "disarm", "--all", "--idempotency-key", key)
    assert result.exit_code == 0
    assert len(keys(three)) == 3


def test_an_interrupt_while_all_clusters_are_asked_for_names_those_that_are_left(
    three: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(seconds: float) -> None:
        three.pauses.append(seconds)
        if len(three.pauses) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(three, "pause", interrupted)
    result = three.run("cluster", "disarm", "--all")
    assert result.exit_code == Exit.INTERRUPTED
    assert "not known to be taken: lab (INTERRUPTED)" in result.stderr
    assert "--idempotency-key" in result.stderr


ALONE: list[tuple[str, str, Callable[[], Any]]] = [
    ("cluster arm lab", ARM, lambda: AWAY),
    ("cluster arm --all", ARM, lambda: AWAY),
    ("cluster arm lab", ARM, lambda: REFUSED),
]


@pytest.mark.parametrize(("command", "path", "answer"), ALONE)
def test_an_arm_is_never_asked_for_again_behind_somebody_s_back(
    lab: Desk, command: str, path: str, answer: Callable[[], Any]
) -> None:
    lab.engine.on("POST", path, answer(), taken())
    result = lab.run(*command.split())
    assert result.exit_code == Exit.UNREACHABLE
    assert (len(lab.engine.posted()), lab.pauses) == (1, [])
    assert "not taken yet" not in result.stderr
    assert "--keep-trying" not in lab.run("cluster", "arm", "--help").output
