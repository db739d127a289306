"""A whole engine on a test bench: real store, actions, delivery and workers; a fake data centre.

Each bench has a Temporal namespace and a database file of its own, so the fixed queue names do not
collide and a workflow that a failed test left behind meets no worker of the next one. Only the
outside world is fake, and the durations are short.
"""

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch
from uuid import UUID, uuid4

from sqlalchemy.ext.asyncio import AsyncConnection
from temporalio.api.workflowservice.v1 import RegisterNamespaceRequest
from temporalio.client import Client, WorkflowHandle
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.worker import Interceptor

from domain.context import ActionContext, PriorityClass
from domain.hosts import HostEvent
from domain.operations import OPEN_STATES, workflow_id
from domain.profiles import Policy, Timing
from engine.actions.base import Params
from engine.actions.clusters import ArmCluster, CreateCluster
from engine.actions.hosts import ActivateHost, RecoverHost
from engine.actions.maintain_host import MaintainHost
from engine.actions.migrate_vm import MigrateVm
from engine.actions.vm_config import CreateVm
from engine.actions.vms import StartVm, StopVm
from engine.backend import Backend
from engine.delivery import Delivery
from engine.registry import all_actions, all_queries
from simulator.no_secrets import NoSecrets
from store import hosts, inventory, operations, runs
from store.database import Database
from store.ids import new_id
from store.migrate import upgrade
from store.rows import Row, changed
from store.schema_ha import vm_run
from tests.fakes import DataCentre, FakeDomain, FakeDoors, FakeHypervisor, FakePower, FakeSsh
from tests.invariants import broken_invariants, read_facts
from tests.workflow.delivering import delivered
from tests.workflow.patience import LATE_BEATS
from tests.workflow.stuck import explained
from tests.workflow.watcher import Watcher, now
from worker.parts import Parts, fencing_worker, operations_worker
from worker.relay import relay
from worker.temporal_client import TemporalWorkflows

WAIT_S = 120.0  # far more than anything here takes: a test that reaches it has found something

TIMING = Timing(poll_s=0.1, poll_deadline_s=0.9, non_responsive_after_s=0.5)

POLICY = Policy(
    timing=TIMING,
    connect_deadline_s=1,
    define_deadline_s=1,
    start_deadline_s=5,
    stop_grace_s=0.5,
    stop_read_s=0.05,
    off_read_back_s=0.5,
    off_read_every_s=0.05,
    fence_tries=2,
    power_on_answer_s=12,
    hold_retry_s=0.3,
    hold_retry_max_s=1,
    knock_s=0.2,
    capacity_retry_s=0.5,
    start_again_s=0.2,
    start_again_max_s=0.5,
    migrate_deadline_s=5,
    migrate_look_s=0.1,
    off_settles_s=0.5,
)
OPEN = [state.value for state in OPEN_STATES]
PERSON = ActionContext(principal="ann", correlation_id="test")
MONITOR = ActionContext(
    principal="monitor:m1", correlation_id="test", priority=PriorityClass.RECOVERY
)

ORDERING = ("hosts", "vms", "vm_recovery", "migrate_vm", "stray_copies", "adoptions")
PLANNING = ("maintain_host", "rehearsals", "shut_down_host", "soft_steps")


@contextmanager
def quick(policy: Policy = POLICY) -> Iterator[None]:
    """Give every order accepted meanwhile a policy with short durations."""
    with ExitStack() as stack:
        for name in (*ORDERING, *PLANNING):
            stack.enter_context(patch(f"engine.actions.{name}.policy_of", lambda _: policy))
        yield


