"""The rows a benchmark starts from: a cluster, hosts in service, VMs that run."""

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from benchmarks.databases import url_of_new
from domain.orders import RunRef
from engine.clock import utc_now
from engine.refs import run_ref
from store import inventory, operations, runs
from store.database import Database
from store.ids import new_id
from store.migrate import upgrade
from store.rows import Row

MEMORY_MIB = 16


class Inventory:
    """One cluster in a fresh database file."""

    def __init__(self, database: Database, virt_type: str) -> None:
        self.database = database
        self._virt_type = virt_type
        self._cluster_id = new_id()
        self._hosts: list[Row] = []

    @classmethod
    async def create(cls, file: Path, virt_type: str) -> "Inventory":
        """Make the file anew and write the cluster."""
        url = await asyncio.to_thread(url_of_new, file)
        await upgrade(url)
        return await cls.within(Database(url), virt_type)

    @classmethod
    async def within(cls, database: Database, virt_type: str) -> "Inventory":
        """Write the cluster into a migrated database without rows."""
        made = cls(database, virt_type)
        row = {"id": made._cluster_id, "name": "bench", "profile": "balanced"}
        row |= {"virt_type": virt_type, "created_at": utc_now()}
        await database.write(lambda c: inventory.insert(c, "cluster", row))
        return made

    async def add_hosts(self, named: Iterable[tuple[str, str]]) -> None:
        """Add hosts by name and URI, in service at epoch 1."""
        now = utc_now()
        for name, uri in named:
            row: Row = {"id": new_id(), "cluster_id": self._cluster_id, "name": name, "uri": uri}
            row |= {"state": "up", "state_reason": "", "state_since": now, "created_at": now}
            row |= {"epoch": 1, "memory_mib": 1024 * 1024, "cpus": 16}
            self._hosts.append(row)

        async def work(connection: AsyncConnection) -> None:
            for row in self._hosts:
                await inventory.insert(connection, "host", row)

        await self.database.write(work)

    async def running_vm(self) -> tuple[UUID, RunRef]:
        """A new VM that runs on the first host."""
        return await self.database.write(lambda c: self._running_vm(c, self._hosts[0], new_id()))

    async def running_vms(self, of: Callable[[str], Iterable[UUID]]) -> None:
        """VMs of these ids that run on each host, by its URI."""

        async def work(connection: AsyncConnection) -> None:
            for host in self._hosts:
                for vm_id in of(host["uri"]):
                    await self._running_vm(connection, host, vm_id)

        await self.database.write(work)

    async def _running_vm(
        self, connection: AsyncConnection, host: Row, vm_id: UUID
    ) -> tuple[UUID, RunRef]:
        now, operation_id = utc_now(), new_id()
        vm: Row = {"id": vm_id, "cluster_id": self._cluster_id, "name": f"vm-{vm_id}"}
        vm |= {"memory_mib": MEMORY_MIB, "vcpus": 1, "spec": {"disks": [], "boot": None}}
        await inventory.insert(connection, "vm", vm | {"created_at": now})
        started: Row = {"id": operation_id, "kind": "vm.start", "state": "succeeded"}
        started |= {"target_type": "vm", "target_id": vm_id, "target_name": vm["name"]}
        started |= {"principal": "benchmark", "reason": "", "correlation_id": "benchmark"}
        await operations.insert(connection, started | {"created_at": now})
        run = await runs.place(connection, vm_id, host["id"], 1, operation_id, now)
        assert run is not None, "the host of the benchmark is full"
        await runs.begin_start(connection, run["id"], operation_id)
        await runs.started(connection, run["id"], now)
        whole = await inventory.get(connection, "vm", vm_id)
        assert whole is not None
        return vm_id, run_ref(run, whole, host, self._virt_type, ())
