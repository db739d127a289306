"""The Temporal client of our processes, and the starter of workflows on top of it."""

from datetime import timedelta

from temporalio.client import Client, WorkflowFailureError
from temporalio.common import Priority, WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError

from domain.errors import Unavailable
from store.rows import Row
from worker.tracing import continued, tracing_interceptor
from workflows import options

START_LIMIT = timedelta(seconds=5)
"""How long one start may take before it is left to the relay's next try."""


async def connect(address: str, *, traces: str = "off", lazy: bool = False) -> Client:
    """A client with our data converter; `lazy` connects at the first use."""
    return await Client.connect(
        address,
        data_converter=pydantic_data_converter,
        interceptors=tracing_interceptor(traces),
        lazy=lazy,
    )


class TemporalStarter:
    """Implements `engine.delivery.Starter`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def start(
        self, workflow: str, order: Row, *, wid: str, priority: int, fairness: str, summary: str
    ) -> None:
        """Start it; an id that was ever used counts as started."""
        with continued(order["context"].get("traceparent")):
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
                    rpc_timeout=START_LIMIT,
                )
            except WorkflowAlreadyStartedError:
                return
            except (RPCError, RuntimeError, WorkflowFailureError) as error:
                raise Unavailable(
                    "TEMPORAL_UNAVAILABLE",
                    f"Temporal does not take the start ({error})",
                    next_step="nothing is lost: it starts when Temporal is back",
                ) from error
