"""What the server does with each command of a workflow task: one function a kind, in one table."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from temporalio.api.common.v1 import Payload
from temporalio.bridge.proto.child_workflow import (
    ChildWorkflowCancellationType,
    ParentClosePolicy,
    StartChildWorkflowExecutionFailedCause,
)
from temporalio.bridge.proto.workflow_activation import WorkflowActivationJob
from temporalio.bridge.proto.workflow_commands import (
    ActivityCancellationType,
    ScheduleActivity,
    WorkflowCommand,
)
from temporalio.common import Priority, WorkflowIDReusePolicy

from domain.operations import WorkflowState
from simulator.temporal import failures
from simulator.temporal.errors import AlreadyStarted, Unsupported
from simulator.temporal.instance import Turn
from simulator.temporal.run import Child, Run, StartOf
from simulator.temporal.steps import cancelled

if TYPE_CHECKING:
    from simulator.temporal.server import Server
    from simulator.temporal.steps import Step

TASK_TIMEOUT_S = 10.0
"""The server's default, for a child that names none."""

CHILD_LACKS = (
    "workflow_execution_timeout",
    "workflow_run_timeout",
    "retry_policy",
    "cron_schedule",
)

CLOSING = (
    "complete_workflow_execution",
    "fail_workflow_execution",
    "cancel_workflow_execution",
    "continue_as_new_workflow_execution",
)
Do = Callable[["Server", Run, Any], None]


def closes(turn: Turn) -> bool:
    """Whether a turn ends its run."""
    return any(command.WhichOneof("variant") in CLOSING for command in turn.commands)


def apply_all(server: "Server", run: Run, commands: tuple[WorkflowCommand, ...]) -> None:
    """Carry out what a task commanded; Unsupported names what the simulator lacks."""
    for command in commands:
        kind = command.WhichOneof("variant") or "nothing"
        if kind not in TABLE:
            raise Unsupported(f"{run.start.workflow} commands {kind}, which the simulator lacks")
        if run.open:
            TABLE[kind](server, run, getattr(command, kind))


def _start_timer(server: "Server", run: Run, command: Any) -> None:
    wait_s = command.start_to_fire_timeout.ToTimedelta().total_seconds()
    run.timers[command.seq] = server.later(wait_s, _fire, server, run, command.seq)


def _fire(server: "Server", run: Run, seq: int) -> None:
    if run.timers.pop(seq, None) is not None:
        job = WorkflowActivationJob()
        job.fire_timer.seq = seq
        server.tell(run, job)


def _cancel_timer(_server: "Server", run: Run, command: Any) -> None:
    if (cancel := run.timers.pop(command.seq, None)) is not None:
        cancel()


def _schedule_activity(server: "Server", run: Run, command: Any) -> None:
    server.later(server.latency("step"), _schedule_later, server, run, command)
    run.scheduled[command.seq] = command


def _schedule_later(server: "Server", run: Run, command: Any) -> None:
    if run.open and run.scheduled.pop(command.seq, None) is not None:
        server.steps.schedule(run, command)


def _cancel_activity(server: "Server", run: Run, command: Any) -> None:
    if (step := run.steps.get(command.seq)) is not None:
        _cancel_step(server, run, step)
    elif (scheduled := run.scheduled.pop(command.seq, None)) is not None:
        _tell_cancelled(server, run, scheduled)


def _cancel_step(server: "Server", run: Run, step: "Step") -> None:
    """Only WAIT_CANCELLATION_COMPLETED waits for what the step makes of it."""
    kind = step.command.cancellation_type
    if kind != ActivityCancellationType.ABANDON:
        server.steps.request_cancel(step)
    waits = kind == ActivityCancellationType.WAIT_CANCELLATION_COMPLETED
    if not waits and run.steps.pop(step.command.seq, None) is not None:
        _tell_cancelled(server, run, step.command)


def _tell_cancelled(server: "Server", run: Run, command: ScheduleActivity) -> None:
    server.steps.tell(run, command.seq, cancelled(command))


def _complete(server: "Server", run: Run, command: Any) -> None:
    server.close(run, WorkflowState.COMPLETED, result=command.result)


def _fail(server: "Server", run: Run, command: Any) -> None:
    server.close(run, WorkflowState.FAILED, failure=command.failure)


def _cancel(server: "Server", run: Run, _command: Any) -> None:
    server.close(run, WorkflowState.CANCELLED, failure=failures.cancelled())


def _continue(server: "Server", run: Run, command: Any) -> None:
    _lacks(command, "continue-as-new", "workflow_run_timeout", "retry_policy")
    start = replace(
        run.start,
        workflow=command.workflow_type or run.start.workflow,
        arguments=tuple(command.arguments),
        task_queue=command.task_queue or run.start.task_queue,
        # What was raised meanwhile stays raised.
        priority=run.priority_of(None),
        memo=dict(command.memo) or run.memo,
        attributes=dict(command.search_attributes.indexed_fields) or run.attributes,
    )
    server.continue_as_new(run, start)


def _start_child(server: "Server", run: Run, command: Any) -> None:
    job = WorkflowActivationJob()
    told = job.resolve_child_workflow_execution_start
    told.seq = command.seq
    _lacks(command, "a child", *CHILD_LACKS)
    start = StartOf(
        workflow=command.workflow_type,
        wid=command.workflow_id,
        arguments=tuple(command.input),
        task_queue=command.task_queue or run.start.task_queue,
        task_timeout_s=failures.seconds(command.workflow_task_timeout) or TASK_TIMEOUT_S,
        priority=Priority._from_proto(command.priority),
        parent=run,
        headers=dict(command.headers),
        memo=dict(command.memo),
        attributes=dict(command.search_attributes.indexed_fields),
    )
    try:
        child = server.begin(start, WorkflowIDReusePolicy(command.workflow_id_reuse_policy or 1))
    except AlreadyStarted:
        told.failed.workflow_id, told.failed.workflow_type = start.wid, start.workflow
        causes = StartChildWorkflowExecutionFailedCause
        told.failed.cause = (
            causes.START_CHILD_WORKFLOW_EXECUTION_FAILED_CAUSE_WORKFLOW_ALREADY_EXISTS
        )
        server.tell(run, job)
        return
    told.succeeded.run_id = child.run_id
    run.children[command.seq] = Child(command, child)
    server.tell(run, job)
    child.waiters.append(lambda ended: _child_ended(server, run, command.seq, ended))


