"""Batches on a real server, over fake children: released, counted, stopped, cancelled, paused."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest
import pytest_asyncio
from temporalio.client import Client, WorkflowHandle
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.worker import Worker

from activities.batches import Batches
from activities.operations import Operations
from domain.context import ActionContext
from domain.operations import OperationState, Outcome
from domain.orders import RunBatchOrder
from domain.profiles import Policy
from tests.workflow.batches import Children, Diary
from tests.workflow.bench import client_in
from tests.workflow.queues import until
from worker import temporal_server
from worker.parts import sandbox
from worker.temporal_server import DevServer, DevServerOptions
from workflows import options
from workflows.run_batch import RunBatch

pytestmark = pytest.mark.workflow

QUICK_S, NEVER_S = 0.02, 3600.0

Handle = WorkflowHandle[RunBatch, Outcome]


@pytest_asyncio.fixture
async def client(temporal_address: str) -> Client:
    return await client_in(temporal_address, f"batch-{uuid4().hex[:12]}")


@asynccontextmanager
async def running(
    client: Client, children: Children, diary: Diary, look_every_s: float = QUICK_S
) -> AsyncIterator[Handle]:
    order = RunBatchOrder(
        operation_id=uuid4(),
        context=ActionContext(principal="ann", correlation_id="test"),
        policy=Policy(),
        look_every_s=look_every_s,
    )
    operations, batches = Operations(diary), Batches(children)
    async with Worker(
        client,
        task_queue=options.OPERATIONS,
        workflows=[RunBatch],
        activities=[
            *(operations.claim, operations.pause, operations.close),
            *(batches.advance, batches.cancel_rest),
        ],
        workflow_runner=sandbox(),
    ):
        yield await client.start_workflow(
            RunBatch.run, order, id=f"op/{order.operation_id}/1", task_queue=options.OPERATIONS
        )


async def seen(handle: Handle) -> None:
    """Wait until the workflow has worked on every signal that it was sent."""

    async def worked() -> bool:
        kinds = [e.WhichOneof("attributes") for e in (await handle.fetch_history()).events]
        kinds.reverse()
        done = kinds.index("workflow_task_completed_event_attributes")
        return done < kinds.index("workflow_execution_signaled_event_attributes")

    await until(worked, "the workflow never worked on its last signal")


def so(condition: Callable[[], bool]) -> Callable[[], Awaitable[bool]]:
    async def holds() -> bool:
        return condition()

    return holds


def released(children: Children, number: int) -> Callable[[], Awaitable[bool]]:
    return so(lambda: children.states[number] == "open")


async def test_a_batch_releases_each_child_once_and_never_more_than_the_limit(
    client: Client,
) -> None:
    children, diary = Children(1000, at_once=60), Diary()
    async with running(client, children, diary) as handle:
        outcome = await handle.result()
    assert (outcome.state, outcome.summary) == (OperationState.SUCCEEDED, "1000 succeeded")
    assert set(children.releases.values()) == {1}
    assert children.most_open == 60
    assert diary.entries == ["running", "succeeded"]


async def test_a_batch_of_which_some_fail_says_how_many_and_what_to_do(client: Client) -> None:
    children = Children(1000, at_once=200, failing=(3, 700))
    async with running(client, children, Diary()) as handle:
        outcome = await handle.result()
    assert outcome.state is OperationState.FAILED
    assert outcome.problem is not None
    assert outcome.problem.code == "BATCH_INCOMPLETE"
    assert outcome.problem.detail == "of 1000 actions 998 succeeded, 2 failed"
    assert outcome.problem.context["failed"] == 2
    assert outcome.problem.next_step


async def test_a_batch_that_stops_on_error_says_what_it_never_began(client: Client) -> None:
    children = Children(100, at_once=10, failing=(12,), stop_on_error=True)
    async with running(client, children, Diary()) as handle:
        outcome = await handle.result()
    assert outcome.problem is not None
    assert outcome.problem.detail == (
        "of 100 actions 19 succeeded, 1 failed, 80 cancelled, stopped at the first failure"
    )
    assert len(children.releases) == 20


async def test_a_batch_without_children_is_done_at_once(client: Client) -> None:
    async with running(client, Children(0), Diary(), NEVER_S) as handle:
        assert (await handle.result()).summary == "nothing to do"


async def test_a_signal_makes_a_batch_look_before_its_time(client: Client) -> None:
    children = Children(3, at_once=1, by_themselves=False)
    async with running(client, children, Diary(), NEVER_S) as handle:
        for number in range(3):
            await until(released(children, number), "it was not released")
            children.end(number)
            await handle.signal("look_again")
        assert (await handle.result()).summary == "3 succeeded"


async def test_a_cancelled_batch_cancels_what_has_not_ended(client: Client) -> None:
    children, diary = Children(10, at_once=2, by_themselves=False), Diary()
    async with running(client, children, diary, NEVER_S) as handle:
        await until(so(lambda: children.looks >= 1), "it never looked")
        children.end(0)
        await handle.cancel()
        outcome = await handle.result()
    assert outcome.state is OperationState.CANCELLED
    assert outcome.summary == "8 cancelled before they began, 1 asked to cancel"
    assert children.states == ["succeeded"] + ["cancelled"] * 9


async def test_a_paused_batch_releases_nothing_until_it_is_resumed(client: Client) -> None:
    children, diary = Children(4, at_once=2, by_themselves=False), Diary()
    async with running(client, children, diary, NEVER_S) as handle:
        await until(so(lambda: children.looks >= 1), "it never looked")
        await handle.signal("pause")
        await until(so(lambda: diary.entries[-1:] == ["paused"]), "it was not paused")
        looks = children.looks
        children.end(0)
        children.end(1)
        await handle.signal("look_again")
        await seen(handle)
        assert (children.looks, children.states.count("held")) == (looks, 2)
        await handle.signal("resume")
        await until(so(lambda: "held" not in children.states), "it did not go on")
        children.end(2)
        children.end(3)
        await handle.signal("look_again")
        assert (await handle.result()).summary == "4 succeeded"
    assert diary.entries == ["running", "paused", "running", "succeeded"]


async def test_a_paused_batch_can_be_cancelled(client: Client) -> None:
    children, diary = Children(4, at_once=2, by_themselves=False), Diary()
    async with running(client, children, diary, NEVER_S) as handle:
        await handle.signal("pause")
        await until(so(lambda: diary.entries[-1:] == ["paused"]), "it was not paused")
        await handle.cancel()
        outcome = await handle.result()
    assert outcome.state is OperationState.CANCELLED
    assert diary.entries[-1] == "cancelled"


async def test_a_long_batch_continues_as_new_and_neither_loses_nor_doubles_a_child(
    temporal_program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = {"limit.historyCount.suggestContinueAsNew": "30"}
    monkeypatch.setattr(
        temporal_server, "DYNAMIC_CONFIG", {**temporal_server.DYNAMIC_CONFIG, **short}
    )
    server = DevServer(DevServerOptions(temporal_program, tmp_path / "t.db", tmp_path / "t.log"))
    children, diary = Children(60, at_once=1, by_themselves=False), Diary()
    async with server:
        client = await Client.connect(
            server.address, data_converter=pydantic_data_converter, namespace="default"
        )
        async with running(client, children, diary, NEVER_S) as handle:
            for number in range(60):
                await until(released(children, number), f"{number} was not released")
                children.end(number)
                await handle.signal("look_again")
            outcome = await handle.result()
    assert outcome.summary == "60 succeeded"
    assert set(children.releases.values()) == {1}
    assert diary.entries.count("running") >= 3
