"""One run's workflow instance: the SDK's own, driven by activations, and its replay.

Every activation and the commands it gave are kept once the server has them. An instance that was
lost (its worker died, or its cache was full) is made anew and fed the same activations; commands
that differ are a `NonDeterminism` error with a diff, as they would leave a real worker stuck.
"""

import asyncio
import contextlib
import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC

from google.protobuf.text_format import MessageToString
from temporalio.api.common.v1 import Payload, Payloads
from temporalio.bridge.proto.workflow_activation import (
    InitializeWorkflow,
    WorkflowActivation,
    WorkflowActivationJob,
)
from temporalio.bridge.proto.workflow_commands import WorkflowCommand
from temporalio.common import MetricMeter, Priority
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.converter import decode_search_attributes, decode_typed_search_attributes
from temporalio.worker import (
    UnsandboxedWorkflowRunner,
    WorkflowInstance,
    WorkflowInstanceDetails,
)
from temporalio.workflow import Info, ParentInfo, RootInfo, _Definition

from simulator.temporal.errors import NonDeterminism, WorkflowTaskFailed

NAMESPACE = "default"
EXTERN: dict[str, Callable[..., object]] = {
    "__temporal_get_metric_meter": lambda: MetricMeter.noop,
    "__temporal_assert_local_activity_valid": lambda _name: None,
}
"""What an instance calls on its worker; an activity that the worker lacks fails when it is run."""

RUNNER = UnsandboxedWorkflowRunner()


@dataclass(frozen=True)
class Turn:
    """One activation and the commands that it gave."""

    activation: WorkflowActivation
    commands: tuple[WorkflowCommand, ...]

    def recorded(self) -> "Turn | None":
        """What a history keeps of it: nothing of an update that was rejected."""
        answers = [c.update_response for c in self.commands if c.HasField("update_response")]
        accepted = [a.protocol_instance_id for a in answers if a.HasField("accepted")]
        asked = [j.do_update.protocol_instance_id for j in self.activation.jobs]
        rejected = [
            answer.protocol_instance_id
            for answer in answers
            if answer.HasField("rejected")
            and answer.protocol_instance_id in asked
            and answer.protocol_instance_id not in accepted
        ]
        if not rejected:
            return self
        kept = WorkflowActivation()
        kept.CopyFrom(self.activation)
        del kept.jobs[:]
        kept.jobs.extend(
            job
            for job in self.activation.jobs
            if job.do_update.protocol_instance_id not in rejected
        )
        commands = tuple(
            command
            for command in self.commands
            if command.update_response.protocol_instance_id not in rejected
        )
        return Turn(kept, commands) if kept.jobs or commands else None

    def patches(self) -> list[str]:
        """Patches that the code met in this turn."""
        marked = (c for c in self.commands if c.HasField("set_patch_marker"))
        return [command.set_patch_marker.patch_id for command in marked]


