"""Builds what a test needs through the real statements, and hides what does not matter to it."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from domain.context import ActionContext
from domain.locks import exclusive
from store import incidents, inventory, locks, observations, operations, runs, vms
from store.columns import metadata
from store.database import Database
from store.ids import new_id
from store.rows import Row

T = TypeVar("T")
START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
PERSON = ActionContext(principal="ann", correlation_id="c-1")


class World:
    """One cluster in one database, with a clock that stands until it is moved."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.now = START
        self.watched_ms = 0  # by `m1`, on its own monotonic clock
        self.cluster_id = new_id()

    async def build(self) -> "World":
        """Write the cluster."""
        row: Row = {"id": self.cluster_id, "name": "c1", "profile": "balanced"}
        row |= {"virt_type": "qemu", "created_at": self.now}
        await self.do(inventory.insert, "cluster", row)
        return self

    def clock(self) -> datetime:
        """The world's time."""
        return self.now

    def later(self, seconds: float) -> datetime:
        """Move the clock; the new time."""
        self.now += timedelta(seconds=seconds)
        return self.now

    async def do(
        self,
        statement: Callable[..., Awaitable[T]],
        *args: Any,
        **kwargs: Any,
    ) -> T:
        """Run one statement in a writing transaction of its own."""

        async def work(connection: AsyncConnection) -> T:
            return await statement(connection, *args, **kwargs)

        return await self.database.write(work)

    async def together(self, *steps: Callable[[AsyncConnection], Awaitable[T]]) -> list[T]:
        """Run steps in transactions that overlap, as far as the database lets them.

        On PostgreSQL each has seen the world before any of them changes it; SQLite lets its one
        writer in at a time.
        """
        overlap = self.database.dialect == "postgresql"
        met = asyncio.Barrier(len(steps))

        def meeting(step: Callable[[AsyncConnection], Awaitable[T]]) -> Awaitable[T]:
            tries = count()

            async def work(connection: AsyncConnection) -> T:
                if next(tries) == 0 and overlap:
                    await connection.exec_driver_sql("SELECT 1 FROM cluster")
                    await met.wait()
                return await step(connection)

            return self.database.write(work)

        return list(await asyncio.gather(*(meeting(step) for step in steps)))

    async def host(self, name: str = "h1", *, memory_mib: int = 1024, **values: Any) -> UUID:
        """A host that is up at epoch 1."""
        host_id = new_id()
        row: Row = {"id": host_id, "cluster_id": self.cluster_id, "name": name}
        row |= {"uri": f"qemu+tcp://{name}/system", "state": "up", "state_reason": "", "epoch": 1}
        row |= {"memory_mib": memory_mib, "state_since": self.now, "created_at": self.now}
        await self.do(inventory.insert, "host", row | values)
        return host_id

    async def vm(self, name: str = "db", *, memory_mib: int = 256, **values: Any) -> UUID:
        """A VM that a person wants to run, but that does not yet."""
        depends_on = values.pop("depends_on", ())
        vm_id = new_id()
        row: Row = {"id": vm_id, "cluster_id": self.cluster_id, "name": name, "wanted": True}
        row |= {"memory_mib": memory_mib, "spec": {"disks": [], "boot": None}}
        await self.do(inventory.insert, "vm", row | {"created_at": self.now} | values)
        await self.do(vms.put_dependencies, vm_id, depends_on)
        return vm_id

    async def device(self, host_id: UUID, name: str = "bmc1") -> UUID:
        """A fence device."""
        device_id = new_id()
        row: Row = {"id": device_id, "host_id": host_id, "name": name, "agent": "fence_ipmilan"}
        row |= {"options": {}, "secrets": b"sealed", "deadline_s": 10.0, "created_at": self.now}
        await self.do(inventory.insert, "fence_device", row)
        return device_id

    async def operation(self, target_id: UUID | None = None, **values: Any) -> UUID:
        """A pending operation."""
        operation_id = new_id()
        row: Row = {"id": operation_id, "kind": "vm.start", "state": "pending"}
        row |= {"target_type": "vm", "target_id": target_id or new_id(), "target_name": "db"}
        row |= {"cluster_id": self.cluster_id, "principal": "ann", "reason": ""}
        row |= {"correlation_id": "c-1", "workflow": "StartVm", "created_at": self.now}
        await self.do(operations.insert, row | values)
        return operation_id

    async def lock(self, vm_id: UUID, operation_id: UUID) -> None:
        """Give an operation the lock on a VM."""
        await self.take("vm", vm_id, operation_id)

    async def take(self, entity_type: str, entity_id: UUID, operation_id: UUID) -> None:
        """Give an operation the lock on anything."""
        row = locks.row_of(exclusive(entity_type, entity_id), operation_id, self.now)
        await self.do(locks.take, [row])

    async def placed(self, vm_id: UUID, host_id: UUID, **values: Any) -> Row:
        """A placed run, of an operation of its own unless one is named."""
        operation_id = values.pop("operation_id", None) or await self.operation(vm_id)
        epoch = values.pop("epoch", 1)
        place = (vm_id, host_id, epoch, operation_id, self.now)
        run = await self.do(runs.place, *place, **values)
        assert run is not None, "the test's own world has no room for the VM"
        return run

    async def running(self, vm_id: UUID, host_id: UUID, **values: Any) -> Row:
        """A run that was read back as running."""
        run = await self.placed(vm_id, host_id, **values)
        assert await self.do(runs.begin_start, run["id"], run["operation_id"])
        assert await self.do(runs.started, run["id"], self.now)
        return await self.run(run["id"])

    async def stopping(self, run_id: UUID) -> None:
        """A person has asked for the end of a run."""
        assert await self.do(runs.begin_stop, run_id)

    async def incident(self, host_id: UUID, epoch: int = 1) -> UUID:
        """An open incident."""
        incident_id = new_id()
        row: Row = {"id": incident_id, "host_id": host_id, "epoch": epoch, "phase": "decide"}
        row |= {"reported_by": "m1", "why": "silent", "phases": {}, "opened_at": self.now}
        await self.do(incidents.open_incident, row)
        return incident_id

    async def certificate(self, host_id: UUID, epoch: int = 1) -> UUID:
        """A valid death certificate, with the incident it came from, its host now down."""
        incident_id = await self.incident(host_id, epoch)
        await self.put("host", host_id, state="non_responsive")
        row: Row = {"id": new_id(), "host_id": host_id, "epoch": epoch, "evidence": []}
        row |= {"incident_id": incident_id, "digest": "", "issued_at": self.now}
        issued = await self.do(
            incidents.issue_certificate, row, heard=await self.heard(host_id), why="reads off"
        )
        assert issued
        certificate_id: UUID = row["id"]
        return certificate_id

    async def monitor(self, name: str = "m1") -> None:
        """A warm monitor."""
        await self.do(observations.register_monitor, name, self.now)

    async def observe(self, host_id: UUID, sequence: int = 1, **values: Any) -> None:
        """One round of the monitor `m1` that saw one host, which answered if it is called up."""
        seen: Row = {"host_id": host_id, "verdict": "up", "silent_s": 0.0, "misses": 0}
        seen |= {"others_seen": 1, "last_answer_at": self.now} | values
        seen = {"heard_sequence": sequence if seen["verdict"] == "up" else None} | seen
        await self.round(sequence, seen)

    async def round(self, sequence: int, *seen: Row) -> None:
        """One round of the monitor `m1`."""
        rows: Row = {"observations": list(seen), "samples": [], "warm": True, "now": self.now}
        rows["watched_ms"] = lambda: self.watched_ms
        await self.do(observations.record_round, "m1", sequence, **rows)

    async def watch(self, seconds: float) -> None:
        """The monitor `m1` watches on, whatever the clocks say."""
        (known,) = await self.do(observations.monitors)
        await self.round(known["sequence"] + 1)
        self.watched_ms += int(seconds * 1000)
        await self.round(known["sequence"] + 2)

    async def heard(self, host_id: UUID) -> dict[str, int]:
        """The round in which each monitor had its last answer of a host."""
        rows = await self.do(observations.latest, host_id)
        return {row["monitor"]: row["heard_sequence"] for row in rows if row["heard_sequence"]}

    async def put(self, entity: str, entity_id: UUID, **values: Any) -> None:
        """Set columns of a row, past every rule."""
        table = metadata.tables[entity]

        async def work(connection: AsyncConnection) -> None:
            await connection.execute(table.update().where(table.c.id == entity_id).values(**values))

        await self.database.write(work)

    async def get(self, entity: str, entity_id: UUID) -> Row:
        """One object."""
        row = await self.do(inventory.get, entity, entity_id)
        assert row is not None
        return row

    async def run(self, run_id: UUID) -> Row:
        """One run."""
        row = await self.do(runs.get, run_id)
        assert row is not None
        return row
