"""Steps that switch an empty host off, and on again, by plan. Never "cycle".

A plan is no proof of death and needs none: the host was read as empty before. What a power
controller answers to a command proves nothing here either: off, read back off; on, read back on. A
host that answers though its controllers read off is told: then they belong to another machine.
"""

from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Protocol
from uuid import UUID

from pydantic import Field
from temporalio import activity

from activities.ports import Hypervisor, HypervisorSession, PowerSwitch
from activities.power import ask, freshly, read, some
from activities.waiting import until
from domain.base import Frozen
from domain.errors import Conflict, NoAnswer
from domain.inventory import FenceDevice, PowerReading
from domain.operations import is_first
from domain.orders import HostRef
from domain.planned import HostPower
from domain.profiles import Policy
from domain.readings import Domain, Knock
from domain.topology import next_level

ANSWER_EVERY_S = 0.5
"""Between tries to reach a host that boots. Higher: it is in service later. Lower: more tries."""


class PowerStep(Frozen):
    """One step on the power of one host."""

    operation_id: UUID
    attempt: int = Field(default=1, exclude_if=is_first)
    host: HostRef
    policy: Policy


class PowerRecords(Protocol):
    """The rows of a host's power. Every method is one transaction, and repeatable."""

    async def devices(self, host_id: UUID) -> tuple[FenceDevice, ...]:
        """The host's power controllers, by name."""
        ...

    async def claim_power(self, step: PowerStep, power: HostPower) -> None:
        """Claim the switching; Superseded unless the host is in maintenance, empty and ours."""
        ...

    async def note_power(self, step: PowerStep, power: HostPower, why: str) -> None:
        """Keep what was read back."""
        ...

    async def begin_return(self, step: PowerStep) -> None:
        """Let the host be reconciled; Superseded when it is in other hands."""
        ...


class HostPowers:
    """Off and on; these steps alone touch power controllers."""

    def __init__(self, hypervisor: Hypervisor, power: PowerSwitch, records: PowerRecords) -> None:
        self._hypervisor = hypervisor
        self._power = power
        self._records = records

    @activity.defn(name="host.power_off_empty")
    async def power_off_empty(self, step: PowerStep) -> str:
        """Switch an empty host off and read that back; already off is success. Repeatable.

        Only its first level is switched, and all devices of that have to read off: outlets behind a
        BMC go on feeding it, so that it can switch the host on again. Conflict HOST_NOT_OFF when
        one does not, or when the host answers all the same; HOST_NOT_EMPTY when a guest of ours
        is alive there, whatever the rows say.
        """
        known = some(await self._records.devices(step.host.host_id), step.host)
        await self._read_empty(step, known)
        devices = tuple(device for device in known if device.level == next_level(known))
        await self._records.claim_power(step, HostPower.GOING_OFF)
        for device in devices:
            await self._switch(step, device, HostPower.GOING_OFF)
        last: tuple[tuple[FenceDevice, PowerReading], ...] = ()

        async def off() -> bool:
            nonlocal last
            last = await self._asked(devices)
            return all(word is PowerReading.OFF for _device, word in last)

        policy = step.policy
        if not await until(off, every_s=policy.off_read_every_s, within_s=policy.off_read_back_s):
            raise _not_off(step, f"its power devices do not read off: {_said(last)}")
        knock = await self._hypervisor.knock(step.host.uri, policy.knock_s)
        if knock is not Knock.SILENT:
            raise _not_off(step, f"{_said(last)}, and it answers all the same ({knock})")
        await self._records.note_power(step, HostPower.OFF, f"its power is off: {_said(last)}")
        return f"off: {_said(last)}"

    @activity.defn(name="host.power_on_again")
    async def power_on_again(self, step: PowerStep) -> str:
        """Switch on what reads off, the highest level first, and read it back. Repeatable.

        What goes on reading off is told again: a machine may drop a command just after its cut.

        Those of the first level were cut, so they have to read on; one that goes on saying nothing
        is made up for by another one that does. Conflict HOST_NOT_BACK when no device reads on, or
        one still reads off.
        """
        devices = some(await self._records.devices(step.host.host_id), step.host)
        await self._records.claim_power(step, HostPower.COMING_ON)
        await self._on(step, devices)
        last: tuple[tuple[FenceDevice, PowerReading], ...] = ()

        async def on() -> bool:
            nonlocal last
            last = await self._asked(devices)
            if any(word is PowerReading.OFF for _device, word in last):
                await self._on_again(step, devices)
                return False
            first = next_level(devices)
            return all(word is PowerReading.ON for device, word in last if device.level == first)

        policy = step.policy
        await until(on, every_s=policy.off_read_every_s, within_s=policy.off_read_back_s)
        words = {word for _device, word in last}
        if PowerReading.ON not in words or PowerReading.OFF in words:
            raise _not_back(step, f"its power devices do not read on: {_said(last)}")
        await self._records.note_power(step, HostPower.ON, f"its power is on: {_said(last)}")
        return f"on: {_said(last)}"

    async def _read_empty(self, step: PowerStep, devices: tuple[FenceDevice, ...]) -> None:
        found: tuple[Domain, ...] = ()
        limit_s = step.policy.connect_deadline_s

        async def said() -> bool:
            nonlocal found
            try:
                async with self._hypervisor.session(step.host.uri, limit_s) as session:
                    found = await session.domains()
            except NoAnswer:
                return PowerReading.OFF in [word for _device, word in await self._asked(devices)]
            return True

        # One that hangs for all that time is known by its rows alone.
        await until(said, every_s=ANSWER_EVERY_S, within_s=limit_s)
        names = tuple(d.name for d in found if d.alive and d.generation is not None)
        if names:
            raise _not_empty(step, names)

    async def _on(self, step: PowerStep, devices: tuple[FenceDevice, ...]) -> None:
        for device in sorted(devices, key=lambda device: -device.level):
            await self._switch(step, device, HostPower.COMING_ON)

    async def _on_again(self, step: PowerStep, devices: tuple[FenceDevice, ...]) -> None:
        try:
            await self._on(step, devices)
        except NoAnswer:
            return  # what the devices read is asked again, and is what counts

    async def _switch(self, step: PowerStep, device: FenceDevice, power: HostPower) -> None:
        off = power is HostPower.GOING_OFF
        wanted = PowerReading.OFF if off else PowerReading.ON
        for left in reversed(range(device.retries + 1)):
            found = await read(self._power, device)
            if found is wanted or not (off or found is PowerReading.OFF):
                return
            claim = freshly(partial(self._records.claim_power, step, power))
            try:
                await (self._power.off if off else self._power.on)(device, claim)
            except NoAnswer:
                if not left:
                    raise
            else:
                return

    async def _asked(
        self, devices: tuple[FenceDevice, ...]
    ) -> tuple[tuple[FenceDevice, PowerReading], ...]:
        said = await ask(self._power, devices)
        return tuple((d, word) for d, (word, _took_s) in zip(devices, said, strict=True))


