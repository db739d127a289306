"""Asks the fence devices of hosts in service for their status, before one of them is needed.

A device that has stopped answering raises an event while its host is still fine, and another one
when it answers again. Only status is asked for, which harms nobody; the devices of a host that is
not in service are left to its recovery. Now and then each device is asked which machine it manages,
too, and its host which one it is: two that were swapped answer just as well. Several monitors may
do so at once: what is a change is decided by the store.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Protocol
from uuid import UUID

import structlog

from activities.ports import PowerSwitch
from activities.power import patient, read
from domain.errors import EngineError
from domain.fence_checks import DeviceCheck, identity
from domain.inventory import FenceDevice, PowerReading
from domain.orders import HostRef
from engine.clock import Clock, utc_now

log = structlog.get_logger()

FIRST_S = 60.0
"""From the start of a monitor to its first round: a whole engine that starts has more to do."""

EVERY_S = 300.0
"""Between rounds. Higher: a device that is dead is found out later, and needed meanwhile more
often. Lower: BMCs, which are slow and few sessions wide, are asked more often."""

COMPARED_EVERY = 12
"""Rounds from one comparison of machines to the next, the first of a monitor among them: an hour.
Higher: devices that were swapped are found out later. Lower: BMCs are asked more."""

MACHINE_S = 5.0
"""How long a host may take to say which machine it is. Lower: a busy one is not compared."""

AT_ONCE = 16
"""Devices asked side by side. Higher: more agents at a time. Lower: longer rounds: 16 dead devices
with the default deadline take 10 s."""


class Records(Protocol):
    """Where the devices stand."""

    async def in_service(self) -> tuple[tuple[HostRef, tuple[FenceDevice, ...]], ...]:
        """The hosts in service, each with its fence devices."""
        ...

    async def note_checks(self, host: HostRef, checks: tuple[DeviceCheck, ...]) -> None:
        """Keep what was said; an event when a device falls silent, and when it answers again."""
        ...


class Machines(Protocol):
    """What hosts say of themselves; `activities.ports.Hypervisor` is one."""

    async def machine(self, uri: str, deadline_s: float) -> UUID | None:
        """The UUID of the machine that a host is, or None; NoAnswer."""
        ...


class FenceWatch:
    """One process's rounds."""

    def __init__(
        self, records: Records, power: PowerSwitch, machines: Machines, now: Clock = utc_now
    ) -> None:
        self._records = records
        self._power = power
        self._machines = machines
        self._rounds = 0
        self._now: Callable[[], datetime] = now
        self._turn = asyncio.Semaphore(AT_ONCE)

    async def run(self) -> None:
        """Ask until cancelled; what cannot be recorded costs a round."""
        wait_s = FIRST_S
        while True:
            await asyncio.sleep(wait_s)
            wait_s = EVERY_S
            try:
                await self.round()
            except EngineError as error:
                log.warning("fence devices not looked after", code=error.code)
            except Exception:  # the next round may well be
                log.exception("fence devices not looked after")

    async def round(self) -> None:
        """Ask every device of every host in service once."""
        hosts = await self._records.in_service()
        compare = self._rounds % COMPARED_EVERY == 0
        self._rounds += 1
        fenced = [(host, devices) for host, devices in hosts if devices]
        await asyncio.gather(*(self._host(*each, compare=compare) for each in fenced))

    async def _host(
        self, host: HostRef, devices: tuple[FenceDevice, ...], *, compare: bool
    ) -> None:
        machine = await self._machine(host) if compare else None
        checks = await asyncio.gather(*(self._check(device, machine) for device in devices))
        silent = [check.device for check in checks if not check.answers]
        if silent:
            log.warning("fence devices do not answer", host=host.name, devices=silent)
        await self._records.note_checks(host, tuple(checks))

    async def _machine(self, host: HostRef) -> UUID | None:
        try:
            async with self._turn:
                return await self._machines.machine(host.uri, MACHINE_S)
        except EngineError:
            return None  # whether it answers is the monitor's business

    async def _check(self, device: FenceDevice, machine: UUID | None) -> DeviceCheck:
        clock = asyncio.get_running_loop().time
        async with self._turn:
            began = clock()
            reading = await read(self._power, patient(device))
            took_s = round(clock() - began, 3)
            known = reading is not PowerReading.UNKNOWN and machine is not None
            managed = await self._power.machine(device) if known else ()
        return DeviceCheck(
            device_id=device.id,
            device=device.name,
            reading=reading,
            took_s=took_s,
            identity=identity(managed, machine) if managed else None,
            at=self._now().isoformat(),
        )
