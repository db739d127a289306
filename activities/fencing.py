"""Steps of a fence: cut the power, read it back, certify. Never "cycle".

A power controller's answer to the command proves nothing; only a reading of off, taken afterwards
from every device of one level while none of the host reads on, does (`domain.topology`). "Already
off" is success, no answer never is. The claim that precedes the cut is one statement in the store
that holds every condition (armed, budget, epoch, not heard since), so a step that wakes up late
cuts nothing.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from typing import Protocol, TypeVar
from uuid import UUID

from pydantic import Field
from temporalio import activity

from activities.fence_readings import said_by, takes_another, with_witnesses, words_of
from activities.ports import Hypervisor, PowerSwitch
from activities.power import ask, briefly, in_turn, read, some
from activities.waiting import until
from activities.words import unless_said
from domain.base import Frozen
from domain.doors import KNOCK
from domain.errors import NoAnswer, Refused, Superseded
from domain.inventory import FenceDevice, PowerReading, Silence
from domain.orders import Certificate, Evidence, HostRef
from domain.profiles import Policy
from domain.readings import Knock
from domain.topology import next_level, proven_level

T = TypeVar("T")

SIGNS_OF_LIFE = {
    Knock.REFUSED: "refuses connections",
    Knock.OPEN: "takes connections",
    Knock.ANSWERS: "answers",
}
"""What a host that is not silent does; only the living do any of it."""


class FenceStep(Frozen):
    """One step of proving one host off; `level` None: the first one, or whichever proves it."""

    operation_id: UUID
    host: HostRef
    incident_id: UUID
    policy: Policy
    level: int | None = Field(default=None, exclude_if=lambda level: level is None)


class LevelCut(Frozen):
    """Which of several levels was cut; `why` says what went wrong with it, if anything."""

    level: int
    why: str = ""


class ReadLevelOrder(Frozen):
    """Read one level back, given what was read at those before it, after the first cut.

    `once` where a device of it took no command: then waiting for it to read off is no use.
    """

    step: FenceStep
    earlier: tuple[Evidence, ...] = ()
    once: bool = Field(default=False, exclude_if=lambda once: not once)


class LevelRead(Frozen):
    """What was read at one level; not proven means that the next one is to be cut."""

    proven: bool
    evidence: tuple[Evidence, ...]
    why: str


class ConfirmedOrder(Frozen):
    """Look whether anything speaks against a person's word that a host is dead."""

    step: FenceStep
    confirmation: Evidence


class CertifyOrder(Frozen):
    """Declare a host dead on this evidence."""

    operation_id: UUID
    host: HostRef
    incident_id: UUID
    evidence: tuple[Evidence, ...]
    proofs_required: int


class FenceRecords(Protocol):
    """The rows of fences and certificates. Every method is one transaction, and repeatable."""

    async def devices(self, host_id: UUID) -> tuple[FenceDevice, ...]:
        """The host's power controllers, by name."""
        ...

    async def given_up(self, incident_id: UUID) -> frozenset[str]:
        """Names of devices whose last answer was none: a person's word makes up for those."""
        ...

    async def words(self, incident_id: UUID) -> int:
        """How often somebody has said that the incident's host is dead."""
        ...

    async def words_known(self, operation_id: UUID) -> int:
        """The same, when this fence was decided on."""
        ...

    async def claim_fence(self, step: FenceStep) -> None:
        """Claim the right to cut power now; Refused (`FENCE_NOT_ALLOWED`) with the reasons."""
        ...

    async def add_evidence(self, step: FenceStep, evidence: tuple[Evidence, ...]) -> None:
        """Keep readings, whatever they say."""
        ...

    async def certify(self, order: CertifyOrder) -> Certificate:
        """Issue the certificate or give the one there is.

        Refused when the evidence is not enough, or the host was heard.
        """
        ...


