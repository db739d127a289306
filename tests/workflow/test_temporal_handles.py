"""What the engine asks of workflows, on a real server: cancel, signal, describe, raise."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio
from temporalio import workflow
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.client import Client, WorkflowFailureError
from temporalio.exceptions import ApplicationError
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from domain.errors import Unavailable
from domain.operations import WorkflowState
from tests.workflow.bench import client_in
from tests.workflow.queues import Line, line, until
from worker.temporal_client import TemporalWorkflows, connect
from workflows import options

pytestmark = pytest.mark.workflow

NOBODY = f"op/{uuid4()}/1"


@workflow.defn(name="Told")
class Told:
    """Ends as it is told to."""

    def __init__(self) -> None:
        self._words: list[str] = []

    @workflow.run
    async def run(self, order: dict[str, Any]) -> str:
        """Wait for a word, then do as it says."""
        if order.get("again"):
            workflow.continue_as_new({"context": {}})
        await workflow.wait_condition(lambda: bool(self._words))
        if self._words[0] == "fail":
            raise ApplicationError("told to fail", non_retryable=True)
        return self._words[0]

    @workflow.signal
    def end(self) -> None:
        """End well."""
        self._words.append("end")

    @workflow.signal
    def fail(self) -> None:
        """Fail."""
        self._words.append("fail")


@pytest_asyncio.fixture
async def client(temporal_address: str) -> Client:
    return await client_in(temporal_address, f"handles-{uuid4().hex[:12]}")


@pytest_asyncio.fixture
async def workflows(client: Client) -> AsyncIterator[TemporalWorkflows]:
    worker = Worker(
        client,
        task_queue=options.OPERATIONS,
        workflows=[Told],
        workflow_runner=UnsandboxedWorkflowRunner(),
    )
    async with worker:
        yield TemporalWorkflows(client)


async def started(workflows: TemporalWorkflows, **more: Any) -> str:
    wid = f"op/{uuid4()}/1"
    order = {"context": {}, **more}
    await workflows.start("Told", order, wid=wid, priority=3, fairness="c1", summary="told")
    return wid


async def ended(client: Client, wid: str) -> None:
    try:
        await client.get_workflow_handle(wid).result()
    except WorkflowFailureError:
        return


@asynccontextmanager
async def nobody_answers() -> AsyncIterator[TemporalWorkflows]:
    server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    yield TemporalWorkflows(await connect(f"127.0.0.1:{port}", lazy=True))


async def test_a_workflow_is_described_as_what_became_of_it(
    workflows: TemporalWorkflows, client: Client
) -> None:
    wids = {state: await started(workflows) for state in ("running", "completed", "failed")}
    wids |= {state: await started(workflows) for state in ("cancelled", "terminated")}
    await workflows.signal(wids["completed"], "end")
    await workflows.signal(wids["failed"], "fail")
    await workflows.cancel(wids["cancelled"])
    await client.get_workflow_handle(wids["terminated"]).terminate()
    for state, wid in wids.items():
        if state != "running":
            await ended(client, wid)
    assert {state: await workflows.describe(wid) for state, wid in wids.items()} == {
        state: WorkflowState(state) for state in wids
    }


async def test_a_workflow_that_ran_out_of_time_is_described_so(
    workflows: TemporalWorkflows, client: Client
) -> None:
    handle = await client.start_workflow(
        "Told",
        {"context": {}},
        id=f"op/{uuid4()}/1",
        task_queue=options.OPERATIONS,
        execution_timeout=timedelta(seconds=1),
    )
    await ended(client, handle.id)
    assert await workflows.describe(handle.id) is WorkflowState.TIMED_OUT


async def test_a_workflow_that_nobody_started_is_unknown(workflows: TemporalWorkflows) -> None:
    assert await workflows.describe(NOBODY) is WorkflowState.UNKNOWN


async def test_a_workflow_that_continues_as_new_is_found_by_its_id(
    workflows: TemporalWorkflows, client: Client
) -> None:
    wid = await started(workflows, again=True)
    handle = client.get_workflow_handle(wid)

    async def continued() -> bool:
        first = (await handle.describe()).raw_description.workflow_execution_info.first_run_id
        return (await handle.describe()).run_id != first

    await until(continued, "the workflow never continued as new")
    assert await workflows.describe(wid) is WorkflowState.RUNNING
    await workflows.signal(wid, "end")
    assert await handle.result() == "end"
    assert await workflows.describe(wid) is WorkflowState.COMPLETED


async def test_asking_what_has_ended_or_never_was_counts_as_done(
    workflows: TemporalWorkflows, client: Client
) -> None:
    wid = await started(workflows)
    await workflows.signal(wid, "end")
    await ended(client, wid)
    for gone in (wid, NOBODY):
        await workflows.cancel(gone)
        await workflows.signal(gone, "end")
        await workflows.raise_priority(gone, 1)
    assert await workflows.describe(wid) is WorkflowState.COMPLETED


async def test_a_cancel_may_be_asked_for_twice(
    workflows: TemporalWorkflows, client: Client
) -> None:
    wid = await started(workflows)
    await asyncio.gather(workflows.cancel(wid), workflows.cancel(wid))
    await ended(client, wid)
    assert await workflows.describe(wid) is WorkflowState.CANCELLED


async def test_silence_is_no_answer_about_a_workflow() -> None:
    async with nobody_answers() as workflows:
        for asked in (
            workflows.cancel(NOBODY),
            workflows.signal(NOBODY, "end"),
            workflows.describe(NOBODY),
            workflows.raise_priority(NOBODY, 1),
        ):
            with pytest.raises(Unavailable) as silent:
                await asked
            assert silent.value.code == "TEMPORAL_UNAVAILABLE"


async def test_a_namespace_that_is_missing_does_not_make_workflows_unknown(
    temporal_address: str,
) -> None:
    elsewhere = await Client.connect(temporal_address, namespace=f"none-{uuid4().hex[:12]}")
    workflows = TemporalWorkflows(elsewhere)
    for asked in (workflows.describe(NOBODY), workflows.cancel(NOBODY)):
        with pytest.raises(Unavailable, match="amespace"):
            await asked


async def test_a_raised_operation_overtakes_what_was_queued_before_it(
    temporal_address: str,
) -> None:
    async with line(temporal_address) as made, made.worker(slots=1):
        await one_runs_and_others_wait(made)
        await made.workflows.raise_priority("w7", 2)
        await made.waits(1, priority=2)
        made.let_go()
        assert await made.next(behind=1) == ["w7.0"]


async def test_the_later_steps_of_a_raised_operation_overtake_too(temporal_address: str) -> None:
    async with line(temporal_address) as made, made.worker(slots=1):
        await one_runs_and_others_wait(made, 60)
        await made.workflows.raise_priority("w7", 2)
        made.let_go(200)
        order = await made.next(behind=1, count=120)
    # In its old class, each second step would come after every first one.
    assert order.index("w7.1") < order.index("w59.0") < order.index("w0.1")


async def test_an_operation_is_raised_before_any_worker_has_seen_it(temporal_address: str) -> None:
    async with line(temporal_address) as made:
        for number in range(10):
            await made.enqueue(f"w{number}", 5)
        await made.workflows.raise_priority("w7", 2)
        await made.waits(1, priority=2, kind=TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW)
        made.let_go(10)
        async with made.worker(slots=1, workflows=2):
            order = await made.next(behind=0, count=10)
    assert order.index("w7.0") <= 1


async def test_a_raised_step_that_runs_already_runs_on_and_is_not_repeated(
    temporal_address: str,
) -> None:
    async with line(temporal_address) as made, made.worker(slots=1):
        await made.enqueue("w0", 5)
        await made.next(behind=0)
        await made.workflows.raise_priority("w0", 1)
        made.let_go()
        await made.client.get_workflow_handle("w0").result()
        assert made.started == ["w0.0"]


async def test_a_raise_may_be_repeated_and_keeps_the_fairness_key(temporal_address: str) -> None:
    async with line(temporal_address) as made, made.worker(slots=1):
        await one_runs_and_others_wait(made)
        for _ in range(2):
            await made.workflows.raise_priority("w7", 2)
        found = await made.client.get_workflow_handle("w7").describe()
        kept = found.raw_description.workflow_execution_info.priority
        assert (kept.priority_key, kept.fairness_key) == (2, "c1")
        await made.waits(1, priority=2)
        made.let_go()
        assert await made.next(behind=1) == ["w7.0"]


async def one_runs_and_others_wait(made: Line, others: int = 10) -> None:
    """One step holds the only slot; operations of two steps wait behind it, in order."""
    await made.enqueue("first", 3)
    await made.next(behind=0)
    for number in range(others):
        await made.enqueue(f"w{number}", 5, steps=2)
        await made.scheduled(f"w{number}", 1)
