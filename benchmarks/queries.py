"""Lists at 25,000 VMs and 1,000 hosts: a page of 100, by each way to ask for one.

Every run asks for another page, host or name. A query is measured as the API asks it: through the
backend, in a transaction of its own, with the views made.
"""

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from benchmarks.databases import KINDS, measured
from benchmarks.datacentre import HOSTS, PRINCIPALS, VMS, DataCentre
from benchmarks.figures import Figure, not_measured, spread
from domain.inventory import HostState, VmState
from domain.operations import OperationState
from engine.backend import Backend
from engine.clock import utc_now
from engine.queries.base import QueryParams
from engine.queries.events import AuditEvents, ListEvents
from engine.queries.incidents import ListIncidents
from engine.queries.inventory import GetHost, GetVm, ListClusters, ListHosts, ListVms
from engine.queries.operations import ListOperations
from engine.queries.pages import written
from engine.registry import all_queries
from store.database import Database
from store.ids import new_id

WARM = 5
RUNS = 200
P99_MAX_MS = 50.0
Asking = Callable[[DataCentre], QueryParams]


def _vm_page(centre: DataCentre, **filters: object) -> QueryParams:
    after = written(f"vm-{centre.random.randrange(VMS):05}", new_id())
    return ListVms.model_validate({"cursor": after} | filters)


def _host_page(centre: DataCentre, **filters: object) -> QueryParams:
    after = written(f"host-{centre.random.randrange(HOSTS):04}", new_id())
    return ListHosts.model_validate({"cursor": after} | filters)


def _some(centre: DataCentre, kind: str) -> object:
    ids = {"vm": centre.vms, "host": centre.hosts, "cluster": centre.clusters}
    return centre.random.choice(ids[kind])


def _days(centre: DataCentre) -> object:
    return utc_now() - timedelta(days=centre.random.uniform(1, 29))


ASKED: dict[str, Asking] = {
    "clusters": lambda c: ListClusters(count=True),
    "hosts, any page": _host_page,
    "hosts of a cluster": lambda c: _host_page(c, cluster_id=_some(c, "cluster")),
    "hosts in a rare state": lambda c: ListHosts(state=HostState.NON_RESPONSIVE, count=True),
    "VMs, any page": _vm_page,
    "VMs of a cluster": lambda c: _vm_page(c, cluster_id=_some(c, "cluster")),
    "VMs of a host": lambda c: ListVms.model_validate({"host_id": _some(c, "host")}),
    "VMs up": lambda c: _vm_page(c, state=VmState.UP),
    "VMs in a rare state": lambda c: ListVms(state=VmState.UNKNOWN),
    "VMs with a part of a name": lambda c: ListVms(name_contains=f"9{c.random.randrange(100):02}"),
    "VMs, counted": lambda c: _vm_page(c, count=True),
    "VMs down, counted": lambda c: _vm_page(c, state=VmState.DOWN, count=True),
    "VMs up, counted": lambda c: _vm_page(c, state=VmState.UP, count=True),
    "one VM": lambda c: GetVm.model_validate({"vm_id": _some(c, "vm")}),
    "one host": lambda c: GetHost.model_validate({"host_id": _some(c, "host")}),
    "operations": lambda c: ListOperations(cursor=written(c.random.choice(c.operations))),
    "operations in a state": lambda c: ListOperations(state=OperationState.FAILED, count=True),
    "operations on a VM": lambda c: ListOperations.model_validate({"target_id": _some(c, "vm")}),
    "incidents": lambda c: ListIncidents(count=True),
    "events, the stream": lambda c: ListEvents(after=c.random.randrange(99_000)),
    "audit of a VM": lambda c: AuditEvents.model_validate(
        {"entity_type": "vm", "entity_id": _some(c, "vm")}
    ),
    "audit of a time": lambda c: AuditEvents.model_validate({"until": _days(c)}),
    "audit of a person": lambda c: AuditEvents.model_validate(
        {"principal": c.random.choice(PRINCIPALS), "until": _days(c)}
    ),
}


async def measure(var: Path) -> list[Figure]:
    """One figure for each way to ask, on each database."""
    figures: list[Figure] = []
    for kind in KINDS:
        async with measured(kind, var / "queries.db") as database:
            if database is None:
                figures.append(not_measured(f"queries, {kind}", f"{kind} is not installed"))
                continue
            print(f"queries: {kind} is filled with {HOSTS} hosts and {VMS} VMs", flush=True)
            centre = await DataCentre().fill(database)
            figures += [await _asked(kind, database, centre, name) for name in ASKED]
    return figures


async def _asked(kind: str, database: Database, centre: DataCentre, name: str) -> Figure:
    backend, took_s = Backend(database, [], all_queries()), []
    for number in range(WARM + RUNS):
        params = ASKED[name](centre)
        began = time.perf_counter()
        await backend.run_query(params)
        if number >= WARM:
            took_s.append(time.perf_counter() - began)
        await asyncio.sleep(0)
    data = spread(took_s)
    value = f"p50 {data['p50']:.1f} ms, p99 {data['p99']:.1f} ms"
    met = data["p99"] <= P99_MAX_MS
    return Figure(f"{name} ({kind})", value, f"p99 ≤ {P99_MAX_MS:.0f} ms", met, data)