class Fencing:
    """Cut, read back, certify."""

    def __init__(
        self,
        power: PowerSwitch,
        hypervisor: Hypervisor,
        records: FenceRecords,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._power = power
        self._hypervisor = hypervisor
        self._records = records
        self._now = now

    @activity.defn(name="fencing.read_power")
    async def read_power(self, step: FenceStep) -> tuple[Evidence, ...]:
        """Ask every device of a host; harms nobody. What each says is kept as evidence.

        Once a person says that the host is dead, whoever has not answered by then is not waited
        for; nor is it asked again, for whoever acts on that word asks everybody.
        """
        known = await self._records.words(step.incident_id)
        devices = await self._records.devices(step.host.host_id)
        given_up = await self._records.given_up(step.incident_id) if known else frozenset()
        asked = tuple(device for device in devices if device.name not in given_up)

        async def said() -> bool:
            return await self._records.words(step.incident_id) > known

        answers = await unless_said(said, self._readings(step, asked)) or ()
        told = {fact.device: fact for fact in answers}
        return tuple(told.get(device.name) or self._silence(device) for device in devices)

    def _silence(self, device: FenceDevice, took_s: float = 0.0) -> Evidence:
        return Evidence(
            device=device.name,
            verdict=PowerReading.UNKNOWN,
            took_s=took_s,
            at=self._now().isoformat(),
            level=device.level,
        )

    @activity.defn(name="fencing.power_off")
    async def power_off(self, step: FenceStep) -> LevelCut | None:
        """Cut one level, its devices side by side, unless they read off already; repeatable.

        None for a host that has but one level. A device that does not take the command is only
        told of where another level follows, else raised (NoAnswer), once the others were cut.
        """
        return await self._unless_said(step, lambda: self._power_off(step))

    async def _power_off(self, step: FenceStep) -> LevelCut | None:
        devices = await self._devices(step)
        level = next_level(devices, step.level or 1)
        if level is None:
            raise _unproven(step, f"no fence device is left from level {step.level} on")
        one_by_one = asyncio.Lock()
        cutting = [self._cut(step, d, one_by_one) for d in devices if d.level == level]
        failed = [e for e in await asyncio.gather(*cutting, return_exceptions=True) if e]
        last = next_level(devices, level + 1) is None
        for error in failed:
            if last or not isinstance(error, NoAnswer):
                raise error
        if last and next_level(devices) == level:
            return None
        return LevelCut(level=level, why="; ".join(str(error) for error in failed))

    async def _cut(self, step: FenceStep, device: FenceDevice, one_by_one: asyncio.Lock) -> None:
        began = _clock()
        word = await read(self._power, device)
        if word is PowerReading.OFF:
            return
        if word is PowerReading.UNKNOWN:  # counts when a person speaks: see `domain.topology`
            silence = self._silence(device, took_s=round(_clock() - began, 3))
            await self._records.add_evidence(step, (silence,))
        if device.delay_s:
            await asyncio.sleep(device.delay_s)

        claim = in_turn(one_by_one, partial(self._records.claim_fence, step))
        for left in reversed(range(device.retries + 1)):
            try:
                await self._power.off(device, claim)
                return
            except NoAnswer:
                if not left:
                    raise

    @activity.defn(name="fencing.read_back")
    async def read_back(self, step: FenceStep) -> tuple[Evidence, ...]:
        """Read until a level says off, then knock at the host, which must stay silent.

        NoAnswer when no level does within the limit, or when the knock could not be tried
        (`KNOCK_NOT_POSSIBLE`): not having asked is no silence. Refused (`SIGN_OF_LIFE`) when
        the host takes a connection or refuses it: then the device lies, or is another host's.
        """
        return await self._unless_said(step, lambda: self._read_back(step))

    async def _read_back(self, step: FenceStep) -> tuple[Evidence, ...]:
        devices = await self._devices(step)
        within_s = step.policy.off_read_back_s
        last, proven = await self._read_until_off(step, devices, (), within_s)
        if not proven:
            raise _unproven(step, said_by(last))
        return (*last, await self._kept_knock(step))

    @activity.defn(name="fencing.read_level")
    async def read_level(self, order: ReadLevelOrder) -> LevelRead:
        """As `read_back`, of one level; not proven is an answer where another level follows."""
        return await self._unless_said(order.step, lambda: self._read_level(order))

    async def _read_level(self, order: ReadLevelOrder) -> LevelRead:
        step = order.step
        devices = await self._devices(step)
        within_s = 0.0 if order.once else step.policy.off_read_back_s
        last, proven = await self._read_until_off(step, devices, order.earlier, within_s)
        if proven:
            knock = await self._kept_knock(step)
            why = f"level {step.level} reads off: {said_by(last)}"
            return LevelRead(proven=True, evidence=(*last, knock), why=why)
        if next_level(devices, (step.level or 1) + 1) is None:
            raise _unproven(step, said_by(last))
        why = f"level {step.level} does not prove it, the next one is to be cut: {said_by(last)}"
        return LevelRead(proven=False, evidence=last, why=why)

    async def _read_until_off(
        self,
        step: FenceStep,
        devices: tuple[FenceDevice, ...],
        earlier: tuple[Evidence, ...],
        within_s: float,
    ) -> tuple[tuple[Evidence, ...], bool]:
        """What was read last, and whether it proves the host off."""
        policy, last, proven = step.policy, tuple[Evidence, ...](), False
        proofs = policy.timing.proofs_required

        async def settled() -> bool:
            nonlocal last, proven
            now = await self._readings(step, devices)
            last = with_witnesses(now, earlier)
            witnesses = sum(fact.verdict is PowerReading.OFF for fact in last)
            proven = proven_level(words_of(now)) is not None and witnesses >= proofs
            return proven or takes_another(now, step.level)

        await until(settled, every_s=policy.off_read_every_s, within_s=within_s)
        return last, proven

    async def _kept_knock(self, step: FenceStep) -> Evidence:
        knock = await self._knock(step)
        await self._records.add_evidence(step, (knock,))
        return knock

    @activity.defn(name="fencing.check_word")
    async def check_word(self, order: ConfirmedOrder) -> tuple[Evidence, ...]:
        """A person's word with what every channel says; all of it is kept as evidence.

        All channels are asked side by side: the VMs wait for the slowest, not for the sum. What
        was heard at the door is no older than one more knock would take.
        Refused (`SIGN_OF_LIFE`) when a device reads on or the host does anything but stay silent;
        NoAnswer (`KNOCK_NOT_POSSIBLE`) when it could not be knocked at.
        """
        step, though = order.step, f"{order.confirmation.device} says that it is dead"
        asking, began = self._readings(step, await self._asked(step)), _clock()
        readings, knock = await asyncio.gather(
            asking, self._knock(step, though), return_exceptions=True
        )
        if isinstance(readings, BaseException):
            raise readings
        if on := [e.device for e in readings if e.verdict is PowerReading.ON]:
            raise Refused(
                "SIGN_OF_LIFE",
                f"{', '.join(on)} reads on though {order.confirmation.device} says that "
                f"{step.host.name} is dead",
                next_step="go and look at the machine again",
                host=step.host.name,
            )
        if isinstance(knock, BaseException):
            raise knock
        if _clock() - began > 2 * step.policy.knock_s:  # a device was slow: that silence is old
            knock = await self._knock(step, though)
        await self._records.add_evidence(step, (knock,))
        return (order.confirmation, *readings, knock)

    @activity.defn(name="fencing.certify")
    async def certify(self, order: CertifyOrder) -> Certificate:
        """Issue the death certificate; repeating it gives the same one.

        Refused where the evidence is not enough (`domain.proofs`).
        """
        return await self._records.certify(order)

    async def _unless_said(self, step: FenceStep, work: Callable[[], Awaitable[T]]) -> T:
        known = await self._records.words_known(step.operation_id)

        async def said() -> bool:
            return await self._records.words(step.incident_id) > known

        async def whole() -> tuple[T]:
            return (await work(),)

        done = await unless_said(said, whole())
        if done is None:
            raise Superseded(
                "SUPERSEDED",
                f"somebody says that {step.host.name} is dead, which needs no fence",
                next_step="the recovery goes on with that word",
                host=step.host.name,
            )
        return done[0]

    async def _devices(self, step: FenceStep) -> tuple[FenceDevice, ...]:
        devices = await self._records.devices(step.host.host_id)
        return some(devices, step.host)

    async def _asked(self, step: FenceStep) -> tuple[FenceDevice, ...]:
        """The host's devices; one that a person's word has made up for is asked only briefly."""
        devices = await self._records.devices(step.host.host_id)
        given_up = await self._records.given_up(step.incident_id)
        return tuple(briefly(d) if d.name in given_up else d for d in devices)

    async def _readings(
        self, step: FenceStep, devices: tuple[FenceDevice, ...]
    ) -> tuple[Evidence, ...]:
        said = await ask(self._power, devices, proofs=step.policy.timing.proofs_required)
        at = self._now().isoformat()
        readings = tuple(
            Evidence(device=d.name, verdict=verdict, took_s=took_s, at=at, level=d.level)
            for d, (verdict, took_s) in zip(devices, said, strict=True)
        )
        await self._records.add_evidence(step, readings)
        return readings

    async def _knock(self, step: FenceStep, though: str = "its power reads off") -> Evidence:
        began, host = _clock(), step.host
        knock = await self._hypervisor.knock(host.uri, step.policy.knock_s)
        if knock is not Knock.SILENT:
            raise Refused(
                "SIGN_OF_LIFE",
                f"{host.name} {SIGNS_OF_LIFE[knock]} at {host.uri} though {though}",
                next_step="check that the fence device belongs to this host: it may be lying",
                host=host.name,
            )
        took_s = round(_clock() - began, 3)
        at = self._now().isoformat()
        return Evidence(
            kind=KNOCK,
            device=host.name,
            verdict=Silence.SILENT,
            took_s=took_s,
            at=at,
            detail=host.uri,
        )


def _unproven(step: FenceStep, said: str) -> NoAnswer:
    return NoAnswer(
        "POWER_NOT_PROVEN_OFF",
        f"{step.host.name} is not proven off after {step.policy.off_read_back_s:.0f} s ({said})",
        next_step="check the power controller, or cut the power by hand",
        host=step.host.name,
    )


def _clock() -> float:
    return asyncio.get_running_loop().time()
