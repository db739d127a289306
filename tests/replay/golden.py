"""Golden histories: where they lie, which there are, and what a replay of one commands.

The SDK's replayer compares the order and kind of commands with a history, but neither arguments nor
time-outs, retries, queues or priorities. So the commands that today's code gives in a replay are
also compared, whole, with a snapshot beside the history.

Invariants  Ids and times differ in each recording: a snapshot numbers ids in the order they appear,
            and leaves times out. Replaying one history twice gives the same snapshot.
"""

import base64
import hashlib
import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import UUID

from google.protobuf.json_format import MessageToDict
from temporalio.api.history.v1 import HistoryEvent
from temporalio.bridge.proto.workflow_activation import WorkflowActivation
from temporalio.bridge.proto.workflow_completion import WorkflowActivationCompletion
from temporalio.client import WorkflowHistory
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.worker import Replayer, WorkflowInstance, WorkflowInstanceDetails, WorkflowRunner

from tests.workflow.adoptions import ADOPTIONS
from tests.workflow.batch_scenarios import BATCHES
from tests.workflow.begun_again import (
    a_recovery_begun_again_follows_its_fence,
    a_recovery_that_follows_a_fence_is_cancelled_with_it,
)
from tests.workflow.bench import Bench
from tests.workflow.ended_guests import ENDED_GUESTS, a_look_at_a_guest_is_cancelled
from tests.workflow.ended_restarts import a_restart_that_somebody_ends_is_left_to_the_sweeper
from tests.workflow.failovers import (
    FENCES,
    RECOVERIES,
    a_dependant_starts_once_its_vm_is_ready,
    a_disarmed_cluster_holds_until_it_is_armed,
    a_frozen_recovery_starts_its_vms_once_armed,
    a_held_recovery_is_cancelled,
    a_host_answers_again_before_the_proof,
    a_less_important_vm_makes_room,
    a_person_confirms_what_no_controller_tells,
    a_recovery_is_cancelled_while_it_judges,
    a_recovery_is_cancelled_while_its_fence_runs,
    a_restart_that_is_refused_is_tried_elsewhere_and_again,
    a_silent_controller_holds_until_it_answers,
    an_isolated_host_is_fenced,
    nine_vms_take_turns_on_the_one_host_that_is_left,
)
from tests.workflow.imports import IMPORTS
from tests.workflow.maintenances import MAINTENANCES
from tests.workflow.migrations import MIGRATIONS
from tests.workflow.planned import PLANNED
from tests.workflow.rehearsals import REHEARSALS
from tests.workflow.scenarios import (
    SCENARIOS,
    Scenario,
    a_start_is_cancelled_while_it_is_placed,
)
from tests.workflow.soft_steps import SOFT_STEPS
from tests.workflow.stray_copies import STRAY_COPIES
from worker.parts import WORKFLOWS, sandbox

FOLDER = Path(__file__).parent / "histories"
ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|\+00:00)")
LARGE = ("policy", "context", "spec")
"""Parts of arguments that are shown by their digest: they are the same in every step."""

Pick = Callable[[Bench, UUID], Awaitable[UUID]]


@dataclass(frozen=True)
class Golden:
    """One history to be kept: of which workflow, and what leads to it."""

    workflow: str
    scenario: Scenario
    pick: Pick
    name: str
    attempt: int = 1  # whose history it is

    @property
    def path(self) -> Path:
        """Where the history lies."""
        return FOLDER / self.workflow / f"{self.name}.json"

    @property
    def snapshot(self) -> Path:
        """Where the commands of its replay lie."""
        return self.path.with_suffix(".commands.json")

    def read(self) -> WorkflowHistory:
        """The history as it was recorded."""
        return WorkflowHistory.from_json(f"golden/{self.name}", self.path.read_text())


async def itself(_bench: Bench, operation: UUID) -> UUID:
    """The operation that the scenario gives."""
    return operation


async def last_fence(bench: Bench, operation: UUID) -> UUID:
    """The last fence of a recovery."""
    found: UUID = (await bench.children_of(operation, "host.fence"))[-1]["id"]
    return found


