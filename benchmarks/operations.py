"""A one-step operation from request to end, against the same step as a bare Temporal workflow.

Both run in turn on one dev server with a database file, the same worker settings and the same
step code (`guest.end`, with its database write, on a host that does nothing). The operation adds
what the engine is for: the action's transaction, outbox, claim, step row, event, close.

A workflow has started when Temporal has written its first event, and is claimed when its first step
has marked the operation as running. Both are times of one machine's clock.
"""

import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from temporalio.client import Client
from temporalio.worker import Worker

from activities.guests import GuestOrder, Guests
from benchmarks.bare import QUEUE, BareStop
from benchmarks.databases import KINDS, measured
from benchmarks.figures import Figure, not_measured, percentile, spread
from benchmarks.inventory import Inventory
from benchmarks.quiet_host import QuietHypervisor, SilentPower, SilentSsh
from domain.context import ActionContext
from domain.operations import workflow_id
from drivers.tcp_doors import TcpDoors
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

    async def waited_s(self, operation_id: UUID) -> tuple[float, float]:
        """Seconds from its acceptance until its workflow was started, and until it was claimed."""
        row = await self.database.read(lambda c: operations.get(c, operation_id))
        assert row is not None
        assert row["state"] == "succeeded", row["problem"]
        handle = self.client.get_workflow_handle(workflow_id(operation_id, 1))
        started = (await handle.describe()).start_time
        since = row["created_at"]
        return (started - since).total_seconds(), (row["started_at"] - since).total_seconds()

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
    figures: list[Figure] = []
    async with _temporal(var) as client:
        for kind in KINDS:
            async with measured(kind, var / "operations.db") as database:
                if database is None:
                    figures.append(not_measured(f"operations, {kind}", f"{kind} is not installed"))
                    continue
                async with _bench(client, database) as bench:
                    figures += await _runs(kind, bench)
    return figures


async def _runs(kind: str, bench: Bench) -> list[Figure]:
    bare_s, whole_s, started_s, claimed_s = [], [], [], []
    print(f"operations: {kind}, {RUNS} runs each, in turn", flush=True)
    for number in range(WARM + RUNS):
        bare = await bench.bare()
        whole, operation_id = await bench.operation()
        started, claimed = await bench.waited_s(operation_id)
        if number >= WARM:
            bare_s.append(bare)
            whole_s.append(whole)
            started_s.append(started)
            claimed_s.append(claimed)
        if number % 20 == 19:
            print(f"  {number + 1} of {WARM + RUNS}", flush=True)
    return [
        _timed(f"accepted → workflow started ({kind})", started_s),
        _timed(f"accepted → claimed by its workflow ({kind})", claimed_s),
        *_compared(kind, bare_s, whole_s),
    ]


def _timed(name: str, seconds: list[float]) -> Figure:
    data = spread(seconds)
    return Figure(name, f"p50 {data['p50']:.1f} ms, p99 {data['p99']:.1f} ms", data=data)


def _compared(kind: str, bare_s: list[float], whole_s: list[float]) -> list[Figure]:
    figures = [
        _timed(f"one step, bare workflow ({kind})", bare_s),
        _timed(f"one-step operation ({kind})", whole_s),
    ]
    ratio = percentile(whole_s, 0.5) / percentile(bare_s, 0.5)
    met = ratio <= RATIO_MAX
    data = {"ratio": round(ratio, 3)}
    target = f"≤ {RATIO_MAX:.0f}"
    return [
        *figures,
        Figure(f"operation / bare (medians, {kind})", f"{ratio:.2f}", target, met, data),
    ]


@asynccontextmanager
async def _temporal(var: Path) -> AsyncIterator[Client]:
    print("operations: a Temporal dev server starts", flush=True)
    async with running_temporal(var, os.environ, print) as endpoint:
        yield await connect(endpoint.address)


@asynccontextmanager
async def _bench(client: Client, database: Database) -> AsyncIterator[Bench]:
    inventory = await Inventory.within(database, virt_type="test")
    await inventory.add_hosts([("quiet", "test:///default")])
    outside = (QuietHypervisor(), SilentPower(), TcpDoors(), SilentSsh())
    parts = Parts(database, Backend(database, [], []), *outside)
    guests = Guests(parts.hypervisor, RunRecords(database, parts.backend))
    bare = Worker(
        client,
        task_queue=QUEUE,
        workflows=[BareStop],
        activities=[guests.end],
        workflow_runner=sandbox(),
    )
    async with bare, operations_worker(client, parts, steps_at_once=32):
        delivery = Delivery(database, TemporalWorkflows(client))
        backend = Backend(database, [StopVmAction()], [GetOperationQuery()], delivery)
        yield Bench(client, database, backend, inventory)
