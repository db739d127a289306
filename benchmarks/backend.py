"""An action through the one door, against the bare SQL it needs.

The bare run sends the very statements and values that the action sent, recorded in a transaction
that was rolled back, through the same `Database`: what is measured is the engine's own work, from
validation to audit, and SQLAlchemy's. Both kinds take turns in one run.
"""

import time
from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path

from benchmarks.bare_sql import bare, recorded
from benchmarks.databases import KINDS, measured
from benchmarks.datacentre import DataCentre
from benchmarks.figures import Figure, not_measured, percentile, spread
from domain.context import ActionContext
from engine.actions.base import Params
from engine.actions.vm_config import CreateVm, CreateVmAction
from engine.actions.vms import StartVm, StartVmAction
from engine.backend import Backend
from store.database import Database

WARM = 20
RUNS = 300
CONTEXT = ActionContext(principal="benchmark", correlation_id="benchmark")


async def measure(var: Path) -> list[Figure]:
    """The ratio of each action, on each database."""
    figures: list[Figure] = []
    for kind in KINDS:
        async with measured(kind, var / "backend.db") as database:
            if database is None:
                figures.append(not_measured(f"run_action, {kind}", f"{kind} is not installed"))
                continue
            centre = await DataCentre().fill(database)
            print(f"backend: {RUNS} actions each on {kind}, in turn", flush=True)
            for asked in (_creates(centre), _starts(centre)):
                figures += await _compared(kind, database, asked)
    return figures


def _creates(centre: DataCentre) -> Iterator[Params]:
    for number in count(1):
        name, cluster_id = f"more-{number:05}", centre.random.choice(centre.clusters)
        yield CreateVm(cluster_id=cluster_id, name=name, memory_mib=64)


def _starts(centre: DataCentre) -> Iterator[Params]:
    for vm_id in centre.down:
        yield StartVm(vm_id=vm_id)


async def _compared(kind: str, database: Database, asked: Iterator[Params]) -> list[Figure]:
    backend = Backend(database, [CreateVmAction(), StartVmAction()], [])
    action_s, bare_s, statements = [], [], 0
    name = ""
    for number in range(WARM + RUNS):
        params = next(asked)
        name = type(params).__name__
        whole = await _action(backend, params)
        sent = await recorded(database, partial(backend.run_action, next(asked), CONTEXT))
        alone = await bare(database, sent)
        statements = len(sent)
        if number >= WARM:
            action_s.append(whole)
            bare_s.append(alone)
    figures = []
    for what, seconds in ((f"run_action({name})", action_s), (f"bare SQL of {name}", bare_s)):
        data = spread(seconds) | {"statements": float(statements)}
        value = f"p50 {data['p50']:.2f} ms, p99 {data['p99']:.2f} ms"
        figures.append(Figure(f"{what}, {kind}", value, data=data))
    ratio = percentile(action_s, 0.5) / percentile(bare_s, 0.5)
    data = {"ratio": round(ratio, 3)}
    return [*figures, Figure(f"run_action / bare, {name}, {kind}", f"{ratio:.2f}", data=data)]


async def _action(backend: Backend, params: Params) -> float:
    began = time.perf_counter()
    await backend.run_action(params, CONTEXT)
    return time.perf_counter() - began