async def first_fence(bench: Bench, operation: UUID) -> UUID:
    """The first fence of a recovery."""
    found: UUID = (await bench.children_of(operation, "host.fence"))[0]["id"]
    return found


async def first_restart(bench: Bench, operation: UUID) -> UUID:
    """The first VM that a recovery started elsewhere."""
    found: UUID = (await bench.children_of(operation, "vm.start"))[0]["id"]
    return found


async def second_restart(bench: Bench, operation: UUID) -> UUID:
    """The second one."""
    found: UUID = (await bench.children_of(operation, "vm.start"))[1]["id"]
    return found


async def first_stop(bench: Bench, operation: UUID) -> UUID:
    """The stop of the first VM that made room for a restart."""
    start = await first_restart(bench, operation)
    found: UUID = (await bench.children_of(start, "vm.stop"))[0]["id"]
    return found


def _name(scenario: Scenario) -> str:
    return scenario.__name__.replace("_", "-")


def _golden(workflow: str, scenario: Scenario, pick: Pick = itself) -> Golden:
    return Golden(workflow, scenario, pick, _name(scenario))


ALL: tuple[Golden, ...] = (
    *(_golden(workflow, item) for workflow, items in SCENARIOS.items() for item in items),
    *(_golden("MigrateVm", item) for item in MIGRATIONS),
    *(_golden("MaintainHost", item) for item in MAINTENANCES),
    *(_golden("RehearseFencing", item) for item in REHEARSALS),
    *(_golden("ShutDownHost", item) for item in PLANNED),
    *(_golden("ImportVm", item) for item in IMPORTS),
    *(_golden("RecoverVm", item) for item in ENDED_GUESTS),
    *(_golden("RunBatch", item) for item in BATCHES),
    *(_golden("RestartLibvirtd", item) for item in SOFT_STEPS),
    *(_golden("EndCopy", item) for item in STRAY_COPIES),
    *(_golden("AdoptCopy", item) for item in ADOPTIONS),
    _golden("StartVm", an_isolated_host_is_fenced, first_restart),
    _golden("StartVm", a_restart_that_is_refused_is_tried_elsewhere_and_again, second_restart),
    _golden("StartVm", a_frozen_recovery_starts_its_vms_once_armed, first_restart),
    _golden("StartVm", a_less_important_vm_makes_room, first_restart),
    _golden("StopVm", a_less_important_vm_makes_room, first_stop),
    *(_golden("RecoverHost", item) for item in RECOVERIES),
    replace(_golden("RecoverHost", a_recovery_begun_again_follows_its_fence), attempt=2),
    replace(
        _golden("RecoverHost", a_recovery_that_follows_a_fence_is_cancelled_with_it), attempt=2
    ),
    _golden("RecoverHost", a_restart_that_somebody_ends_is_left_to_the_sweeper),
    *(_golden("FenceHost", item, first_fence) for item in FENCES),
    _golden("FenceHost", a_person_confirms_what_no_controller_tells, last_fence),
)
LOOKED_TOO_LATE = (
    a_host_answers_again_before_the_proof,
    a_silent_controller_holds_until_it_answers,
    a_disarmed_cluster_holds_until_it_is_armed,
    a_held_recovery_is_cancelled,
    a_recovery_is_cancelled_while_its_fence_runs,
)
CHANGED: dict[str, dict[str, tuple[Scenario, ...]]] = {
    "RecoverHost": {
        "look-while-judging": LOOKED_TOO_LATE,
        "starts-per-host": (nine_vms_take_turns_on_the_one_host_that_is_left,),
        "left-to-the-sweeper": (a_restart_that_somebody_ends_is_left_to_the_sweeper,),
        "cancel-before-waits": (
            a_recovery_is_cancelled_while_its_fence_runs,
            a_recovery_is_cancelled_while_it_judges,
            a_recovery_that_follows_a_fence_is_cancelled_with_it,
        ),
        "ready-by-looks": (a_dependant_starts_once_its_vm_is_ready,),
    },
    "RecoverVm": {"cancel-before-waits": (a_look_at_a_guest_is_cancelled,)},
    "StartVm": {"cancel-before-waits": (a_start_is_cancelled_while_it_is_placed,)},
}
EARLIER: tuple[Golden, ...] = tuple(
    Golden(kind, item, itself, f"before-{change}/{_name(item)}")
    for kind, changes in CHANGED.items()
    for change, items in changes.items()
    for item in items
)
"""Histories of code that is replaced: today's code still goes on with what it left. Never recorded
again."""