def _child_ended(server: "Server", run: Run, seq: int, child: Run) -> None:
    if run.children.pop(seq, None) is None:
        return
    job = WorkflowActivationJob()
    job.resolve_child_workflow_execution.seq = seq
    result = job.resolve_child_workflow_execution.result
    if child.state is WorkflowState.COMPLETED:
        result.completed.SetInParent()
        if child.result is not None:
            result.completed.result.CopyFrom(child.result)
    else:
        cause = child.failure if child.failure is not None else failures.terminated()
        wrapped = failures.of_child(child.wid, child.run_id, child.start.workflow, cause)
        cancelled = child.state is WorkflowState.CANCELLED
        (result.cancelled if cancelled else result.failed).failure.CopyFrom(wrapped)
    server.later(server.latency("child"), server.tell, run, job)


def _cancel_child(server: "Server", run: Run, command: Any) -> None:
    child = run.children.get(command.child_workflow_seq)
    if child is None:
        return
    if child.command.cancellation_type != ChildWorkflowCancellationType.WAIT_CANCELLATION_COMPLETED:
        raise Unsupported("a child's cancellation type other than WAIT_CANCELLATION_COMPLETED")
    newest = server.current(child.run.wid)
    if newest is not None:
        server.cancel(newest, command.reason)


def _cancel_external(server: "Server", run: Run, command: Any) -> None:
    server.later(server.latency("child"), _cancel_arrives, server, run, command)


def _cancel_arrives(server: "Server", run: Run, command: Any) -> None:
    """The one is told, then the other that it was; or that there is nobody."""
    job = WorkflowActivationJob()
    told = job.resolve_request_cancel_external_workflow
    told.seq = command.seq
    wid = command.workflow_execution.workflow_id
    if (found := server.current(wid)) is None or not found.open:
        told.failure.CopyFrom(failures.unknown_workflow(wid))
    else:
        server.cancel(found, command.reason)
    server.tell(run, job)


def _signal_external(server: "Server", run: Run, command: Any) -> None:
    server.later(server.latency("child"), _signal_arrives, server, run, command)


def _signal_arrives(server: "Server", run: Run, command: Any) -> None:
    job = WorkflowActivationJob()
    told = job.resolve_signal_external_workflow
    told.seq = command.seq
    wid = command.child_workflow_id or command.workflow_execution.workflow_id
    if (found := server.current(wid)) is None or not found.open:
        told.failure.CopyFrom(failures.unknown_workflow(wid))
    else:
        server.signal(found, command.signal_name, tuple(command.args))
    server.tell(run, job)


def _upsert_attributes(_server: "Server", run: Run, command: Any) -> None:
    _change(run.attributes, command.search_attributes.indexed_fields)


def _modify(_server: "Server", run: Run, command: Any) -> None:
    _change(run.memo, command.upserted_memo.fields)


def _change(kept: dict[str, Payload], changes: Mapping[str, Payload]) -> None:
    """As the server does it: what is set to nothing is taken out."""
    for key, value in changes.items():
        if value.metadata["encoding"] == b"binary/null" or value.data in (b"null", b"[]"):
            kept.pop(key, None)
        else:
            kept[key] = value


def _answered(_server: "Server", run: Run, command: Any) -> None:
    run.updates[command.protocol_instance_id].take(command)


def _lacks(command: Any, what: str, *fields: str) -> None:
    for name in fields:
        one = command.DESCRIPTOR.fields_by_name[name].message_type is not None
        if command.HasField(name) if one else getattr(command, name):
            raise Unsupported(f"{name} of {what}")


def _nothing(_server: "Server", _run: Run, _command: Any) -> None:
    """The worker's own affair, or only kept in the history."""


def close_children(server: "Server", run: Run) -> None:
    """Do with a run's children what it said that should be done at its end."""
    children, run.children = run.children, {}
    for child in children.values():
        newest = server.current(child.run.wid)
        policy = child.command.parent_close_policy
        if newest is None or policy == ParentClosePolicy.PARENT_CLOSE_POLICY_ABANDON:
            continue
        if policy == ParentClosePolicy.PARENT_CLOSE_POLICY_REQUEST_CANCEL:
            server.cancel(newest)
        else:
            server.terminate(newest)


TABLE: dict[str, Do] = {
    "start_timer": _start_timer,
    "cancel_timer": _cancel_timer,
    "schedule_activity": _schedule_activity,
    "request_cancel_activity": _cancel_activity,
    "schedule_local_activity": _nothing,
    "request_cancel_local_activity": _nothing,
    "set_patch_marker": _nothing,
    "complete_workflow_execution": _complete,
    "fail_workflow_execution": _fail,
    "cancel_workflow_execution": _cancel,
    "continue_as_new_workflow_execution": _continue,
    "start_child_workflow_execution": _start_child,
    "cancel_child_workflow_execution": _cancel_child,
    "request_cancel_external_workflow_execution": _cancel_external,
    "signal_external_workflow_execution": _signal_external,
    "upsert_workflow_search_attributes": _upsert_attributes,
    "modify_workflow_properties": _modify,
    "update_response": _answered,
}