class Instance:
    """A live workflow instance on a worker.

    `seen` counts the recorded turns that it has gone through, `busy` says whether a task uses it,
    `doomed` whether it is to be thrown away after that.
    """

    def __init__(self, definition: _Definition, first: WorkflowActivation, task_queue: str) -> None:
        self.seen = 0
        self.busy = False
        self.doomed = False
        self._name = definition.name
        init = first.jobs[0].initialize_workflow
        self._live: WorkflowInstance = RUNNER.create_instance(
            _details(definition, _info(first, init, task_queue), init)
        )

    def activate(self, activation: WorkflowActivation) -> tuple[WorkflowCommand, ...]:
        """Let the workflow go on; WorkflowTaskFailed when its code is defective."""
        loop = asyncio._get_running_loop()
        # The instance is an event loop of its own, and wants to be the running one.
        asyncio._set_running_loop(None)
        try:
            completion = self._live.activate(activation)
        finally:
            asyncio._set_running_loop(loop)
        if completion.HasField("failed"):
            raise WorkflowTaskFailed(MessageToString(completion.failed.failure))
        return tuple(completion.successful.commands)

    def replay(self, turns: list[Turn]) -> None:
        """Bring a new instance to where the lost one was."""
        for turn in turns:
            again = WorkflowActivation()
            again.CopyFrom(turn.activation)
            again.is_replaying = True
            for job in again.jobs:
                if job.HasField("do_update"):
                    job.do_update.run_validator = False  # what is in a history was accepted
            for patch in turn.patches():
                job = WorkflowActivationJob()
                job.notify_has_patch.patch_id = patch
                again.jobs.append(job)
            commands = self.activate(again)
            if commands != turn.commands:
                raise NonDeterminism(f"{self._name}: {_difference(turn, commands)}")
        self.seen = len(turns)

    def query(self, name: str, arguments: Sequence[Payload]) -> WorkflowCommand:
        """What the workflow answers; it does not go on by that."""
        activation = WorkflowActivation()
        asked = activation.jobs.add().query_workflow
        asked.query_id, asked.query_type = "1", name
        asked.arguments.extend(arguments)
        (command,) = self.activate(activation)
        return command

    def evict(self) -> None:
        """Let the instance's tasks end; the run goes on elsewhere."""
        activation = WorkflowActivation()
        activation.jobs.add().remove_from_cache.message = "evicted"
        # Whatever its code makes of that, the run is not here any more.
        with contextlib.suppress(WorkflowTaskFailed):
            self.activate(activation)


def _info(first: WorkflowActivation, init: InitializeWorkflow, task_queue: str) -> Info:
    parent, root = init.parent_workflow_info, init.root_workflow
    above = ParentInfo(namespace=NAMESPACE, run_id=parent.run_id, workflow_id=parent.workflow_id)
    return Info(
        attempt=1,
        continued_run_id=init.continued_from_execution_run_id or None,
        cron_schedule=None,
        execution_timeout=None,
        first_execution_run_id=init.first_execution_run_id,
        headers=dict(init.headers),
        namespace=NAMESPACE,
        original_execution_run_id=first.run_id,
        parent=above if parent.workflow_id else None,
        root=RootInfo(run_id=root.run_id, workflow_id=root.workflow_id),
        priority=Priority._from_proto(init.priority),
        raw_memo=dict(init.memo.fields),
        retry_policy=None,
        run_id=first.run_id,
        run_timeout=None,
        search_attributes=decode_search_attributes(init.search_attributes),
        start_time=first.timestamp.ToDatetime().replace(tzinfo=UTC),
        task_queue=task_queue,
        task_timeout=init.workflow_task_timeout.ToTimedelta(),
        typed_search_attributes=decode_typed_search_attributes(init.search_attributes),
        workflow_id=init.workflow_id,
        workflow_start_time=init.start_time.ToDatetime().replace(tzinfo=UTC),
        workflow_type=init.workflow_type,
    )


def _details(
    definition: _Definition, info: Info, init: InitializeWorkflow
) -> WorkflowInstanceDetails:
    converter = pydantic_data_converter
    return WorkflowInstanceDetails(
        payload_converter_factory=lambda: converter.payload_converter,
        failure_converter_class=converter.failure_converter_class,
        interceptor_classes=[],
        defn=definition,
        info=info,
        randomness_seed=init.randomness_seed,
        extern_functions=EXTERN,
        disable_eager_activity_execution=True,
        worker_level_failure_exception_types=[],
        patch_activation_callback=None,
        last_completion_result=Payloads(),
        last_failure=None,
    )


def _difference(turn: Turn, commands: tuple[WorkflowCommand, ...]) -> str:
    was = _lines(turn.commands)
    lines = difflib.unified_diff(was, _lines(commands), "recorded", "replayed", lineterm="")
    return "replay gave other commands:\n" + "\n".join(lines)


def _lines(commands: tuple[WorkflowCommand, ...]) -> list[str]:
    return [line for command in commands for line in MessageToString(command).splitlines()]
