"""`incident explain` and `op explain` read like short reports."""

import json

import pytest

from cli.nouns.explanation import FACTS, QUESTIONS, RULES
from domain.explain import Question, Rule
from tests.unit.cli.fake_engine import Desk, Json, host, incident, paged, uid

pytestmark = pytest.mark.unit

REPORT = """\
Incident {id}
h1 (epoch 3) was reported at 2026-11-22 07:00:02Z: silent for 8 polls; recovered

07:00:02.200Z  Is h1 dead, and what follows?
  hold: 2 of 4 hosts are silent: our own network first
  rule     GUARD_HOLDS: the storm guard has a reason to wait
  taken    4 times in a row, over 30.0 s
  rests on votes: m1 silent, sees 2 others; power: level 1 on (one proof is wanted); 2 of 4 hosts \
silent; 0 of 1 fences spent in 300 s; armed; profile balanced
  not fence: 2 of 4 hosts are silent: our own network first

07:00:33.000Z  Where does db start?
  h2: 512 MiB were free for the 128 it needs
  rule     BEST_HOST: the best of the hosts that hard rules and room allow
  rests on 128 MiB and 2 vCPUs wanted; 40 usable hosts; priority 90, protected
  not h3: 64 MiB are free, 128 are needed
  nor 38 more, for reasons like these
"""

INPUTS: Json = {
    "profile": "balanced",
    "votes": [{"monitor": "m1", "fresh": True, "silent": True, "others_seen": 2, "warm": True}],
    "readings": [{"level": 1, "verdict": "on"}],
    "proofs_required": 1,
    "confirmed_by": None,
    "armed": True,
    "own_host": False,
    "hosts_silent": 2,
    "hosts": 4,
    "fences_in_window": 0,
    "fences_per_window": 1,
    "window_s": 300.0,
}


def fate(**changes: object) -> Json:
    why = "2 of 4 hosts are silent: our own network first"
    return {
        "question": "host_fate",
        "subject_type": "host",
        "subject_id": str(uid("h1")),
        "subject_name": "h1",
        "chosen": "hold",
        "rule": "GUARD_HOLDS",
        "why": why,
        "inputs": INPUTS,
        "rejected": [{"option": "fence", "why": why}],
        "rejected_more": 0,
        "times": 4,
        "first_at": "2026-11-22T07:00:02.200Z",
        "last_at": "2026-11-22T07:00:32.200Z",
    } | changes


PLACE: Json = fate(
    question="vm_place",
    subject_type="vm",
    subject_name="db",
    chosen="h2",
    rule="BEST_HOST",
    why="512 MiB were free for the 128 it needs",
    inputs={"memory_mib": 128, "vcpus": 2, "hosts": 40, "priority": 90, "protected": True},
    rejected=[{"option": "h3", "why": "64 MiB are free, 128 are needed"}],
    rejected_more=38,
    times=1,
    first_at="2026-11-22T07:00:33Z",
)


def told(*decisions: Json) -> Json:
    return {
        "incident_id": str(uid("incident")),
        "host_name": "h1",
        "epoch": 3,
        "why": "silent for 8 polls",
        "outcome": "recovered",
        "opened_at": "2026-11-22T07:00:02.100Z",
        "closed_at": "2026-11-22T07:00:40Z",
        "decisions": list(decisions),
    }


@pytest.fixture
def struck(desk: Desk) -> Desk:
    desk.has(host())
    desk.engine.on("GET", "/incidents", paged(incident()))
    return desk


def answers(desk: Desk, *decisions: Json) -> None:
    desk.engine.on("GET", f"/incidents/{uid('incident')}/explanation", told(*decisions))


def test_a_report_tells_each_decision_with_what_spoke_against_the_rest(struck: Desk) -> None:
    answers(struck, fate(), PLACE)
    shown = struck.run("incident", "explain", str(uid("incident")))
    assert shown.stdout == REPORT.format(id=uid("incident"))