class Bench:
    """One engine and its world; see the module."""

    def __init__(self, database: Database, client: Client, centre: DataCentre) -> None:
        self.database = database
        self.client = client
        self.centre = centre
        self.watcher = Watcher(database, centre)
        self._delivery = Delivery(database, TemporalWorkflows(client))
        actions = all_actions(NoSecrets(), NoSecrets())
        self.backend = Backend(database, actions, all_queries(actions), self._delivery)
        outside = FakeHypervisor(centre), FakePower(centre), FakeDoors(centre), FakeSsh(centre)
        self.parts = Parts(database, self.backend, *outside)
        self.hosts: dict[str, UUID] = {}
        self.vms: dict[str, UUID] = {}
        self.cluster_id = UUID(int=0)
        self.device_deadline_s = 1.0

    async def build(self, *hosts: str, memory_mib: int = 1024) -> None:
        """A cluster with hosts that are in service at epoch 1, each with one power controller."""
        self.cluster_id = (await self._done(CreateCluster(name="c1"))).get("target_id", UUID(int=0))
        for name in hosts:
            await self.add_host(name, memory_mib)

    async def add_host(self, name: str, memory_mib: int = 1024) -> None:
        """A host in service."""
        host = self.centre.add(name, memory_mib)
        host.mark = 1
        row = {"id": new_id(), "name": name, "uri": host.uri, "cluster_id": self.cluster_id}
        row |= {"state": "up", "state_reason": "given", "state_since": now(), "created_at": now()}
        row |= {"epoch": 1, "memory_mib": memory_mib, "cpus": host.cpus}
        await self.write(lambda c: inventory.insert(c, "host", row))
        self.hosts[name] = UUID(str(row["id"]))
        await self.add_device(name, f"bmc-{name}")

    async def add_outlet(self, host: str, name: str) -> None:
        """An outlet that feeds a host, as its second fence level."""
        self.centre.hosts[host].outlets[name] = True
        await self.add_device(host, name, level=2)

    async def add_device(self, host: str, name: str, level: int = 1) -> None:
        """A power controller for a host."""
        row = {"id": new_id(), "host_id": self.hosts[host], "name": name, "options": {}}
        row |= {"agent": "fence_ipmilan", "secrets": b"", "created_at": now(), "level": level}
        row |= {"deadline_s": self.device_deadline_s}
        await self.write(lambda c: inventory.insert(c, "fence_device", row))

    async def add_vm(
        self,
        name: str,
        on: str | None = None,
        *,
        memory_mib: int = 128,
        after: tuple[str, ...] = (),
        **more: Any,
    ) -> UUID:
        """A protected VM, and its copy in generation 1 when it is to run on a host already."""
        wanted = CreateVm(
            cluster_id=self.cluster_id,
            name=name,
            memory_mib=memory_mib,
            **{"protected": True} | more,
            depends_on=tuple(self.vms[other] for other in after),
        )
        created = await self._done(wanted)
        vm_id: UUID = created["target_id"]
        self.vms[name] = vm_id
        if on is not None:
            await self.write(lambda c: self._given_run(c, created, on, wanted))
            domain = FakeDomain(name, memory_mib, 1)
            self.centre.run(self.centre.hosts[on], vm_id, domain)
        return vm_id

    async def _given_run(
        self, connection: AsyncConnection, created: Row, on: str, vm: CreateVm
    ) -> None:
        vm_id = created["target_id"]
        row = {"id": new_id(), "vm_id": vm_id, "host_id": self.hosts[on], "epoch": 1}
        row |= {"generation": 1, "state": "running", "active": 1, "operation_id": created["id"]}
        row |= {"memory_mib": vm.memory_mib, "vcpus": vm.vcpus}
        await changed(connection, vm_run.insert().values(**row, created_at=now(), started_at=now()))
        table = inventory.TABLES["vm"]
        raised = table.update().where(table.c.id == vm_id)
        await changed(connection, raised.values(generation=1, wanted=True))
        await hosts.take(connection, self.hosts[on], row)

    async def start(self, vm: str, on: str | None = None) -> UUID:
        """Ask for a start; the operation."""
        host_id = None if on is None else self.hosts[on]
        return await self.act(StartVm(vm_id=self.vms[vm], host_id=host_id))

    async def stop(self, vm: str, *, force: bool = False) -> UUID:
        """Ask for a stop; the operation."""
        return await self.act(StopVm(vm_id=self.vms[vm], force=force))

    async def migrate(self, vm: str, to: str | None = None) -> UUID:
        """Ask for a VM to be moved; the operation."""
        host_id = None if to is None else self.hosts[to]
        return await self.act(MigrateVm(vm_id=self.vms[vm], host_id=host_id))

    async def report(self, host: str, why: str = "silent") -> UUID:
        """Report a host as failed, as a monitor does; the recovery's operation."""
        await self.watcher.missed(host)
        row = await self.host(host)
        action = RecoverHost(
            host_id=row["id"], epoch=row["epoch"], why=why, reported_by="m1", last_answer_at=now()
        )
        return await self.act(action, MONITOR)

    async def arm(self, armed: bool, **how: Any) -> None:
        """Allow or stop automatic action."""
        await self.act(ArmCluster(cluster_id=self.cluster_id, armed=armed, **how))

    async def activate(self, host: str) -> UUID:
        """Ask for a host to be brought into service; the operation."""
        return await self.act(ActivateHost(host_id=self.hosts[host]))

    async def maintain(self, host: str) -> UUID:
        """Ask for a host to be taken out of service; the operation."""
        return await self.act(MaintainHost(host_id=self.hosts[host]))

    async def act(self, params: Params, context: ActionContext = PERSON) -> UUID:
        """Run an action through the one door, and wait until its workflow was started."""
        return await self.begun((await self.backend.run_action(params, context)).operation_id)

    async def begun(self, operation_id: UUID) -> UUID:
        """An operation that was accepted, once Temporal has been told of it and by it."""
        await self.backend.close()
        return await delivered(self.database, self._delivery, operation_id)

    async def _done(self, params: Params) -> Row:
        return await self.operation(await self.act(params))

    async def ended(self, operation_id: UUID) -> Row:
        """The operation once it has ended, and its workflow with it."""

        async def closed() -> bool:
            return (await self.operation(operation_id))["state"] not in OPEN

        async with explained(self.database, self.client, operation_id):
            await self.until(closed, f"operation {operation_id} never ended")
        return await self.operation(operation_id)

    async def waits(self, operation_id: UUID, code: str) -> Row:
        """The operation once it waits for this reason."""

        row: Row = {}

        async def waiting() -> bool:
            nonlocal row
            row = await self.operation(operation_id)
            return bool(row["state"] == "waiting" and row["reason_code"] == code)

        await self.until(waiting, f"operation {operation_id} never waited for {code}")
        return row

    async def until(self, holds: Callable[[], Awaitable[bool]], else_: str) -> None:
        """Wait until a condition holds; AssertionError after far too long."""
        clock = asyncio.get_running_loop().time
        end = clock() + WAIT_S
        while not await holds():
            assert clock() < end, else_
            await asyncio.sleep(0.02)

    async def idle(self) -> None:
        """Wait until every operation has ended or waits with a reason."""

        async def quiet() -> bool:
            rows = (await read_facts(self.database)).rows["operation"]
            return all(row["state"] not in OPEN or row["state"] == "waiting" for row in rows)

        await self.until(quiet, "some operation neither ended nor waits")

    def workflow(self, operation_id: UUID, attempt: int = 1) -> WorkflowHandle[Any, Any]:
        """The workflow of one try of an operation."""
        return self.client.get_workflow_handle(workflow_id(operation_id, attempt))

    async def operation(self, operation_id: UUID) -> Row:
        """One operation's row."""
        row = await self.database.read(lambda c: operations.get(c, operation_id))
        assert row is not None
        return row

    async def children_of(self, operation_id: UUID, kind: str) -> list[Row]:
        """Child operations of one kind, oldest first."""
        rows = await self.database.read(lambda c: operations.children(c, operation_id))
        return [row for row in rows if row["kind"] == kind]

    async def rows(self, table: str) -> list[Row]:
        """Every row of a table."""
        return (await read_facts(self.database)).rows[table]

    async def host(self, name: str) -> Row:
        """One host's row."""
        row = await self.database.read(lambda c: inventory.find(c, "host", name))
        assert row is not None
        return row

    async def close_run(self, run_id: UUID) -> None:
        """End a run in the database alone, as if another owner had settled it."""

        async def work(connection: AsyncConnection) -> None:
            assert await runs.end(connection, run_id, "by the test", now())

        await self.write(work)

    async def move_host(self, name: str, event: HostEvent) -> None:
        """Let something happen to a host in the database alone, as if another owner had it."""

        async def work(connection: AsyncConnection) -> None:
            assert await hosts.move(connection, self.hosts[name], event, "by the test", now())

        await self.write(work)

    def copies(self, vm: str) -> list[str]:
        """The hosts where the VM really runs."""
        return self.centre.copies(self.vms[vm])

    async def broken(self) -> list[str]:
        """Broken invariants; empty means all is well."""
        return await broken_invariants(self.centre, self.database)

    async def write(self, work: Callable[[AsyncConnection], Awaitable[None]]) -> None:
        """One writing transaction."""
        await self.database.write(work)

    @asynccontextmanager
    async def workers(
        self, interceptors: Sequence[Interceptor] = (), *, cached: int = 1000
    ) -> AsyncIterator[None]:
        """Both workers, as the engine runs them."""
        ordinary = operations_worker(
            self.client,
            self.parts,
            steps_at_once=20,
            interceptors=[LATE_BEATS, *interceptors],
            cached_workflows=cached,
        )
        async with ordinary, fencing_worker(self.client, self.parts, interceptors):
            yield


