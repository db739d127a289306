"""Real operations: 2,000 of class 5 queue at two slots, then one protected VM is to start.

The same queue, the same workflows, the same worker as in production; only its slots are two. The
first step of every start waits at a gate, so that what starts next depends on the server's order.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch
from uuid import UUID

import pytest
from temporalio import activity
from temporalio.worker import (
    ActivityInboundInterceptor,
    ExecuteActivityInput,
    Interceptor,
    UnsandboxedWorkflowRunner,
)
from temporalio.workflow import ActivityConfig

from domain.context import PriorityClass
from domain.operations import workflow_id
from engine.actions.vms import StartVm
from engine.backend import Options
from store.bulk import insert_many
from store.ids import new_id
from store.rows import Row
from store.schema import vm as vm_table
from tests.workflow.bench import PERSON, Bench, bench, quick
from tests.workflow.queues import Line
from tests.workflow.test_priorities_server import no_class
from tests.workflow.watcher import now
from worker.parts import operations_worker
from workflows.options import decide

pytestmark = pytest.mark.workflow

SLOTS = 2
AT_ONCE = 20
QUEUED = 2000
OVERTAKEN = "one that was queued before the protected VM's start went first"
"""What only the last assertion says: the other ones fail for reasons of their own."""


class Gate(Interceptor):
    """Lets no `guest.place` through before it is opened, and keeps the order of their arrival."""

    def __init__(self) -> None:
        self.arrived: list[UUID] = []
        self.open = asyncio.Semaphore(0)

    async def passed(self, made: Bench, count: int) -> None:
        """Wait until so many have come."""

        async def so() -> bool:
            return len(self.arrived) >= count

        await made.until(so, f"only {len(self.arrived)} of {count} steps ever started")

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002
        """Wrap the next interceptor."""
        return _AtTheGate(next, self)


class _AtTheGate(ActivityInboundInterceptor):
    def __init__(self, following: ActivityInboundInterceptor, gate: Gate) -> None:
        super().__init__(following)
        self._gate = gate

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002
        if activity.info().activity_type == "guest.place":
            self._gate.arrived.append(input.args[0].vm_id)
            await self._gate.open.acquire()
        return await self.next.execute_activity(input)


async def add_vms(made: Bench, number: int) -> list[UUID]:
    """So many small unprotected VMs."""
    plain: Row = {"cluster_id": made.cluster_id, "memory_mib": 16}
    rows = [
        plain | {"id": new_id(), "name": f"batch-{n}", "protected": False, "created_at": now()}
        for n in range(number)
    ]
    for row in rows:
        row["spec"] = {"disks": [], "boot": None}
    await made.write(lambda connection: insert_many(connection, vm_table, rows))
    return [row["id"] for row in rows]


async def queue_behind(made: Bench, vms: list[UUID]) -> None:
    """Ask for the start of all of them, as unurgent as can be."""
    turn = asyncio.Semaphore(AT_ONCE)
    unurgent = Options(priority=PriorityClass.INVENTORY)

    async def one(vm_id: UUID) -> None:
        async with turn:
            await made.backend.run_action(StartVm(vm_id=vm_id), PERSON, options=unurgent)
            await made.backend.close()

    await asyncio.gather(*(one(vm_id) for vm_id in vms))


@asynccontextmanager
async def roomy(address: str, migrated: Path, folder: Path) -> AsyncIterator[Bench]:
    """An engine with room for everything, and no worker yet."""
    with quick():
        async with bench(address, migrated, folder) as made:
            await made.build("h1", "h2", "h3", memory_mib=1024 * 1024)
            yield made


@asynccontextmanager
async def two_slots(made: Bench, gate: Gate) -> AsyncIterator[None]:
    """The engine's worker with two slots; its gate is opened at the end.

    Its workflows run outside of the sandbox, so that the limit of their first step, which waits at
    the gate, can be patched: on a slow machine queueing takes longer than it.
    """
    with (
        patch("worker.parts.sandbox", UnsandboxedWorkflowRunner),
        patch("workflows.options.decide", patient),
    ):
        worker = operations_worker(
            made.client, made.parts, steps_at_once=SLOTS, interceptors=[gate], cached_workflows=3000
        )
        async with worker:
            yield
            for _ in range(10_000):
                gate.open.release()


def patient(summary: str) -> ActivityConfig:
    """The options of steps that decide, with a limit that is never reached here."""
    return decide(summary) | {
        "start_to_close_timeout": timedelta(minutes=10),
        "heartbeat_timeout": None,
    }


async def the_protected_vm_is_next(made: Bench, queued: int) -> None:
    """Queue so many starts of class 5, then ask for a protected VM's."""
    gate, line = Gate(), Line(made.client)
    # The worker comes later: until then nothing runs, and accepting goes faster.
    await queue_behind(made, await add_vms(made, queued))
    async with two_slots(made, gate):
        await line.waits(queued - SLOTS)
        urgent = await made.add_vm("db", memory_mib=16)
        operation = await made.start("db")
        assert (await made.operation(operation))["priority"] == PriorityClass.PROTECTED
        await line.scheduled(workflow_id(operation, 1), 1)
        await line.waits(queued - SLOTS + 1)
        assert len(gate.arrived) == SLOTS
        gate.open.release()
        await gate.passed(made, SLOTS + 1)
        assert gate.arrived[SLOTS] == urgent, OVERTAKEN


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_a_protected_vms_start_goes_before_2000_operations_of_class_5(
    temporal_address: str, migrated: Path, tmp_path: Path
) -> None:
    async with roomy(temporal_address, migrated, tmp_path) as made:
        await the_protected_vm_is_next(made, queued=QUEUED)


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_with_the_priority_keys_patched_away_it_has_to_wait(
    temporal_address: str, migrated: Path, tmp_path: Path
) -> None:
    with patch("worker.temporal_client.Priority", no_class):
        async with roomy(temporal_address, migrated, tmp_path) as made:
            with pytest.raises(AssertionError, match=OVERTAKEN):
                await the_protected_vm_is_next(made, queued=QUEUED)