HAPPY = {golden.workflow: golden for golden in reversed(ALL)}
"""The happy path of each workflow: the first of its goldens."""


def steps_of(golden: Golden) -> list[str]:
    """Names of the steps in a history, in order of their first time, local ones among them."""
    found = (step_in(event) for event in golden.read().events)
    return list(dict.fromkeys(filter(None, found)))


def step_in(event: HistoryEvent) -> str | None:
    """The step that an event begins, or a local one that it records; None for all else."""
    if event.HasField("activity_task_scheduled_event_attributes"):
        return event.activity_task_scheduled_event_attributes.activity_type.name
    if event.marker_recorded_event_attributes.marker_name == "core_local_activity":
        data = event.marker_recorded_event_attributes.details["data"].payloads[0].data
        return str(json.loads(data)["activity_type"])
    return None


async def replay(history: WorkflowHistory, inner: WorkflowRunner | None = None) -> list[Any]:
    """Replay a history with today's code, as the workers run it; the commands that it gave.

    Raises the SDK's nondeterminism error when code and history do not fit.
    """
    runner = Recorder(inner or sandbox())
    replayer = Replayer(
        workflows=WORKFLOWS, workflow_runner=runner, data_converter=pydantic_data_converter
    )
    await replayer.replay_workflow(history)
    return normalised(runner.commands)


class Recorder(WorkflowRunner):
    """Runs workflows with another runner and keeps the commands that they give."""

    def __init__(self, inner: WorkflowRunner) -> None:
        self._inner = inner
        self.commands: list[dict[str, Any]] = []

    def prepare_workflow(self, defn: Any) -> None:
        """As the inner runner does."""
        self._inner.prepare_workflow(defn)

    def create_instance(self, det: WorkflowInstanceDetails) -> WorkflowInstance:
        """An instance whose commands are kept."""
        instance = self._inner.create_instance(det)
        activate = instance.activate

        def recorded(act: WorkflowActivation) -> WorkflowActivationCompletion:
            completion = activate(act)
            self.commands += [
                MessageToDict(command, preserving_proto_field_name=True)
                for command in completion.successful.commands
            ]
            return completion

        instance.activate = recorded  # type: ignore[method-assign]
        return instance


def normalised(commands: list[dict[str, Any]]) -> list[Any]:
    """Commands with their payloads readable, ids numbered, and times left out."""
    numbers: dict[str, str] = {}

    def number(match: re.Match[str]) -> str:
        return numbers.setdefault(match.group(), f"id-{len(numbers) + 1}")

    text = json.dumps([_readable(command) for command in commands])
    decoded = json.loads(TIME.sub("time", ID.sub(number, text)))
    return [_digested(item) for item in decoded]


def _readable(value: Any) -> Any:
    if isinstance(value, dict):
        if set(value) <= {"metadata", "data"} and "metadata" in value:
            text = base64.b64decode(value.get("data", "")).decode()
            return json.loads(text) if text else None
        return {key: _readable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_readable(item) for item in value]
    return value


def _digested(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: _digest(item) if key in LARGE and item is not None else _digested(item)
            for key, item in sorted(value.items())
            if key != "took_s"
        }
    if isinstance(value, list):
        return [_digested(item) for item in value]
    return value


def _digest(value: Any) -> str:
    plain = json.dumps(value, sort_keys=True)
    return f"sha256:{hashlib.sha256(plain.encode()).hexdigest()[:12]}"
