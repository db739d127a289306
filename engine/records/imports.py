"""Rows of imports, as the steps of an import keep them.

A VM that was imported keeps in its spec which operation did it: that tells its own rows from
anybody else's when a step is repeated or undone.
"""

from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from activities.imports import ImportStep
from domain.errors import Conflict, Invalid, Refused, Superseded
from domain.foreign import FIRST_GENERATION, ForeignGuest
from domain.inventory import HostState, RunState
from domain.orders import RunRef
from engine.actions.imports import already_ours, is_recorded_by, take_back
from engine.actions.vm_parts import mac_taken
from engine.clock import Clock, utc_now
from engine.records.runs import ref_of
from store import inventory, operations, runs, vms
from store.database import Database
from store.ids import new_id
from store.rows import Row

IN_SERVICE = (HostState.UP, HostState.CONNECTING)


class ImportRecords:
    """Implements the port of `activities.imports`."""

    def __init__(self, database: Database, clock: Clock = utc_now) -> None:
        self._database = database
        self._clock = clock

    async def record(self, step: ImportStep, guest: ForeignGuest) -> RunRef | None:
        """Write the VM and, when the guest is alive, its run; that run. Repeatable."""
        return await self._database.write(lambda c: self._record(c, step, guest))

    async def _record(
        self, connection: AsyncConnection, step: ImportStep, guest: ForeignGuest
    ) -> RunRef | None:
        if not await _is_open(connection, step):
            raise Superseded(
                "SUPERSEDED", f"the import of {guest.name} has ended before it was recorded"
            )
        known = await inventory.get(connection, "vm", step.guest_id, removed=True)
        if not _owns(known, step):
            await _refuse_known(connection, known)
            host = await _host(connection, step)
            await self._write(connection, step, guest, host)
        run = await runs.active_run(connection, step.guest_id)
        return None if run is None else await ref_of(connection, run)

    async def _write(
        self, connection: AsyncConnection, step: ImportStep, guest: ForeignGuest, host: Row
    ) -> None:
        now = self._clock()
        vm = _vm_row(step, guest, host) | {"created_at": now}
        await _refuse_taken(connection, vm["name"], guest)
        cards = await _cards(connection, host["cluster_id"], guest)
        await _refuse_other_kind(connection, host, guest)
        await inventory.insert(connection, "vm", vm)
        await vms.put_nics(connection, vm["id"], cards)
        if guest.alive:
            run = _run_row(step, guest) | {"created_at": now, "started_at": now}
            if not await vms.record_running(connection, run):
                raise _host_moved(host, step)

    async def still_recorded(self, step: ImportStep) -> bool:
        """Whether the rows of this import are there, and its operation is open."""

        async def work(connection: AsyncConnection) -> bool:
            vm = await inventory.get(connection, "vm", step.guest_id)
            return _owns(vm, step) and await _is_open(connection, step)

        return await self._database.read(work)

    async def withdraw(self, step: ImportStep) -> bool:
        """Remove the rows again; False when they belong to another owner by now. Repeatable."""

        async def work(connection: AsyncConnection) -> bool:
            row = await operations.get(connection, step.operation_id)
            if row is None or row["attempt"] != step.attempt:
                return False  # a later try goes on with rows and mark
            if row["state"] in operations.OPEN:
                taken_back = await take_back(connection, step.operation_id, step.guest_id)
                return taken_back is not False
            return await inventory.get(connection, "vm", step.guest_id, removed=True) is None

        return await self._database.write(work)


def _owns(vm: Row | None, step: ImportStep) -> bool:
    """Whether a VM is there because this import wrote it, and nobody has gone on with it."""
    if vm is None or vm["removed_at"] is not None:
        return False
    return is_recorded_by(vm, step.operation_id)


async def _is_open(connection: AsyncConnection, step: ImportStep) -> bool:
    """Whether this very try of the import is under way: an older one must change nothing."""
    row = await operations.get(connection, step.operation_id)
    if row is None or row["attempt"] != step.attempt:
        return False
    return row["state"] in operations.OPEN