def test_what_proves_a_death_and_whether_a_vm_comes_back_are_told(struck: Desk) -> None:
    proof = fate(
        question="host_proof",
        chosen="dead",
        rule="EVERY_PROOF_AGREES",
        why="proven off by bmc1",
        inputs={
            "certificate": 12,
            "grade": "power read back off",
            "evidence": [{"device": "bmc1", "verdict": "off", "took_s": 0.2}],
        },
        rejected=[],
    )
    comes_back = fate(
        question="vm_fate",
        subject_name="app",
        chosen="restart",
        rule="WANTED_AND_PROTECTED",
        why="it ran, it is wanted and it is protected; it starts once db is ready",
        inputs={
            "run_state": "running",
            "protected": True,
            "priority": 99,
            "turn": 2,
            "turns": 3,
            "starts_after": ["db"],
        },
        rejected=[],
    )
    answers(struck, proof, comes_back)
    text = struck.run("incident", "explain", "h1").stdout
    for words in (
        "What proves that h1 is dead?",
        "dead: proven off by bmc1",
        "rests on grade: power read back off; bmc1 off after 0.2 s; certificate 12",
        "Does app come back?",
        "rests on it was running; priority 99, protected; 2 of 3 in the order of starts; behind db",
    ):
        assert words in text


def test_a_proof_from_before_there_were_grades_is_told_without_one(struck: Desk) -> None:
    inputs = {"certificate": 3, "evidence": [{"device": "b", "verdict": "off", "took_s": 1.0}]}
    answers(struck, fate(question="host_proof", rule="EVERY_PROOF_AGREES", inputs=inputs))
    text = struck.run("incident", "explain", "h1").stdout
    assert "rests on b off after 1.0 s; certificate 3" in text


def test_a_rule_of_a_newer_engine_is_shown_by_its_name(struck: Desk) -> None:
    answers(struck, fate(rule="RULE_OF_TOMORROW", question="question_of_tomorrow"))
    text = struck.run("incident", "explain", "h1").stdout
    assert "RULE_OF_TOMORROW" in text
    assert "question_of_tomorrow h1" in text


def test_a_host_stands_for_its_newest_incident(struck: Desk) -> None:
    answers(struck, fate())
    assert "Is h1 dead" in struck.run("incident", "explain", "h1").stdout


def test_doubts_about_votes_and_a_persons_word_are_told(struck: Desk) -> None:
    vote = {"monitor": "m1", "fresh": False, "silent": False, "others_seen": 0, "warm": False}
    inputs = INPUTS | {"votes": [vote], "readings": [], "confirmed_by": "anna", "armed": False}
    inputs |= {"approved_by": "bert"}
    answers(struck, fate(inputs=inputs | {"own_host": True, "proofs_required": 2}))
    text = struck.run("incident", "explain", "h1").stdout
    for words in (
        "m1 heard old cold, sees 0 others",
        "power: no device (2 proofs are wanted)",
        "disarmed",
        "the engine itself runs there",
        "the word of anna",
        "approved by bert",
    ):
        assert words in text


def test_an_incident_without_decisions_says_so(struck: Desk) -> None:
    answers(struck)
    assert "No decision is kept" in struck.run("incident", "explain", "h1").stdout


def test_json_is_what_the_api_answered(struck: Desk) -> None:
    answers(struck, PLACE)
    shown = struck.run("incident", "explain", "h1", "-o", "json")
    assert json.loads(shown.stdout) == told(PLACE)


OF_A_START = """\
Operation {id}
vm.start db was asked for by anna at 2026-11-22 07:00:00Z (after the upgrade); succeeded, db runs \
on h2

07:00:33.000Z  Where does db start?
  h2: 512 MiB were free for the 128 it needs
  rule     BEST_HOST: the best of the hosts that hard rules and room allow
  rests on 128 MiB and 2 vCPUs wanted; 40 usable hosts; priority 90, protected
  not h3: 64 MiB are free, 128 are needed
  nor 38 more, for reasons like these
"""