@asynccontextmanager
async def relaying(made: Bench, number: int = 1) -> AsyncIterator[None]:
    """As many relay processes as one likes, here as tasks with deliveries of their own."""
    workflows = TemporalWorkflows(made.client)
    tasks = [
        asyncio.create_task(relay(Delivery(made.database, workflows), made.database))
        for _ in range(number)
    ]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def template(folder: Path) -> Path:
    """A migrated database file, made once and copied for each bench."""
    path = folder / "template.db"
    await upgrade(f"sqlite+aiosqlite:///{path}")
    return path


@asynccontextmanager
async def bench(address: str, made_from: Path, folder: Path) -> AsyncIterator[Bench]:
    """A bench without hosts, gone with everything it started at the end."""
    name = f"test-{uuid4().hex[:12]}"
    path = folder / f"{name}.db"
    shutil.copy(made_from, path)
    client = await client_in(address, name)
    async with AsyncExitStack() as stack:
        database = Database(f"sqlite+aiosqlite:///{path}")
        stack.push_async_callback(database.close)
        made = Bench(database, client, DataCentre())
        stack.push_async_callback(made.watcher.stop)
        yield made


async def client_in(address: str, namespace: str) -> Client:
    """A client in a new namespace; its identity names no machine, since histories are kept."""
    client = await Client.connect(
        address,
        namespace=namespace,
        data_converter=pydantic_data_converter,
        identity="bench",
    )
    request = RegisterNamespaceRequest(namespace=namespace)
    request.workflow_execution_retention_period.FromTimedelta(timedelta(days=1))
    await client.workflow_service.register_namespace(request)
    return client