class Reboots:
    """A host that was switched on again: wait for it, let it be settled."""

    def __init__(self, hypervisor: Hypervisor, records: PowerRecords) -> None:
        self._hypervisor = hypervisor
        self._records = records

    @activity.defn(name="host.await_reboot")
    async def await_reboot(self, step: PowerStep) -> None:
        """Wait until libvirt answers on another boot than the one that was switched off.

        Conflict HOST_NOT_BACK when it does not within the policy's limit. Reads only.
        """
        said = "it did not answer"

        async def rebooted() -> bool:
            nonlocal said
            try:
                async with self._session(step) as session:
                    mark = await session.boot_mark()
            except NoAnswer:
                return False
            said = "it answers in the boot that it had, so that its power never was off"
            return mark != step.host.epoch

        limit_s = step.policy.power_on_answer_s
        if not await until(rebooted, every_s=ANSWER_EVERY_S, within_s=limit_s):
            raise _not_back(step, f"{said} within {limit_s:.0f} s")

    @activity.defn(name="host.begin_return")
    async def begin_return(self, step: PowerStep) -> None:
        """Let the host be reconciled."""
        await self._records.begin_return(step)

    def _session(self, step: PowerStep) -> AbstractAsyncContextManager[HypervisorSession]:
        return self._hypervisor.session(step.host.uri, step.policy.connect_deadline_s)


def _said(words: tuple[tuple[FenceDevice, PowerReading], ...]) -> str:
    return ", ".join(f"{device.name} reads {word}" for device, word in words)


def _not_empty(step: PowerStep, names: tuple[str, ...]) -> Conflict:
    host = step.host.name
    return Conflict(
        "HOST_NOT_EMPTY",
        f"{len(names)} guests of the engine are alive on {host} though no row says so, and would "
        f"lose their power: {', '.join(names[:5])}",
        next_step=f"`holdfast host activate {host}` settles them; then ask again",
        host=host,
    )


def _not_off(step: PowerStep, why: str) -> Conflict:
    return Conflict(
        "HOST_NOT_OFF",
        f"{step.host.name} was to be switched off, and {why}",
        next_step=f"look at the machine and its power devices (`holdfast fence test`), then retry "
        f"this operation or `holdfast host activate {step.host.name}`",
        host=step.host.name,
    )


def _not_back(step: PowerStep, why: str) -> Conflict:
    return Conflict(
        "HOST_NOT_BACK",
        f"{step.host.name} was to come back from its reboot, and {why}",
        next_step=f"look at the machine; once it is well, `holdfast host activate {step.host.name}`"
        " brings it and the VMs that wait for it back; `holdfast vm start NAME` starts one "
        "elsewhere",
        host=step.host.name,
    )
