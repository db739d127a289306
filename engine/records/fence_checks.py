"""Rows of fence devices as their tests keep them."""

from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from domain.fence_checks import DeviceCheck
from domain.inventory import FenceDevice, HostState
from domain.orders import HostRef
from engine.records.fencing import FenceRecords
from engine.refs import fence_device, host_ref
from store import fence_checks, inventory, plumbing
from store.ids import new_id
from store.rows import Row

Fenced = tuple[HostRef, tuple[FenceDevice, ...]]

SILENT, ANSWERS = "fence_device.silent", "fence_device.answers"
OTHER = "fence_device.other_machine"
"""Events: a device has stopped answering, answers again, manages another machine than its host."""

EVENTS = {fence_checks.SILENT: SILENT, fence_checks.ANSWERS: ANSWERS, fence_checks.OTHER: OTHER}


class FenceCheckRecords(FenceRecords):
    """Implements the port of `activities.fence_checks`, and what `worker.fence_watch` needs."""

    async def note_checks(self, host: HostRef, checks: tuple[DeviceCheck, ...]) -> None:
        """Keep what was said; an event for each change for the worse, and when it answers again."""

        async def work(connection: AsyncConnection) -> None:
            for check in checks:
                for change in await fence_checks.note(connection, _row(check)):
                    event = _event(host, check, EVENTS[change])
                    await plumbing.append_event(connection, event)

        await self._database.write(work)

    async def in_service(self) -> tuple[Fenced, ...]:
        """The hosts in service, each with its fence devices."""

        async def work(connection: AsyncConnection) -> tuple[Fenced, ...]:
            hosts = await inventory.listing(connection, "host", state=HostState.UP.value)
            devices = await inventory.devices_of(connection, [host["id"] for host in hosts])
            return tuple(
                (host_ref(host), tuple(fence_device(row) for row in devices.get(host["id"], ())))
                for host in hosts
            )

        return await self._database.read(work)


def _row(check: DeviceCheck) -> Row:
    return {
        "id": check.device_id,
        "test_reading": check.reading.value,
        "test_took_s": check.took_s,
        "test_identity": None if check.identity is None else check.identity.value,
        "last_tested_at": datetime.fromisoformat(check.at),
        "answers": check.answers,
    }


def _event(host: HostRef, check: DeviceCheck, kind: str) -> Row:
    data: Row = {"name": check.device, "host": host.name, "took_s": check.took_s}
    if kind == OTHER:
        data["why"] = f"{check.device} manages another machine than {host.name}, and would cut that"
        proof = f"`holdfast fence test {host.name}` compares again"
        data["next_step"] = f"correct the device's address or its cabling; {proof}"
    return {
        "id": new_id(),
        "type": kind,
        "subject_type": "fence_device",
        "subject_id": check.device_id,
        "principal": "monitor",
        "correlation_id": f"{host.host_id.hex}:{host.epoch}",
        "data": data,
        "at": datetime.fromisoformat(check.at),
    }
