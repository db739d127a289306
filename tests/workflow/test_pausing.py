"""Pause and resume on a real server, over fake steps: where it holds, and where it is too late."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio
from temporalio import activity
from temporalio.client import Client, WorkflowHandle
from temporalio.worker import Worker

from activities.operations import Operations
from domain.context import ActionContext
from domain.inventory import GuestSpec, VirtType
from domain.operations import OperationState, Order, Outcome
from domain.orders import (
    ActivateHostOrder,
    HostRef,
    Placement,
    Reconciliation,
    RunRef,
    StartVmOrder,
    StopVmOrder,
)
from domain.profiles import Policy
from tests.workflow.batches import Diary
from tests.workflow.bench import client_in
from tests.workflow.queues import until
from worker.parts import sandbox
from workflows import options
from workflows.activate_host import ActivateHost
from workflows.start_vm import StartVm
from workflows.stop_vm import StopVm

pytestmark = pytest.mark.workflow

POLICY = Policy(capacity_retry_s=3600)
CONTEXT = ActionContext(principal="ann", correlation_id="test")
HOST = HostRef(host_id=uuid4(), name="h1", uri="test:///", epoch=1)

Step = Callable[..., Any]


@pytest_asyncio.fixture
async def client(temporal_address: str) -> Client:
    return await client_in(temporal_address, f"pause-{uuid4().hex[:12]}")


class Steps:
    """Steps that write down that they began, and answer as they were told."""

    def __init__(self, **answers: Any) -> None:
        self.began: list[str] = []
        self.answers = answers
        self.diary = Diary()

    @asynccontextmanager
    async def worker(self, client: Client) -> AsyncIterator[None]:
        operations = Operations(self.diary)
        own: list[Step] = [operations.claim, operations.wait, operations.pause, operations.close]
        async with Worker(
            client,
            task_queue=options.OPERATIONS,
            workflows=[StartVm, StopVm, ActivateHost],
            activities=[*own, *(self._step(name) for name in self.answers)],
            workflow_runner=sandbox(),
        ):
            yield

    def _step(self, name: str) -> Step:
        @activity.defn(name=name.replace("__", "."))
        async def step(order: dict[str, Any]) -> Any:
            self.began.append(name)
            return self.answers[name]

        return step


async def started(client: Client, workflow: str, order: Order) -> WorkflowHandle[Any, Any]:
    return await client.start_workflow(
        workflow,
        order,
        id=f"op/{order.operation_id}/1",
        task_queue=options.OPERATIONS,
        result_type=Outcome,
    )


def a_start() -> StartVmOrder:
    return StartVmOrder(
        operation_id=uuid4(), context=CONTEXT, policy=POLICY, vm_id=uuid4(), vm_name="db"
    )


def a_stop() -> StopVmOrder:
    operation_id, vm_id = uuid4(), uuid4()
    run = RunRef(
        run_id=uuid4(),
        operation_id=operation_id,
        host_id=HOST.host_id,
        host_name=HOST.name,
        uri=HOST.uri,
        epoch=1,
        generation=1,
        spec=GuestSpec(vm_id=vm_id, name="db", memory_mib=64, vcpus=1, virt_type=VirtType.TEST),
    )
    return StopVmOrder(
        operation_id=operation_id,
        context=CONTEXT,
        policy=POLICY,
        vm_id=vm_id,
        vm_name="db",
        run=run,
        force=True,
    )


def last(steps: Steps, entry: str) -> Callable[[], Awaitable[bool]]:
    async def said() -> bool:
        return steps.diary.entries[-1:] == [entry]

    return said


@pytest.mark.parametrize(
    ("workflow", "order", "first", "answer"),
    [
        ("StartVm", a_start, "guest__place", Placement(already_running=True)),
        ("StopVm", a_stop, "guest__end", "gone from h1"),
    ],
    ids=["start", "stop"],
)
async def test_a_paused_operation_does_nothing_until_it_is_resumed(
    client: Client, workflow: str, order: Callable[[], Order], first: str, answer: Any
) -> None:
    steps = Steps(**{first: answer})
    handle = await started(client, workflow, order())
    await handle.signal("pause")
    async with steps.worker(client):
        await until(last(steps, "paused"), "it was not paused")
        assert steps.began == []
        await handle.signal("resume")
        outcome = await handle.result()
    assert outcome.state is OperationState.SUCCEEDED
    assert steps.began == [first]
    assert steps.diary.entries == ["running", "paused", "running", "succeeded"]


async def test_a_start_that_waits_for_room_can_stand_still(client: Client) -> None:
    steps = Steps(guest__place=Placement(no_room="no host has 64 MiB"))
    async with steps.worker(client):
        handle = await started(client, "StartVm", a_start())
        await until(last(steps, "waiting: NO_ROOM"), "it never waited")
        await handle.signal("pause")
        await until(last(steps, "paused"), "it was not paused")
        steps.answers["guest__place"] = Placement(already_running=True)
        await handle.signal("look_again")
        await handle.signal("resume")
        assert (await handle.result()).state is OperationState.SUCCEEDED
    assert steps.began == ["guest__place"] * 2
    assert steps.diary.entries[-4:] == ["paused", "running", "running", "succeeded"]


async def test_a_paused_start_that_is_cancelled_is_undone_and_never_goes_on(client: Client) -> None:
    steps = Steps(guest__withdraw="nothing was started")
    handle = await started(client, "StartVm", a_start())
    await handle.signal("pause")
    async with steps.worker(client):
        await until(last(steps, "paused"), "it was not paused")
        await handle.cancel()
        outcome = await handle.result()
    assert (outcome.state, outcome.summary) == (OperationState.CANCELLED, "nothing was started")
    assert steps.diary.entries == ["running", "paused", "cancelled"]


async def test_a_pause_that_is_taken_back_in_time_is_never_seen(client: Client) -> None:
    steps = Steps(guest__place=Placement(already_running=True))
    handle = await started(client, "StartVm", a_start())
    await handle.signal("pause")
    await handle.signal("resume")
    async with steps.worker(client):
        await handle.result()
    assert steps.diary.entries == ["running", "succeeded"]


async def test_an_operation_that_cannot_pause_lets_the_signals_pass(client: Client) -> None:
    steps = Steps(host__await_answer=None, host__reconcile=Reconciliation(), host__admit=2)
    order = ActivateHostOrder(
        operation_id=uuid4(), context=CONTEXT, policy=POLICY, host=HOST, power_on=False
    )
    handle = await started(client, "ActivateHost", order)
    await handle.signal("pause")
    async with steps.worker(client):
        outcome = await handle.result()
    assert outcome.summary == "h1 is up with epoch 2"
    assert steps.diary.entries == ["running", "succeeded"]
