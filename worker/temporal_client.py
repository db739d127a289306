"""The Temporal client of our processes, and what the engine asks of workflows on top of it.

Everything here may be repeated, and a workflow that has ended or that Temporal never heard of is
no error: whoever asks again after a crash finds it done.

Priority    A workflow's priority orders its workflow tasks and every step that it schedules from
            then on, also after continuing as new. Raising it makes the server (1.31) queue anew
            what of it waits in a queue, so nothing else has to be touched. Updating the waiting
            steps as well sets that back: they would go a second time, 50 ms later.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from google.protobuf.field_mask_pb2 import FieldMask
from temporalio.api.common.v1 import Priority as RawPriority
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.errordetails.v1 import NamespaceNotFoundFailure
from temporalio.api.workflow.v1 import WorkflowExecutionOptions
from temporalio.api.workflowservice.v1 import UpdateWorkflowExecutionOptionsRequest
from temporalio.client import (
    Client,
    WorkflowExecutionDescription,
    WorkflowExecutionStatus,
    WorkflowFailureError,
)
from temporalio.common import Priority, WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from domain.errors import Unavailable
from domain.operations import WorkflowState
from store.rows import Row
from worker.tracing import continued, tracing_interceptor
from workflows import options

CALL_LIMIT = timedelta(seconds=5)
"""How long one call may take before it is left to the next try."""

STATES = {
    WorkflowExecutionStatus.RUNNING: WorkflowState.RUNNING,
    WorkflowExecutionStatus.COMPLETED: WorkflowState.COMPLETED,
    WorkflowExecutionStatus.FAILED: WorkflowState.FAILED,
    WorkflowExecutionStatus.CANCELED: WorkflowState.CANCELLED,
    WorkflowExecutionStatus.TERMINATED: WorkflowState.TERMINATED,
    WorkflowExecutionStatus.TIMED_OUT: WorkflowState.TIMED_OUT,
    WorkflowExecutionStatus.CONTINUED_AS_NEW: WorkflowState.CONTINUED,
}


async def connect(address: str, *, traces: str = "off", lazy: bool = False) -> Client:
    """A client with our data converter; `lazy` connects at the first use."""
    return await Client.connect(
        address,
        data_converter=pydantic_data_converter,
        interceptors=tracing_interceptor(traces),
        lazy=lazy,
    )


class TemporalWorkflows:
    """Starts, asks and steers workflows; implements `engine.delivery.Starter`.

    Every method raises Unavailable (`TEMPORAL_UNAVAILABLE`) when Temporal does not take the call.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    async def start(
        self, workflow: str, order: Row, *, wid: str, priority: int, fairness: str, summary: str
    ) -> None:
        """Start it; an id that was ever used counts as started."""
        with (
            continued(order["context"].get("traceparent")),
            _available("start", "nothing is lost: it starts when Temporal is back"),
        ):
            try:
                await self._client.start_workflow(
                    workflow,
                    order,
                    id=wid,
                    task_queue=options.OPERATIONS,
                    task_timeout=options.TASK,
                    priority=Priority(priority_key=priority, fairness_key=fairness),
                    id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                    id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
                    static_summary=summary,
                    rpc_timeout=CALL_LIMIT,
                )
            except WorkflowAlreadyStartedError:
                return

    async def cancel(self, wid: str) -> None:
        """Ask it to cancel; done when it has ended, was asked before, or is unknown."""
        with _available("cancel request", "ask again when Temporal is back"):
            try:
                await self._client.get_workflow_handle(wid).cancel(rpc_timeout=CALL_LIMIT)
            except RPCError as error:
                _unless_gone(error)

    async def signal(self, wid: str, name: str) -> None:
        """Send a signal without content; done when it has ended or is unknown."""
        with _available(f"signal {name!r}", "send it again when Temporal is back"):
            try:
                handle = self._client.get_workflow_handle(wid)
                await handle.signal(name, rpc_timeout=CALL_LIMIT)
            except RPCError as error:
                _unless_gone(error)

    async def describe(self, wid: str) -> WorkflowState:
        """What became of it, by Temporal's own record and not its lists, which lag behind."""
        with _available("question", "ask again when Temporal is back"):
            found = await self._described(wid)
        return WorkflowState.UNKNOWN if found is None else _state(found)

    async def raise_priority(self, wid: str, priority: int) -> None:
        """Give it, and what it has waiting in queues, another priority key (lower goes first).

        Steps that run are left alone, and one that waits for its next try is tried at once. Done
        when it has ended or is unknown; its fairness key stays.
        """
        request = UpdateWorkflowExecutionOptionsRequest(
            namespace=self._client.namespace,
            workflow_execution=WorkflowExecution(workflow_id=wid),
            workflow_execution_options=WorkflowExecutionOptions(
                priority=RawPriority(priority_key=priority)
            ),
            update_mask=FieldMask(paths=["priority.priority_key"]),
        )
        with _available("new priority", "ask again when Temporal is back"):
            try:
                service = self._client.workflow_service
                await service.update_workflow_execution_options(request, timeout=CALL_LIMIT)
            except RPCError as error:
                _unless_gone(error)

    async def _described(self, wid: str) -> WorkflowExecutionDescription | None:
        try:
            return await self._client.get_workflow_handle(wid).describe(rpc_timeout=CALL_LIMIT)
        except RPCError as error:
            _unless_gone(error)
            return None


@contextmanager
def _available(what: str, next_step: str) -> Iterator[None]:
    try:
        yield
    except (RPCError, RuntimeError, WorkflowFailureError) as error:
        raise Unavailable(
            "TEMPORAL_UNAVAILABLE",
            f"Temporal does not take the {what} ({error})",
            next_step=next_step,
        ) from error


def _unless_gone(error: RPCError) -> None:
    """Raise an error that is not about a workflow being ended or unknown.

    The server says NOT_FOUND of a missing namespace, too, where nothing is known about workflows.
    """
    about = error.grpc_status.details
    if error.status is not RPCStatusCode.NOT_FOUND or any(
        detail.Is(NamespaceNotFoundFailure.DESCRIPTOR) for detail in about
    ):
        raise error


def _state(found: WorkflowExecutionDescription) -> WorkflowState:
    if found.status is None:
        return WorkflowState.UNKNOWN
    return STATES[found.status]
