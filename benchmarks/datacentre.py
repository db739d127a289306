"""A data centre of 1,000 hosts and 25,000 VMs as rows: what the queries are measured on."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from benchmarks.databases import settle
from engine.clock import utc_now
from store import schema, schema_ha
from store.bulk import insert_many
from store.database import Database
from store.ids import new_id
from store.rows import Row

CLUSTERS, HOSTS, VMS = 10, 1_000, 25_000
OPERATIONS, EVENTS, INCIDENTS = 50_000, 100_000, 500
RUNNING = 20_000
BATCH = 1_000
KINDS = ("vm.start", "vm.stop", "host.activate", "cluster.arm")
STATES = ("succeeded",) * 18 + ("failed", "needs_attention")
PRINCIPALS = tuple(f"person-{number}" for number in range(50))


@dataclass
class DataCentre:
    """What was written, by id."""

    random: Random = field(default_factory=lambda: Random(4))
    clusters: list[UUID] = field(default_factory=list)
    hosts: list[UUID] = field(default_factory=list)
    vms: list[UUID] = field(default_factory=list)
    down: list[UUID] = field(default_factory=list)
    operations: list[UUID] = field(default_factory=list)

    async def fill(self, database: Database) -> "DataCentre":
        """Write all of it."""
        await self._write(database, schema.cluster, self._clusters())
        await self._write(database, schema.host, self._hosts())
        await self._write(database, schema.vm, self._vms())
        await self._write(database, schema.vm_dependency, self._dependencies())
        await self._write(database, schema.operation, self._operations())
        await self._write(database, schema_ha.vm_run, self._runs())
        await self._write(database, schema_ha.observation, self._observations())
        await self._write(database, schema_ha.incident, self._incidents())
        await self._write(database, schema.event, self._events())
        await settle(database)
        return self

    async def _write(self, database: Database, table: sa.Table, rows: Iterator[Row]) -> None:
        whole = list(rows)
        for start in range(0, len(whole), BATCH):
            part = whole[start : start + BATCH]

            async def work(connection: AsyncConnection, part: list[Row] = part) -> None:
                await insert_many(connection, table, part)

            await database.write(work)

    def _clusters(self) -> Iterator[Row]:
        for number in range(CLUSTERS):
            self.clusters.append(new_id())
            row: Row = {"id": self.clusters[-1], "name": f"cluster-{number}", "armed": True}
            yield row | {"profile": "balanced", "virt_type": "kvm", "created_at": utc_now()}

    def _hosts(self) -> Iterator[Row]:
        for number in range(HOSTS):
            self.hosts.append(new_id())
            now, state = utc_now(), "non_responsive" if number % 50 == 7 else "up"
            row: Row = {"id": self.hosts[-1], "cluster_id": self.clusters[number % CLUSTERS]}
            row |= {"name": f"host-{number:04}", "uri": f"qemu+tls://host-{number:04}/system"}
            row |= {"state": state, "state_reason": "", "state_since": now, "created_at": now}
            yield row | {"epoch": 1, "memory_mib": 2**20, "cpus": 64, "memory_reserved_mib": 2**15}

    def _vms(self) -> Iterator[Row]:
        for number in range(VMS):
            self.vms.append(new_id())
            row: Row = {"id": self.vms[-1], "cluster_id": self.clusters[number % CLUSTERS]}
            row |= {"name": f"vm-{number:05}", "memory_mib": 1024, "vcpus": 2}
            row |= {"protected": number % 3 == 0, "priority": number % 100, "wanted": True}
            spec = {"disks": [{"path": f"/srv/{number}.img", "format": "qcow2"}], "boot": None}
            yield row | {"spec": spec, "generation": 1, "created_at": utc_now()}

    def _dependencies(self) -> Iterator[Row]:
        for number in range(1, VMS, 5):
            yield {"vm_id": self.vms[number], "depends_on_id": self.vms[number - 1]}

    def _operations(self) -> Iterator[Row]:
        for number in range(OPERATIONS):
            self.operations.append(new_id())
            row: Row = {"id": self.operations[-1], "kind": KINDS[number % len(KINDS)]}
            row |= {"state": self.random.choice(STATES), "target_type": "vm", "reason": ""}
            row |= {"target_id": self.random.choice(self.vms), "target_name": "vm"}
            row |= {"principal": self.random.choice(PRINCIPALS), "correlation_id": f"c-{number}"}
            yield row | {"workflow": "StartVm", "attempt": 1, "created_at": utc_now()}

    def _runs(self) -> Iterator[Row]:
        states = ("running",) * 18 + ("starting", "stopping")
        mixed = self.random.sample(self.vms, VMS)
        self.down = mixed[RUNNING:]
        for number, vm_id in enumerate(mixed[:RUNNING]):
            row: Row = {"id": new_id(), "vm_id": vm_id, "host_id": self.hosts[number % HOSTS]}
            row |= {"epoch": 1, "generation": 1, "state": states[number % 20], "active": 1}
            row |= {"memory_mib": 1024, "operation_id": self.operations[number]}
            yield row | {"created_at": utc_now(), "started_at": utc_now()}

    def _observations(self) -> Iterator[Row]:
        for host_id in self.hosts:
            for monitor in ("m1", "m2"):
                row: Row = {"host_id": host_id, "monitor": monitor, "sequence": 9}
                row |= {"verdict": "up", "silent_s": 0.0, "misses": 0, "others_seen": 999}
                yield row | {"last_answer_at": utc_now(), "at": utc_now()}

    def _incidents(self) -> Iterator[Row]:
        for number in range(INCIDENTS):
            row: Row = {"id": new_id(), "host_id": self.hosts[number], "epoch": 1}
            row |= {"open": 1 if number % 50 == 7 else None, "phase": "done", "why": "silent"}
            yield row | {"reported_by": "m1", "phases": {}, "opened_at": utc_now()}

    def _events(self) -> Iterator[Row]:
        began = utc_now() - timedelta(days=30)
        for number in range(EVENTS):
            row: Row = {"id": new_id(), "seq": number + 1, "type": "vm.start.accepted"}
            row |= {"subject_type": "vm", "subject_id": self.random.choice(self.vms)}
            row |= {"principal": self.random.choice(PRINCIPALS), "correlation_id": f"c-{number}"}
            row |= {"operation_id": self.random.choice(self.operations), "reason": ""}
            at = began + timedelta(seconds=25 * number)
            yield row | {"before": None, "after": {"wanted": True}, "data": {"name": "x"}, "at": at}
