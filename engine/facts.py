"""What one transaction reads, each row once.

A batch of a thousand actions asks the same questions a thousand times; `warm` answers them with a
handful of statements. Nothing is kept past the transaction, so nothing here can be out of date in
a way that the database would not refuse.
"""

from collections.abc import Collection, Iterable
from typing import Any, TypeAlias
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from domain.capacity import vcpus_allowed
from domain.inventory import HostState, RunState, VmState
from domain.locks import Held, Lock
from store import inventory, licences, locks, runs, vms
from store.rows import Row

VM_STATES = {
    RunState.PLACED: VmState.POWERING_UP,
    RunState.STARTING: VmState.POWERING_UP,
    RunState.RUNNING: VmState.UP,
    RunState.MIGRATING: VmState.MIGRATING,
    RunState.STOPPING: VmState.POWERING_DOWN,
}
ANSWERING = (
    HostState.UP,
    HostState.CONNECTING,
    HostState.RECONCILING,
    HostState.PREPARING_MAINTENANCE,
)
LEVELS_MAX = 16
"""Reads of what some VMs wait for, before all that is known of it is read in one."""

Known: TypeAlias = dict[str, dict[Any, Any]]
CACHES = ("_rows", "_runs", "_unproven", "_nics", "_held", "_hosts", "_largest", "_waits")
"""What `Facts` keeps; a value in them is never changed, but put in the place of another."""


def vm_state(run: Row | None, host_state: str | None) -> VmState:
    """What a person sees of a VM, given its active run and the state of that run's host."""
    if run is None:
        return VmState.DOWN
    if host_state not in ANSWERING:
        return VmState.UNKNOWN
    return VM_STATES[RunState(run["state"])]


