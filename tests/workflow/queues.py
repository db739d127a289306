"""A line at the slots of a worker: bare operations of one or more steps, and the order they start.

Everything is enqueued through the product's own `TemporalWorkflows.start`, on its own queue, in a
namespace of the line's own. The steps of a line do nothing but wait at a gate, so that who starts
next depends on the server's queues alone.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import uuid4

from temporalio import activity, workflow
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue, TaskQueueStats
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client
from temporalio.worker import UnsandboxedWorkflowRunner, Worker, WorkerTuner

from tests.workflow.bench import client_in
from worker.temporal_client import TemporalWorkflows
from workflows import options

WAIT_S = 300.0
"""Far more than anything here takes: a test that reaches it has found something."""

SETTLED = timedelta(seconds=0.5)
STEP_LIMIT = timedelta(minutes=10)


@workflow.defn(name="Bare")
class Bare:
    """As many steps as asked for, one after the other."""

    @workflow.run
    async def run(self, order: dict[str, Any]) -> None:
        """Run the steps."""
        for number in range(order["steps"]):
            await workflow.execute_activity(
                "line.step",
                f"{order['name']}.{number}",
                result_type=str,
                start_to_close_timeout=STEP_LIMIT,
            )


class Line:
    """The operations queued at one worker's slots; see the module."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.workflows = TemporalWorkflows(client)
        self.started: list[str] = []
        self._places = asyncio.Semaphore(0)

    @activity.defn(name="line.step")
    async def step(self, name: str) -> str:
        """Take a slot until it is let go."""
        self.started.append(name)
        await self._places.acquire()
        return name

    def let_go(self, steps: int = 1) -> None:
        """Let this many steps end, of those that run now or later."""
        for _ in range(steps):
            self._places.release()

    async def enqueue(self, name: str, priority: int, fairness: str = "c1", steps: int = 1) -> str:
        """Start one bare operation as the relay would; its workflow id."""
        order = {"context": {}, "name": name, "steps": steps}
        await self.workflows.start(
            "Bare", order, wid=name, priority=priority, fairness=fairness, summary=name
        )
        return name

    async def enqueue_many(self, names: list[str], priority: int, fairness: str = "c1") -> None:
        """Start many, a few at a time."""
        at_once = asyncio.Semaphore(20)

        async def one(name: str) -> None:
            async with at_once:
                await self.enqueue(name, priority, fairness)

        await asyncio.gather(*(one(name) for name in names))

    async def waits(
        self,
        steps: int,
        priority: int | None = None,
        kind: TaskQueueType.ValueType = TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY,
    ) -> None:
        """Wait until so many steps, of one class or in all, are in the queue and settled.

        The server counts anew every five seconds only, and what it has counted may still be on its
        way into the order; half a second is ten times what that was seen to take.
        """

        async def so() -> bool:
            found = [each for key, each in await self._stats(kind) if priority in (None, key)]
            counted = sum(each.approximate_backlog_count for each in found)
            ages = [each.approximate_backlog_age.ToTimedelta() for each in found]
            return counted >= steps and min(ages) >= SETTLED

        await until(so, f"the queue never held {steps} steps")

    async def _stats(self, kind: TaskQueueType.ValueType) -> list[tuple[int, TaskQueueStats]]:
        """The classes of which something is queued."""
        request = DescribeTaskQueueRequest(
            namespace=self.client.namespace,
            task_queue=TaskQueue(name=options.OPERATIONS),
            task_queue_type=kind,
            report_stats=True,
        )
        answer = await self.client.workflow_service.describe_task_queue(request)
        found = answer.stats_by_priority_key.items()
        return [(key, each) for key, each in found if each.approximate_backlog_count]

    async def scheduled(self, wid: str, steps: int) -> None:
        """Wait until an operation has scheduled so many steps in all."""

        async def so() -> bool:
            history = await self.client.get_workflow_handle(wid).fetch_history()
            kinds = [event.WhichOneof("attributes") for event in history.events]
            return kinds.count("activity_task_scheduled_event_attributes") >= steps

        await until(so, f"{wid} never scheduled {steps} steps")

    async def next(self, behind: int, count: int = 1) -> list[str]:
        """Which steps start next, of those that had not when `behind` had."""

        async def so() -> bool:
            return len(self.started) >= behind + count

        await until(so, f"only {len(self.started) - behind} of {count} steps started")
        return self.started[behind : behind + count]

    @asynccontextmanager
    async def worker(self, slots: int, workflows: int = 50) -> AsyncIterator[None]:
        """A worker with so many slots for steps; those that still run at the end are let go."""
        tuner = WorkerTuner.create_fixed(workflow_slots=workflows, activity_slots=slots)
        async with Worker(
            self.client,
            task_queue=options.OPERATIONS,
            workflows=[Bare],
            activities=[self.step],
            workflow_runner=UnsandboxedWorkflowRunner(),
            tuner=tuner,
            max_cached_workflows=3000,
        ):
            yield


@asynccontextmanager
async def line(address: str) -> AsyncIterator[Line]:
    """A line in a namespace of its own."""
    yield Line(await client_in(address, f"line-{uuid4().hex[:12]}"))


async def until(holds: Callable[[], Awaitable[bool]], else_: str) -> None:
    """Wait until a condition holds; AssertionError after far too long."""
    clock = asyncio.get_running_loop().time
    end = clock() + WAIT_S
    while not await holds():
        assert clock() < end, else_
        await asyncio.sleep(0.05)
