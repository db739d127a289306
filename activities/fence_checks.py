"""The step that tests the fence devices of a host. It reads, and cuts nothing."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol
from uuid import UUID

from temporalio import activity

from activities.ports import Hypervisor, PowerSwitch
from activities.power import patient, read, some
from activities.waiting import answered
from domain.base import Frozen
from domain.errors import EngineError, Refused
from domain.fence_checks import DeviceCheck, identity, wrong_with
from domain.inventory import FenceDevice
from domain.orders import HostRef
from domain.profiles import Policy

ASK_EVERY_S = 0.5
"""Between two questions to a host that does not say which machine it is."""


class CheckStep(Frozen):
    """Test the devices of one host."""

    operation_id: UUID
    host: HostRef
    policy: Policy


class FenceCheckRecords(Protocol):
    """The rows of fence devices. Every method is one transaction, and repeatable."""

    async def devices(self, host_id: UUID) -> tuple[FenceDevice, ...]:
        """The host's power controllers, by name."""
        ...

    async def note_checks(self, host: HostRef, checks: tuple[DeviceCheck, ...]) -> None:
        """Keep what was said; raise a warning event for a device that has fallen silent."""
        ...


class FenceChecks:
    """Ask, compare, record."""

    def __init__(
        self,
        power: PowerSwitch,
        hypervisor: Hypervisor,
        records: FenceCheckRecords,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._power = power
        self._hypervisor = hypervisor
        self._records = records
        self._now = now

    @activity.defn(name="fencing.check_devices")
    async def check_devices(self, step: CheckStep) -> str:
        """Ask each device for status and machine, and the host for its own; harms nobody.

        Refused `FENCE_TEST_FAILED` names every device that could not be relied on, after all of it
        was recorded; `NO_FENCE_DEVICE` where there is none.
        """
        return await self.test(step.host, step.policy)

    async def test(self, host: HostRef, policy: Policy) -> str:
        """The same, as a part of another step."""
        devices = some(await self._records.devices(host.host_id), host)
        machine = await self._machine(host, policy)
        found = await asyncio.gather(*(self._check(device, machine) for device in devices))
        await self._records.note_checks(host, tuple(found))
        host_answers = machine is not None
        wrong = [why for check in found if (why := wrong_with(check, host_answers=host_answers))]
        if wrong:
            raise Refused(
                "FENCE_TEST_FAILED",
                f"{len(wrong)} of {len(found)} fence devices of {host.name} could not be"
                f" relied on: {'; '.join(wrong)}",
                next_step="check the device's address, password and cabling, then test again",
                host=host.name,
            )
        return ", ".join(
            f"{c.device}: {c.reading} in {c.took_s:.1f} s, machine {c.identity}" for c in found
        )

    async def _machine(self, host: HostRef, policy: Policy) -> UUID | None:
        limit_s = policy.connect_deadline_s
        try:
            return await answered(
                lambda: self._hypervisor.machine(host.uri, limit_s),
                every_s=ASK_EVERY_S,
                within_s=limit_s,
                missing=EngineError,
            )
        except EngineError:
            return None  # a host that does not answer does not say which machine it is

    async def _check(self, device: FenceDevice, machine: UUID | None) -> DeviceCheck:
        clock = asyncio.get_running_loop().time
        began = clock()
        reading = await read(self._power, patient(device))
        took_s = round(clock() - began, 3)
        check = DeviceCheck(
            device_id=device.id,
            device=device.name,
            reading=reading,
            took_s=took_s,
            at=self._now().isoformat(),
        )
        managed = await self._power.machine(device) if check.answers else ()
        if check.answers and not managed:
            managed = await self._power.machine(device)
        return check.model_copy(update={"identity": identity(managed, machine)})