class Facts:
    """A cache of one transaction's reads."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self._rows: dict[tuple[str, UUID], Row | None] = {}
        self._runs: dict[UUID, Row | None] = {}
        self._unproven: dict[UUID, str | None] = {}
        self._nics: dict[UUID, tuple[Row, ...]] = {}
        self._held: dict[tuple[str, UUID], list[Held]] = {}
        self._hosts: dict[UUID, list[Row]] = {}
        self._largest: dict[UUID, tuple[int, int]] = {}
        self._waits: dict[UUID, tuple[UUID, ...]] = {}
        self._levels = 0

    async def get(self, entity: str, entity_id: UUID) -> Row | None:
        """One object by id, or None."""
        key = (entity, entity_id)
        if key not in self._rows:
            self._rows[key] = await inventory.get(self._connection, entity, entity_id)
        return self._rows[key]

    async def active_run(self, vm_id: UUID) -> Row | None:
        """The VM's active run, or None."""
        if vm_id not in self._runs:
            self._runs[vm_id] = await runs.active_run(self._connection, vm_id)
        return self._runs[vm_id]

    async def unproven_host(self, vm_id: UUID) -> str | None:
        """A host where a copy held to be lost may still run."""
        if vm_id not in self._unproven:
            self._unproven[vm_id] = await licences.unproven_host(self._connection, vm_id)
        return self._unproven[vm_id]

    async def nics_of(self, vm_id: UUID) -> tuple[Row, ...]:
        """The VM's cards with their networks."""
        if vm_id not in self._nics:
            await self._warm_nics([vm_id])
        return self._nics[vm_id]

    async def waits_of(self, vm_ids: Collection[UUID]) -> dict[UUID, tuple[UUID, ...]]:
        """For each of these VMs, those that it waits for."""
        unknown = [one for one in vm_ids if one not in self._waits]
        if unknown:
            await self._warm_waits(unknown)
        return {one: self._waits[one] for one in vm_ids}

    async def hosts_of(self, cluster_id: UUID) -> list[Row]:
        """The hosts of a cluster, by name."""
        if cluster_id not in self._hosts:
            self._hosts[cluster_id] = await inventory.listing(
                self._connection, "host", cluster_id=cluster_id
            )
        return self._hosts[cluster_id]

    async def largest_host(self, cluster_id: UUID) -> tuple[int, int]:
        """How many of a cluster's hosts have said how much memory they have, and the most.

        One that was never admitted has not.
        """
        if cluster_id not in self._largest:
            hosts = await self.hosts_of(cluster_id)
            known = [host["memory_mib"] for host in hosts if host["memory_mib"] > 0]
            self._largest[cluster_id] = (len(known), max(known, default=0))
        return self._largest[cluster_id]

    async def most_vcpus(self, cluster_id: UUID, host_id: UUID | None = None) -> int | None:
        """The most vCPUs that any host of a cluster, or this one, may promise in all.

        None: there is no limit, or a host that has not said how many CPUs it has may have room.
        """
        cluster = await self.get("cluster", cluster_id)
        if cluster is None or cluster["vcpu_overcommit"] is None:
            return None
        hosts = await self.hosts_of(cluster_id)
        asked = [host for host in hosts if host_id in (None, host["id"])]
        allowed = [vcpus_allowed(host["cpus"], cluster["vcpu_overcommit"]) for host in asked]
        known = [one for one in allowed if one is not None]
        return max(known) if known and len(known) == len(allowed) else None

    async def state_of_vm(self, vm_id: UUID) -> VmState:
        """What a person sees of the VM."""
        run = await self.active_run(vm_id)
        host = None if run is None else await self.get("host", run["host_id"])
        return vm_state(run, None if host is None else host["state"])

    async def held(self, wanted: Iterable[Lock]) -> tuple[Held, ...]:
        """Who holds any of these entities."""
        entities = [lock.entity for lock in wanted]
        unknown = [entity for entity in entities if entity not in self._held]
        if unknown:
            found = await locks.held(self._connection, unknown)
            self._held.update({entity: found.get(entity, []) for entity in unknown})
        return tuple(held for entity in entities for held in self._held[entity])

    def note_taken(self, taken: Iterable[Held]) -> None:
        """Count locks that this transaction takes."""
        for held in taken:
            known = self._held.get(held.lock.entity, [])
            self._held[held.lock.entity] = [*known, held]  # a list of its own: see `mark`

    def note_freed(self, *operation_ids: UUID) -> None:
        """Count the locks of operations as free."""
        ended = set(operation_ids)
        for entity, held in self._held.items():
            self._held[entity] = [one for one in held if one.operation_id not in ended]

    def forget(self, entity: str, entity_id: UUID) -> None:
        """Read an object anew the next time: this transaction has changed it."""
        self._rows.pop((entity, entity_id), None)
        if entity == "vm":
            self._runs.pop(entity_id, None)
            self._unproven.pop(entity_id, None)
            self._waits.pop(entity_id, None)
        if entity == "host":
            self._hosts.clear()
            self._largest.clear()

    def mark(self) -> Known:
        """What is known now, for `back_to`."""
        return {name: dict(getattr(self, name)) for name in CACHES}

    def back_to(self, known: Known) -> None:
        """Know again what was known then: what was written since is rolled back to a savepoint."""
        for name, cache in known.items():
            setattr(self, name, dict(cache))

    async def warm(self, entity: str, ids: Iterable[UUID]) -> None:
        """Read many objects of one kind at once; of VMs also what their starts ask about."""
        unknown = {one for one in ids if (entity, one) not in self._rows}
        missing = sorted(unknown, key=lambda one: one.int)
        if not missing:
            return
        rows = await inventory.get_many(self._connection, entity, missing)
        self._rows |= {(entity, one): rows.get(one) for one in missing}
        await self._warm_locks(entity, missing)
        if entity == "vm":
            await self._warm_runs(missing)

    async def _warm_runs(self, vm_ids: list[UUID]) -> None:
        active = await runs.active_runs_of(self._connection, vm_ids)
        self._runs |= {vm_id: active.get(vm_id) for vm_id in vm_ids}
        unproven = await licences.unproven_hosts(self._connection, vm_ids)
        self._unproven |= {vm_id: unproven.get(vm_id) for vm_id in vm_ids}
        # Only an order that names a run says what its VM is made of.
        await self._warm_nics(sorted(active))
        await self.warm("host", {run["host_id"] for run in active.values()})

    async def _warm_nics(self, vm_ids: list[UUID]) -> None:
        found = await vms.nics_of(self._connection, vm_ids)
        self._nics |= {vm_id: found.get(vm_id, ()) for vm_id in vm_ids}

    async def _warm_waits(self, vm_ids: list[UUID]) -> None:
        self._levels += 1
        self._waits |= dict.fromkeys(vm_ids, ())
        if self._levels != LEVELS_MAX:
            self._waits |= await vms.dependencies_of(self._connection, vm_ids)
            return
        # A long chain would be a statement a VM; the ends of all chains are known from here on.
        found = await inventory.dependencies(self._connection)
        self._waits |= {other: () for others in found.values() for other in others}
        self._waits |= found

    async def _warm_locks(self, entity: str, ids: list[UUID]) -> None:
        found = await locks.held(self._connection, [(entity, one) for one in ids])
        self._held |= {(entity, one): found.get((entity, one), []) for one in ids}
