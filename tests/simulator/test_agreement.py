"""Histories of a real server, followed by the simulator: the same commands and the same ends.

Each golden was recorded on a dev server from a workflow's unit scenario; here the simulator's own
server and worker are led through the same events (`simulator/agreement.py`). The tests after that
prove that a difference is seen.
"""

import base64
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from temporalio.client import WorkflowHistory

from domain.operations import WorkflowState
from simulator.agreement import Disagreement, Followed, follow
from tests.replay.golden import ALL, Golden, normalised
from worker.parts import WORKFLOWS
from workflows import options

pytestmark = pytest.mark.replay

EACH = pytest.mark.parametrize("golden", ALL, ids=lambda g: f"{g.workflow}-{g.name}")
Event = dict[str, Any]


def named(workflow: str, name: str) -> Golden:
    """One golden."""
    (found,) = (g for g in ALL if (g.workflow, g.name) == (workflow, name))
    return found


def commands(followed: Followed) -> list[Any]:
    """What was commanded, as a golden's snapshot holds it.

    Of the two fields that are the worker's and not the workflow's, the replayer has its own.
    """
    found = [
        MessageToDict(command, preserving_proto_field_name=True) for command in followed.commands
    ]
    for command in found:
        command.get("schedule_activity", {}).pop("do_not_eagerly_execute", None)
        if "start_child_workflow_execution" in command:
            command["start_child_workflow_execution"]["namespace"] = "ReplayNamespace"
        if "request_cancel_external_workflow_execution" in command:
            told = command["request_cancel_external_workflow_execution"]["workflow_execution"]
            told["namespace"] = "ReplayNamespace"
    return normalised(found)


def altered(golden: Golden, alter: Callable[[list[Event]], None]) -> WorkflowHistory:
    """A history in which something happened otherwise."""
    history = json.loads(golden.path.read_text())
    alter(history["events"])
    return WorkflowHistory.from_json("altered", history)


def of_kind(events: list[Event], kind: str) -> list[Event]:
    """Events of one kind."""
    return [event for event in events if event["eventType"] == f"EVENT_TYPE_{kind}"]


def decoded(payload: Event) -> Any:
    return json.loads(base64.b64decode(payload["data"]))


def encoded(value: Any) -> Event:
    kind = base64.b64encode(b"json/plain").decode()
    data = base64.b64encode(json.dumps(value).encode()).decode()
    return {"metadata": {"encoding": kind}, "data": data}


@EACH
def test_the_simulator_commands_what_the_real_run_commanded_and_ends_as_it(
    golden: Golden,
) -> None:
    followed = follow(golden.read(), WORKFLOWS)
    assert commands(followed) == json.loads(golden.snapshot.read_text())
    last = golden.read().events[-1].workflow_execution_completed_event_attributes
    assert followed.state is WorkflowState.COMPLETED
    assert followed.result is not None
    assert json.loads(followed.result.data) == json.loads(last.result.payloads[0].data)


@EACH
def test_a_worker_that_forgets_each_workflow_after_each_task_does_the_same(golden: Golden) -> None:
    assert follow(golden.read(), WORKFLOWS, forgetful=True) == follow(golden.read(), WORKFLOWS)


def test_the_simulator_gives_a_failed_step_up_for_the_reason_that_the_real_server_had() -> None:
    given_up = [each for golden in ALL for each in follow(golden.read(), WORKFLOWS).given_up]
    assert {real for _step, real, _virtual in given_up} == {
        "RETRY_STATE_NON_RETRYABLE_FAILURE",
        "RETRY_STATE_MAXIMUM_ATTEMPTS_REACHED",
    }
    assert [each for each in given_up if each[1] != each[2]] == []


def test_two_vms_that_are_ready_in_the_other_order_give_other_commands() -> None:
    def swap(events: list[Event]) -> None:
        first, second = of_kind(events, "CHILD_WORKFLOW_EXECUTION_COMPLETED")[1:3]
        name = "childWorkflowExecutionCompletedEventAttributes"
        first[name], second[name] = second[name], first[name]

    changed = altered(named("RecoverHost", "an-isolated-host-is-fenced"), swap)
    with pytest.raises(Disagreement, match=r'\+ "child": "StartVm"'):
        follow(changed, WORKFLOWS)


def test_a_cancel_that_comes_earlier_gives_other_commands() -> None:
    def hurry(events: list[Event]) -> None:
        (cancel,) = of_kind(events, "WORKFLOW_EXECUTION_CANCEL_REQUESTED")
        events.remove(cancel)
        events.insert(1, cancel)

    changed = altered(named("StopVm", "a-stop-is-cancelled-before-the-grace-is-over"), hurry)
    with pytest.raises(Disagreement, match="other commands"):
        follow(changed, WORKFLOWS)


def test_a_step_with_another_result_gives_other_commands() -> None:
    def another(events: list[Event]) -> None:
        assessed = of_kind(events, "ACTIVITY_TASK_COMPLETED")[1]
        result = assessed["activityTaskCompletedEventAttributes"]["result"]
        decision = decoded(result["payloads"][0])
        assert decision["move"] == "fence"
        result["payloads"][0] = encoded(decision | {"move": "return"})

    changed = altered(named("RecoverHost", "an-isolated-host-is-fenced"), another)
    with pytest.raises(Disagreement) as parted:
        follow(changed, WORKFLOWS)
    lines = str(parted.value).splitlines()
    assert '- "activity": "recovery.open_fence",' in lines
    assert '+ "activity": "recovery.report",' in lines


def test_a_limit_that_changed_in_the_options_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "BEAT", timedelta(seconds=6))
    with pytest.raises(Disagreement, match=r'-  "heartbeat": 5.0\n\+  "heartbeat": 6.0'):
        follow(named("StartVm", "a-vm-starts").read(), WORKFLOWS)


def test_a_step_that_the_real_server_tried_oftener_is_seen() -> None:
    def stubborn(events: list[Event]) -> None:
        for event in of_kind(events, "ACTIVITY_TASK_STARTED"):
            started = event["activityTaskStartedEventAttributes"]
            started["attempt"] += 4 * (started["attempt"] == 5)

    changed = altered(named("StopVm", "a-stop-on-a-host-that-falls-silent-fails"), stubborn)
    with pytest.raises(Disagreement, match="is given up after 5 of 9 tries"):
        follow(changed, WORKFLOWS)


def test_a_step_that_the_real_server_tries_again_sooner_is_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def patient(_policy: Any, attempt: int, _failure: Any) -> timedelta | None:
        return timedelta(minutes=1) if attempt < 5 else None

    monkeypatch.setattr("simulator.temporal.failures.next_wait", patient)
    with pytest.raises(Disagreement, match=r"ends with try 2 under way, the real server had 5"):
        follow(named("StopVm", "a-stop-on-a-host-that-falls-silent-fails").read(), WORKFLOWS)


def test_a_timer_that_the_real_server_fires_sooner_is_seen() -> None:
    def hasten(events: list[Event]) -> None:
        (fired,) = of_kind(events, "TIMER_FIRED")
        (started,) = of_kind(events, "TIMER_STARTED")
        position = events.index(fired)
        for event in events[position : position + 4]:
            event["eventTime"] = started["eventTime"]

    golden = named("RecoverHost", "a-host-answers-again-before-the-proof")
    changed = altered(golden, hasten)
    with pytest.raises(Disagreement, match=r"tells TIMER_FIRED.*simulator has only none"):
        follow(changed, WORKFLOWS)
