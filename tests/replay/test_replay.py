"""Today's workflow code against histories of earlier runs: same order, and the same commands whole.

A difference is no failure to be recorded away: workflows of that kind may be under way where this
code is installed. `python -m tests.replay.record` is for what has never been released.
"""

import json
import re
from datetime import timedelta

import pytest
from temporalio.client import WorkflowHistory
from temporalio.worker import UnsandboxedWorkflowRunner
from temporalio.workflow import NondeterminismError

from tests.replay.golden import ALL, EARLIER, FOLDER, HAPPY, Golden, replay, steps_of
from worker.parts import WORKFLOWS
from workflows import options

pytestmark = pytest.mark.replay

START = HAPPY["StartVm"]
EACH = pytest.mark.parametrize("golden", [*ALL, *EARLIER], ids=lambda g: f"{g.workflow}-{g.name}")


def changed(golden: Golden, old: str, new: str) -> WorkflowHistory:
    """A history in which one word reads differently."""
    text = golden.path.read_text()
    assert old in text
    return WorkflowHistory.from_json("changed", text.replace(old, new))


@EACH
async def test_todays_code_still_fits_a_history_and_commands_the_same(golden: Golden) -> None:
    assert await replay(golden.read()) == json.loads(golden.snapshot.read_text())


def test_every_workflow_is_recorded_well_failed_and_cancelled() -> None:
    ends: dict[str, set[str]] = {}
    for golden in ALL:
        (outcome,) = (
            item["complete_workflow_execution"]["result"]
            for item in json.loads(golden.snapshot.read_text())
            if "complete_workflow_execution" in item
        )
        ends.setdefault(golden.workflow, set()).add(outcome["state"])
    wanted = {workflow.__name__: {"succeeded", "failed", "cancelled"} for workflow in WORKFLOWS}
    assert {name: states & wanted[name] for name, states in ends.items()} == wanted


def test_the_files_are_those_of_the_scenarios() -> None:
    wanted = {path for golden in (*ALL, *EARLIER) for path in (golden.path, golden.snapshot)}
    assert set(FOLDER.rglob("*.json")) == wanted


def test_the_happy_paths_name_every_step_that_the_fault_injection_is_to_break() -> None:
    assert steps_of(START) == [
        "operation.claim",
        "guest.place",
        "guest.define",
        "guest.start",
        "operation.close",
    ]


def test_histories_know_no_machine() -> None:
    machine = re.compile(r"/root\b|/home/|/tmp/|site-packages|\.py\b")
    assert [golden.name for golden in ALL if machine.search(golden.path.read_text())] == []
    names = re.compile(r'"identity": "([^"]*)"')
    assert {found for golden in ALL for found in names.findall(golden.path.read_text())} == {
        "bench"
    }


async def test_the_replayer_sees_a_step_that_was_renamed() -> None:
    with pytest.raises(NondeterminismError, match=r"guest\.define"):
        await replay(changed(START, '"guest.define"', '"guest.describe"'))


async def test_the_replayer_alone_does_not_see_a_limit_that_changed_but_the_snapshot_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Outside the sandbox the workflow uses this very module, so that it can be patched.
    monkeypatch.setattr(options, "BEAT", timedelta(seconds=6))
    commands = await replay(START.read(), UnsandboxedWorkflowRunner())
    known = json.loads(START.snapshot.read_text())
    steps = [item["schedule_activity"] for item in commands if "schedule_activity" in item]
    assert {step["heartbeat_timeout"] for step in steps} == {"6s"}
    assert commands != known
    for step in steps:
        step["heartbeat_timeout"] = "5s"
    assert commands == known


async def test_the_snapshot_sees_an_argument_that_changed() -> None:
    assert await replay(renamed_vm(START)) != json.loads(START.snapshot.read_text())


def renamed_vm(golden: Golden) -> WorkflowHistory:
    """A history of the same steps, asked for with another VM's name."""
    history = golden.read()
    payload = history.events[0].workflow_execution_started_event_attributes.input.payloads[0]
    order = json.loads(payload.data)
    payload.data = json.dumps(order | {"vm_name": "other"}).encode()
    return history