def asked(*decisions: Json, **changes: object) -> Json:
    return {
        "operation_id": str(uid("op")),
        "kind": "vm.start",
        "target_name": "db",
        "state": "succeeded",
        "principal": "anna",
        "reason": "after the upgrade",
        "waiting_for": None,
        "summary": "db runs on h2",
        "created_at": "2026-11-22T07:00:00Z",
        "finished_at": "2026-11-22T07:00:40Z",
        "incident_id": None,
        "decisions": list(decisions),
    } | changes


def op_explain(desk: Desk, answer: Json, *words: str) -> str:
    desk.engine.on("GET", f"/operations/{uid('op')}/explanation", answer)
    return desk.run("op", "explain", str(uid("op")), *words).stdout


def test_a_report_of_an_operation_tells_what_was_asked_and_each_decision(desk: Desk) -> None:
    assert op_explain(desk, asked(PLACE)) == OF_A_START.format(id=uid("op"))


def test_a_move_tells_where_from(desk: Desk) -> None:
    inputs = PLACE["inputs"] | {"from": "h9"}
    text = op_explain(desk, asked(PLACE | {"question": "vm_target", "inputs": inputs}))
    assert "Where does db move to?" in text
    assert "rests on it runs on h9; 128 MiB and 2 vCPUs wanted" in text


ENDED: Json = {
    "guest": "ended",
    "host": "h1",
    "reason": "crashed",
    "wanted": True,
    "protected": True,
    "on_guest_shutdown": "stay",
    "on_io_error": "resume",
    "on_hang": "off",
    "armed": False,
    "shown_on": ["h2"],
    "hosts": 3,
    "restarts": 2,
    "restarts_there": 1,
    "max_restart": 3,
    "max_relocate": 1,
    "window_s": 600.0,
    "paused_s": 0.0,
}


def test_what_becomes_of_a_guest_is_told_with_its_policies_and_limits(desk: Desk) -> None:
    fate_of_guest = PLACE | {"question": "guest_fate", "chosen": "wait", "inputs": ENDED}
    text = op_explain(desk, asked(fate_of_guest | {"rule": "DISARMED"}))
    for words in (
        "What becomes of db?",
        "DISARMED: nothing is done by itself while its cluster is disarmed",
        "rests on its guest is ended on h1, as libvirt says: crashed; wanted, protected; ",
        "on_guest_shutdown stay, on_io_error resume, on_hang off; 2 restarts in 600 s, 1 of 3 ",
        "there, 1 other hosts at most; 3 usable hosts; disarmed; shown on h2",
    ):
        assert words in text
    paused = fate_of_guest | {"inputs": ENDED | {"paused_s": 90.0, "shown_on": []}}
    assert "disarmed; paused for 90 s" in op_explain(desk, asked(paused))
    alive = fate_of_guest | {"inputs": {}, "rule": "GUEST_RUNS"}
    assert "rests on a reading of its own host" in op_explain(desk, asked(alive))


def test_an_operation_that_serves_an_incident_names_it_and_one_that_waits_says_for_what(
    desk: Desk,
) -> None:
    waits = {"state": "waiting", "waiting_for": "no host has room", "summary": None, "reason": ""}
    text = op_explain(desk, asked(incident_id=str(uid("incident")), **waits))
    assert "07:00:00Z; waiting, no host has room" in text
    assert f"holdfast incident explain {uid('incident')}" in text
    assert "No decision is kept" in text


def test_the_json_of_an_operation_is_what_the_api_answered(desk: Desk) -> None:
    assert json.loads(op_explain(desk, asked(PLACE), "-o", "json")) == asked(PLACE)


def test_every_question_and_rule_of_the_engine_is_told_in_words() -> None:
    assert set(QUESTIONS) == set(FACTS) == {question.value for question in Question}
    assert set(RULES) == {rule.value for rule in Rule}
