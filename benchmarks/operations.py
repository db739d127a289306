"""A one-step operation from request to end, against the same step as a bare Temporal workflow.

Both run in turn on one dev server with a database file, the same worker settings and the same
step code (`guest.end`, with its database write, on a host that does nothing). The operation adds
what the engine is for: the action's transaction, outbox, claim, step row, event, close.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from temporalio.client import Client
from temporalio.worker import Worker

from activities.guests import GuestOrder, Guests
from benchmarks.bare import QUEUE, BareStop
from benchmarks.figures import Figure, percentile, spread
from benchmarks.inventory import Inventory
from benchmarks.quiet_host import QuietHypervisor, SilentPower
from domain.context import ActionContext
from domain.operations import workflow_id
from engine.actions.vms import StopVm, StopVmAction
from engine.backend import Backend
from engine.delivery import Delivery
from engine.queries.operations import GetOperationQuery
from engine.records.runs import RunRecords
from store import operations
from store.database import Database
from worker.parts import Parts, operations_worker, sandbox
from worker.temporal_client import TemporalWorkflows, connect
from worker.temporal_server import running_temporal

RUNS = 60
WARM = 10
RATIO_MAX = 2.0
CONTEXT = ActionContext(principal="benchmark", correlation_id="benchmark")


@dataclass
class Bench:
    """Everything that both kinds of run need."""

    client: Client
    database: Database
    backend: Backend
    inventory: Inventory

    async def operation(self) -> tuple[float, UUID]:
        """Seconds from the request to the end of one operation, and which it was."""
        vm_id, _run = await self.inventory.running_vm()
        began = time.perf_counter()
        receipt = await self.backend.run_action(StopVm(vm_id=vm_id, force=True), CONTEXT)
        await self.backend.close()
        await self.client.get_workflow_handle(workflow_id(receipt.operation_id, 1)).result()
        return time.perf_counter() - began, receipt.operation_id

    async def bare(self) -> float:
        """Seconds of the bare workflow."""
        _vm_id, run = await self.inventory.running_vm()
        order = GuestOrder(run=run, deadline_s=10.0)
        began = time.perf_counter()
        await self.client.execute_workflow(
            BareStop.run, order, id=f"bare/{run.run_id}", task_queue=QUEUE
        )
        return time.perf_counter() - began


async def measure(var: Path) -> list[Figure]:
    """Both figures, from runs that take turns."""
    bare_s, whole_s, starts_s = [], [], []
    async with _bench(var) as bench:
        print(f"operations: {RUNS} runs each, in turn", flush=True)
        for number in range(WARM + RUNS):
            bare = await bench.bare()
            whole, operation_id = await bench.operation()
            start = await _start_s(bench.database, operation_id)
            if number >= WARM:
                bare_s.append(bare)
                whole_s.append(whole)
                starts_s.append(start)
            if number % 20 == 19:
                print(f"  {number + 1} of {WARM + RUNS}", flush=True)
    return [_started(starts_s), *_compared(bare_s, whole_s)]


def _started(starts_s: list[float]) -> Figure:
    data = spread(starts_s)
    value = f"p50 {data['p50']:.1f} ms, p99 {data['p99']:.1f} ms"
    return Figure("accepted → claimed by its workflow", value, data=data)


def _compared(bare_s: list[float], whole_s: list[float]) -> list[Figure]:
    figures = []
    for name, seconds in (("one step, bare workflow", bare_s), ("one-step operation", whole_s)):
        data = spread(seconds)
        figures.append(
            Figure(name, f"p50 {data['p50']:.1f} ms, p99 {data['p99']:.1f} ms", data=data)
        )
    ratio = percentile(whole_s, 0.5) / percentile(bare_s, 0.5)
    met = ratio <= RATIO_MAX
    data = {"ratio": round(ratio, 3)}
    target = f"≤ {RATIO_MAX:.0f}"
    return [*figures, Figure("operation / bare (medians)", f"{ratio:.2f}", target, met, data)]


async def _start_s(database: Database, operation_id: UUID) -> float:
    row = await database.read(lambda c: operations.get(c, operation_id))
    assert row is not None
    assert row["state"] == "succeeded", row["problem"]
    took: float = (row["started_at"] - row["created_at"]).total_seconds()
    return took


@asynccontextmanager
async def _bench(var: Path) -> AsyncIterator[Bench]:
    async with AsyncExitStack() as stack:
        print("operations: a Temporal dev server starts", flush=True)
        endpoint = await stack.enter_async_context(running_temporal(var, os.environ, print))
        client = await connect(endpoint.address)
        inventory = await Inventory.create(var / "operations.db", virt_type="test")
        database = inventory.database
        stack.push_async_callback(database.close)
        await inventory.add_hosts([("quiet", "test:///default")])
        parts = Parts(database, Backend(database, [], []), QuietHypervisor(), SilentPower())
        guests = Guests(parts.hypervisor, RunRecords(database))
        bare = Worker(
            client,
            task_queue=QUEUE,
            workflows=[BareStop],
            activities=[guests.end],
            workflow_runner=sandbox(),
        )
        await stack.enter_async_context(bare)
        await stack.enter_async_context(operations_worker(client, parts, steps_at_once=32))
        delivery = Delivery(database, TemporalWorkflows(client))
        backend = Backend(database, [StopVmAction()], [GetOperationQuery()], delivery)
        yield Bench(client, database, backend, inventory)
        await asyncio.sleep(0)
