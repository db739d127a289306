"""Failures as a worker and a server write them, and payloads as our data converter does."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from google.protobuf.duration_pb2 import Duration
from temporalio.api.common.v1 import Payload, WorkflowExecution
from temporalio.api.enums.v1 import RetryState, TimeoutType
from temporalio.api.failure.v1 import Failure
from temporalio.bridge.proto.workflow_commands import ScheduleActivity, ScheduleLocalActivity
from temporalio.common import RetryPolicy
from temporalio.contrib.pydantic import pydantic_data_converter

payloads = pydantic_data_converter.payload_converter
failures = pydantic_data_converter.failure_converter

FINAL_LIMITS = (
    TimeoutType.TIMEOUT_TYPE_SCHEDULE_TO_START,
    TimeoutType.TIMEOUT_TYPE_SCHEDULE_TO_CLOSE,
)
TIMEOUT_PREFIX = "TemporalTimeout:"
"""How a policy names a limit among its types of error that are not tried again."""

NO_TIME_LEFT = (
    "Not enough time to schedule next retry before activity {} timeout, giving up retrying"
)


def to_payload(value: Any) -> Payload:
    """One value."""
    return payloads.to_payloads([value])[0]


def from_payloads(given: Sequence[Payload], hints: list[type] | None) -> list[Any]:
    """Values as the called function wants them."""
    fitting = hints if hints is not None and len(hints) == len(given) else None
    return payloads.from_payloads(given, fitting)


def of_error(error: BaseException) -> Failure:
    """What a worker reports for an exception."""
    failure = Failure()
    failures.to_failure(error, payloads, failure)
    # A trace names files of this machine, and nobody here reads it.
    _without_traces(failure)
    return failure


def cancelled(message: str = "Cancelled") -> Failure:
    """A cancel that was carried out."""
    failure = Failure(message=message)
    failure.canceled_failure_info.SetInParent()
    return failure


def timed_out(kind: "TimeoutType.ValueType", beat: Sequence[Payload] = ()) -> Failure:
    """A limit that has passed; with the details of the last heartbeat."""
    words = (
        NO_TIME_LEFT
        if kind == TimeoutType.TIMEOUT_TYPE_SCHEDULE_TO_CLOSE
        else "activity {} timeout"
    )
    name = TimeoutType.Name(kind).removeprefix("TIMEOUT_TYPE_").title().replace("_", "")
    failure = Failure(message=words.format(name))
    failure.timeout_failure_info.timeout_type = kind
    failure.timeout_failure_info.last_heartbeat_details.payloads.extend(beat)
    return failure


def of_step(command: Any, message: str, cause: Failure, state: "RetryState.ValueType") -> Failure:
    """How a workflow sees an activity that did not end well."""
    failure = Failure(message=message)
    info = failure.activity_failure_info
    info.activity_type.name, info.activity_id = command.activity_type, command.activity_id
    info.retry_state = state
    failure.cause.CopyFrom(cause)
    return failure


def of_child(wid: str, run_id: str, workflow: str, cause: Failure) -> Failure:
    """How a workflow sees a child that did not end well."""
    words = "cancelled" if cause.HasField("canceled_failure_info") else "failed"
    failure = Failure(message=f"Child Workflow execution {words}")
    info = failure.child_workflow_execution_failure_info
    info.workflow_execution.CopyFrom(WorkflowExecution(workflow_id=wid, run_id=run_id))
    info.workflow_type.name = workflow
    failure.cause.CopyFrom(cause)
    return failure


def terminated() -> Failure:
    """What a parent sees of a child that a person ended."""
    failure = Failure(message="terminated")
    failure.terminated_failure_info.SetInParent()
    return failure


def unknown_workflow(wid: str) -> Failure:
    """What a workflow gets that asked for another one which is not there."""
    return of_error_text(f"workflow {wid} is unknown or has ended", "ExternalWorkflowNotFound")


def of_error_text(message: str, kind: str) -> Failure:
    """An application failure in words."""
    failure = Failure(message=message)
    failure.application_failure_info.type = kind
    return failure


def policy_of(command: ScheduleActivity | ScheduleLocalActivity) -> RetryPolicy:
    """How an activity is tried again; the server's own policy where it names none."""
    if not command.HasField("retry_policy"):
        return RetryPolicy()
    return RetryPolicy.from_proto(command.retry_policy)


def next_wait(
    policy: RetryPolicy, attempt: int, failure: Failure
) -> "timedelta | RetryState.ValueType":
    """How long until the next try, or why there is none.

    As the server does it: initial interval times coefficient to the power of the tries so far,
    or what the failure asks for; at most the maximum interval (100 times the initial one where
    none is given).
    """
    if failure.timeout_failure_info.timeout_type in FINAL_LIMITS:
        return RetryState.RETRY_STATE_TIMEOUT
    if not _retryable(policy, failure):
        return RetryState.RETRY_STATE_NON_RETRYABLE_FAILURE
    if policy.maximum_attempts and attempt >= policy.maximum_attempts:
        return RetryState.RETRY_STATE_MAXIMUM_ATTEMPTS_REACHED
    initial_s = policy.initial_interval.total_seconds()
    most = policy.maximum_interval
    most_s = 100 * initial_s if most is None else most.total_seconds()
    wait_s = min(initial_s * policy.backoff_coefficient ** (attempt - 1), most_s)
    if failure.application_failure_info.HasField("next_retry_delay"):
        asked = failure.application_failure_info.next_retry_delay.ToTimedelta()
        wait_s = min(asked.total_seconds(), most_s)
    return timedelta(seconds=wait_s)


def _retryable(policy: RetryPolicy, failure: Failure) -> bool:
    if failure.HasField("terminated_failure_info") or failure.HasField("canceled_failure_info"):
        return False
    final = policy.non_retryable_error_types or ()
    if failure.HasField("timeout_failure_info"):
        kind = failure.timeout_failure_info.timeout_type
        name = TimeoutType.Name(kind).removeprefix("TIMEOUT_TYPE_").title().replace("_", "")
        return TIMEOUT_PREFIX + name not in final
    info = failure.application_failure_info
    return not (info.non_retryable or info.type in final)


def seconds(duration: Duration) -> float | None:
    """A protobuf duration, None for none."""
    value = duration.seconds + duration.nanos / 1e9
    return value or None


def _without_traces(failure: Failure) -> None:
    failure.stack_trace = ""
    if failure.HasField("cause"):
        _without_traces(failure.cause)