async def _refuse_known(connection: AsyncConnection, known: Row | None) -> None:
    """Refuse the id of another VM; of a deleted one that never ran nothing is left."""
    if known is None or await vms.forget_removed(connection, known["id"]):
        return
    if known["removed_at"] is None:
        raise already_ours(known)
    day = known["removed_at"].date()
    raise Conflict(
        "GUEST_ID_IN_HISTORY",
        f"the guest {known['id']} was the VM {known['name']}, deleted on {day}; its runs are kept "
        "under that id",
        next_step="define the guest anew with a UUID of its own, then import that",
        vm=known["name"],
    )


async def _host(connection: AsyncConnection, step: ImportStep) -> Row:
    host = await inventory.get(connection, "host", step.host.host_id)
    if host is None or host["epoch"] != step.host.epoch or host["state"] not in IN_SERVICE:
        raise _host_moved(host, step)
    return host


def _host_moved(host: Row | None, step: ImportStep) -> Conflict:
    now = "gone" if host is None else f"{host['state']} at epoch {host['epoch']}"
    return Conflict(
        "EPOCH_STALE",
        f"{step.host.name} was at epoch {step.host.epoch} when the guest was read and is {now}",
        next_step="import the guest again once the host is up",
        host=step.host.name,
        epoch=step.host.epoch,
    )


async def _refuse_taken(connection: AsyncConnection, name: str, guest: ForeignGuest) -> None:
    if await inventory.find(connection, "vm", name) is not None:
        raise Conflict(
            "NAME_TAKEN",
            f"there is a VM named {name} already",
            next_step="give the VM a name of its own with the import",
            name=name,
        )
    owners = await vms.mac_owners(connection, [nic.mac for nic in guest.nics])
    for mac, owner in sorted(owners.items()):
        raise mac_taken(mac, owner["name"])


async def _refuse_other_kind(connection: AsyncConnection, host: Row, guest: ForeignGuest) -> None:
    cluster = await inventory.get(connection, "cluster", host["cluster_id"])
    assert cluster is not None
    if guest.virt_type != cluster["virt_type"]:
        raise Conflict(
            "GUEST_KIND_DIFFERS",
            f"{guest.name} is a {guest.virt_type} guest; {cluster['name']} runs "
            f"{cluster['virt_type']} guests",
            next_step="import it into a cluster of its kind",
            guest=guest.name,
            kind=guest.virt_type,
        )


async def _cards(connection: AsyncConnection, cluster_id: UUID, guest: ForeignGuest) -> list[Row]:
    """The guest's cards on networks of the cluster; refused when one of its bridges is in none."""
    known = await vms.networks_by_bridge(connection, cluster_id)
    missing = sorted({nic.bridge or "" for nic in guest.nics if nic.bridge not in known})
    if missing:
        raise _no_network(guest, missing)
    return [
        {"network_id": known[nic.bridge]["id"], "mac": nic.mac, "model": nic.model.value}
        for nic in guest.nics
    ]


def _no_network(guest: ForeignGuest, missing: list[str]) -> Refused:
    words = [f"the bridge {bridge}" if bridge else "QEMU's own NAT" for bridge in missing]
    return Invalid(
        "NETWORK_MISSING",
        f"{guest.name} has cards on {', '.join(words)}, which no network of the cluster stands for",
        next_step="create a network for each in the cluster, then import the guest again",
        guest=guest.name,
        bridges=", ".join(missing),
    )


def _vm_row(step: ImportStep, guest: ForeignGuest, host: Row) -> Row:
    spec: dict[str, Any] = guest.model_dump(mode="json", include={"disks", "boot", "machine"})
    return {
        "id": step.guest_id,
        "cluster_id": host["cluster_id"],
        "name": step.name or guest.name,
        "memory_mib": guest.memory_mib,
        "vcpus": guest.vcpus,
        "protected": step.protected,
        "priority": step.priority,
        "spec": spec | {"imported_by": str(step.operation_id)},
        "wanted": guest.alive,
        "generation": FIRST_GENERATION,
    }


def _run_row(step: ImportStep, guest: ForeignGuest) -> Row:
    return {
        "id": new_id(),
        "vm_id": step.guest_id,
        "host_id": step.host.host_id,
        "epoch": step.host.epoch,
        "generation": FIRST_GENERATION,
        "state": RunState.RUNNING.value,
        "active": 1,
        "memory_mib": guest.memory_mib,
        "vcpus": guest.vcpus,
        "operation_id": step.operation_id,
    }
