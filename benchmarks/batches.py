"""A thousand VM starts in one request, against the bare SQL that they need.

The bare run sends the very statements and values that a batch has sent, recorded in a transaction
that was rolled back, straight to the driver: no model, no judgement, no statement made by
SQLAlchemy. Both kinds take turns in one run, in a data centre of 25,000 VMs; what they have written
is deleted in between (events stay: nobody may delete those).
"""

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from benchmarks.bare_sql import bare, recorded
from benchmarks.databases import KINDS, measured
from benchmarks.datacentre import DataCentre
from benchmarks.figures import Figure, not_measured, percentile, spread
from domain.context import ActionContext
from engine.actions.vms import StartVm, StartVmAction
from engine.backend import Backend
from store.database import Database
from store.schema import entity_lock, operation, outbox

STARTS = 1_000
RUNS, WARM = 9, 2
RATIO_MAX = 3.0
CONTEXT = ActionContext(principal="benchmark", correlation_id="benchmark")


async def measure(var: Path) -> list[Figure]:
    """The ratio on each database."""
    figures: list[Figure] = []
    for kind in KINDS:
        async with measured(kind, var / "batches.db") as database:
            if database is None:
                figures.append(not_measured(f"a batch, {kind}", f"{kind} is not installed"))
                continue
            centre = await DataCentre().fill(database)
            print(f"batches: {RUNS} of {STARTS} starts each on {kind}, in turn", flush=True)
            figures += await _compared(kind, database, centre.down[:STARTS])
    return figures


async def _compared(kind: str, database: Database, vm_ids: Sequence[UUID]) -> list[Figure]:
    backend = Backend(database, [StartVmAction()], [])
    batch_s, bare_s = [], []
    for number in range(WARM + RUNS):
        whole = await _batch(backend, vm_ids)
        await _cleaned(database)
        sent = await recorded(database, partial(_batch, backend, vm_ids))
        alone = await bare(database, sent)
        await _cleaned(database)
        if number >= WARM:
            batch_s.append(whole)
            bare_s.append(alone)
    figures = []
    for what, seconds in ((f"{STARTS} starts in a batch", batch_s), ("their bare SQL", bare_s)):
        data = spread(seconds)
        value = f"p50 {data['p50']:.0f} ms, max {data['max']:.0f} ms"
        figures.append(Figure(f"{what}, {kind}", value, data=data))
    ratio = percentile(batch_s, 0.5) / percentile(bare_s, 0.5)
    data, target = {"ratio": round(ratio, 3)}, f"≤ {RATIO_MAX:.0f}"
    name = f"batch / bare SQL, {kind}"
    return [*figures, Figure(name, f"{ratio:.2f}", target, ratio <= RATIO_MAX, data)]


async def _batch(backend: Backend, vm_ids: Sequence[UUID]) -> float:
    items = [StartVm(vm_id=vm_id) for vm_id in vm_ids]
    began = time.perf_counter()
    receipt = await backend.run_multiple_actions(items, CONTEXT)
    took = time.perf_counter() - began
    assert receipt.accepted == STARTS, receipt
    return took


async def _cleaned(database: Database) -> None:
    async def work(connection: AsyncConnection) -> None:
        mine = sa.select(operation.c.id).where(operation.c.principal == CONTEXT.principal)
        for table in (entity_lock, outbox):
            await connection.execute(table.delete().where(table.c.operation_id.in_(mine)))
        ours = operation.c.principal == CONTEXT.principal
        children = operation.c.parent_id.is_not(None)
        await connection.execute(operation.delete().where(ours, children))
        await connection.execute(operation.delete().where(ours))

    await database.write(work)
    await database.checkpoint()
