"""Steps of a rehearsal: test the devices; mark the host's boot, cut one level, bring it back.

The cut is claimed by one statement that holds every condition (in maintenance, empty, this very
operation, not the machine that the engine runs on), just before the devices are told. What was cut
is written down before it is, so that a rehearsal that ends in the middle leaves its trace.
"""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from typing import Protocol
from uuid import UUID

from pydantic import Field
from temporalio import activity

from activities.fence_checks import FenceCheckRecords, FenceChecks
from activities.ports import Claim, Hypervisor, HypervisorSession, PowerSwitch
from activities.power import in_turn, read, some, switch_on
from activities.waiting import answered, until
from domain.base import Frozen
from domain.errors import Conflict, EngineError, NoAnswer, Refused
from domain.inventory import FenceDevice, PowerReading
from domain.orders import HostRef
from domain.profiles import Policy
from domain.readings import Knock
from domain.rehearsal import LevelBack, LevelOff, sentence, switch_it_on, verdict

POLL_S = 0.5
"""Between two looks at what takes long: a cut that takes effect, a host that boots. Higher: the
host is off longer than it has to be. Lower: BMCs are asked more often."""


class RehearsalStep(Frozen):
    """Rehearse on one host; `level` is 0 before the first one."""

    operation_id: UUID
    host: HostRef
    policy: Policy
    level: int = 0
    attempt: int = Field(default=1, exclude_if=lambda attempt: attempt == 1)


class BackOrder(Frozen):
    """Bring the host back after a level was cut; `off` None: how that ended is not known."""

    step: RehearsalStep
    off: LevelOff | None = None


class RehearsalRecords(FenceCheckRecords, Protocol):
    """The rows of fence devices. Every method is one transaction, and repeatable."""

    async def cut_levels(self, host: HostRef) -> tuple[int, ...]:
        """The levels that were cut and are not known to be back, in order."""
        ...

    async def forget(self, step: RehearsalStep) -> None:
        """Forget what an earlier rehearsal of the level has shown, unless it is cut still."""
        ...

    async def claim_cut(self, step: RehearsalStep, devices: tuple[UUID, ...], at: datetime) -> None:
        """Note that these devices are cut from now on; Refused (`REHEARSAL_NOT_ALLOWED`)."""
        ...

    async def note_back(self, step: RehearsalStep, back: LevelBack, at: datetime) -> None:
        """Keep what the devices of a level have shown, unless this try is over."""
        ...


class Rehearsing:
    """Mark, cut, bring back."""

    def __init__(
        self,
        power: PowerSwitch,
        hypervisor: Hypervisor,
        records: RehearsalRecords,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._power = power
        self._hypervisor = hypervisor
        self._records = records
        self._checks = FenceChecks(power, hypervisor, records, now)
        self._now = now

    @activity.defn(name="rehearsal.begin")
    async def begin(self, step: RehearsalStep) -> tuple[int, ...]:
        """Test the devices without switching anything; their levels, in order.

        A later try first brings back what an earlier one has left cut. Repeatable.
        FENCE_TEST_FAILED where one is known to be wrong before anything is cut, NoAnswer
        HOST_LEFT_OFF when the host did not come back.
        """
        if step.attempt > 1:
            for level in await self._records.cut_levels(step.host):
                left = step.model_copy(update={"level": level})
                await self.bring_back(BackOrder(step=left))
        devices = some(await self._records.devices(step.host.host_id), step.host)
        await self._checks.test(step.host, step.policy)
        return tuple(sorted({device.level for device in devices}))

    @activity.defn(name="rehearsal.mark")
    async def mark(self, step: RehearsalStep) -> None:
        """Mark this boot of the host, whose end the mark will not outlive; repeatable.

        Refused: HOST_NOT_EMPTY where any guest runs, whoever's it is, HOST_NO_ANSWER, EPOCH_STALE.
        """
        # Its libvirtd may be restarted once more while a host comes up after the level before.
        within_s = step.policy.connect_deadline_s
        try:
            await answered(lambda: self._mark(step), every_s=POLL_S, within_s=within_s)
        except NoAnswer as error:
            raise _silent(step, error) from error
        await self._records.forget(step)

    async def _mark(self, step: RehearsalStep) -> None:
        async with self._session(step) as session:
            mark = await session.boot_mark()
            running = tuple(d.name for d in await session.domains() if d.alive)
            if mark is not None and mark > step.host.epoch:
                raise _overtaken(step, mark)
            if running:
                raise _not_empty(step, running)
            if mark != step.host.epoch:
                await session.set_boot_mark(step.host.epoch)

    @activity.defn(name="rehearsal.cut")
    async def cut(self, step: RehearsalStep) -> LevelOff:
        """Cut every device of a level and see what falls silent; off already is success.

        Never raises for a device. Refused REHEARSAL_NOT_ALLOWED: nothing was cut.
        """
        devices = await self._level(step)
        ids = tuple(device.id for device in devices)
        claim = in_turn(asyncio.Lock(), lambda: self._records.claim_cut(step, ids, self._now()))
        await claim()  # first of all: a refusal here says that nothing was cut
        troubles = await asyncio.gather(*(self._off(device, claim) for device in devices))

        async def reads_off() -> bool:
            readings = await asyncio.gather(*(read(self._power, device) for device in devices))
            return all(reading is PowerReading.OFF for reading in readings)

        within_s = step.policy.off_read_back_s
        if not await until(reads_off, every_s=POLL_S, within_s=within_s):
            why = "; ".join(filter(None, troubles)) or f"not within {within_s:g} s"
            return LevelOff(level=step.level, read_off=False, why=why)
        try:
            knock = await answered(
                lambda: self._hypervisor.knock(step.host.uri, step.policy.knock_s),
                every_s=POLL_S,
                within_s=within_s,
            )
        except NoAnswer as error:  # it says nothing about the host, so it shows nothing
            return LevelOff(level=step.level, read_off=False, why=error.detail)
        return LevelOff(level=step.level, read_off=True, silent=knock is Knock.SILENT)

    @activity.defn(name="rehearsal.bring_back")
    async def bring_back(self, order: BackOrder) -> LevelBack:
        """Switch on whatever reads off, until all of it reads on and the host answers; repeatable.

        After a cut that was not read off, one that may still take effect, the boot that was marked
        has to answer for as long as that may take, or another one instead of it. NoAnswer
        HOST_LEFT_OFF when it did not within the time of a boot.
        """
        step = order.step
        devices = await self._records.devices(step.host.host_id)
        level = tuple(device for device in devices if device.level == step.level)
        missing = "it was not tried"
        rebooted = False
        settles_s = _settles_s(order, level)
        clock = asyncio.get_running_loop().time
        steady_since: float | None = None  # from when on the marked boot answers without a break

        async def is_back() -> bool:
            nonlocal rebooted, missing, steady_since
            asked_at = clock()
            switched: tuple[str, ...] = ()
            try:
                switched = await switch_on(self._power, devices)
                missing = await self._not_on(level)
                async with self._session(step) as session:
                    rebooted = await session.boot_mark() is None
            except EngineError as error:
                missing = error.detail
            if not missing and (rebooted or not settles_s):
                return True
            if missing or switched:
                steady_since = None
                return False
            steady_since = asked_at if steady_since is None else steady_since
            return clock() - steady_since >= settles_s

        within_s = step.policy.power_on_answer_s + settles_s
        if not await until(is_back, every_s=POLL_S, within_s=within_s):
            raise _left_off(step, within_s, missing)
        names = tuple(device.name for device in level)
        shown = verdict(order.off, rebooted=rebooted)
        said = sentence(step.level, names, shown, order.off)
        back = LevelBack(level=step.level, verdict=shown, said=said)
        await self._records.note_back(step, back, self._now())
        return back

    async def _not_on(self, level: tuple[FenceDevice, ...]) -> str:
        """Which devices read off still, if any. One that says nothing cannot keep a host off."""
        readings = await asyncio.gather(*(read(self._power, device) for device in level))
        off = [d.name for d, said in zip(level, readings, strict=True) if said is PowerReading.OFF]
        return f"{', '.join(off)} reads off" if off else ""

    async def _level(self, step: RehearsalStep) -> tuple[FenceDevice, ...]:
        devices = await self._records.devices(step.host.host_id)
        return some(tuple(d for d in devices if d.level == step.level), step.host)

    async def _off(self, device: FenceDevice, claim: Claim) -> str:
        """What went wrong with the command, if anything; claimed anew just before it."""
        try:
            await self._power.off(device, claim)
        except EngineError as error:
            return error.detail
        return ""

    def _session(self, step: RehearsalStep) -> AbstractAsyncContextManager[HypervisorSession]:
        return self._hypervisor.session(step.host.uri, step.policy.connect_deadline_s)


def _settles_s(order: BackOrder, level: tuple[FenceDevice, ...]) -> float:
    """For how many seconds a cut may still take effect that is not known to have done so."""
    if order.off is not None and order.off.read_off:
        return 0.0
    return max(order.step.policy.off_settles_s, *(device.deadline_s for device in level), 0.0)


def _silent(step: RehearsalStep, error: NoAnswer) -> Refused:
    name = step.host.name
    return Refused(
        "HOST_NO_ANSWER",
        f"{name} does not answer ({error.detail}), so that its silence would prove nothing",
        next_step=f"`holdfast host activate {name}`, `host maintain {name}`, then try again",
        host=name,
    )


def _not_empty(step: RehearsalStep, running: tuple[str, ...]) -> Conflict:
    name, some_of = step.host.name, ", ".join(running[:5])
    return Conflict(
        "HOST_NOT_EMPTY",
        f"{len(running)} guests run on {name} and would lose their power: {some_of}",
        next_step="stop or move them, those that are not the engine's as well",
        host=name,
    )


def _overtaken(step: RehearsalStep, mark: int) -> Conflict:
    return Conflict(
        "EPOCH_STALE",
        f"{step.host.name} bears the mark of epoch {mark}, the engine knows {step.host.epoch}",
        next_step="another engine manages this host: find out which one should",
        host=step.host.name,
    )


def _left_off(step: RehearsalStep, within_s: float, why: str) -> NoAnswer:
    name = step.host.name
    return NoAnswer(
        "HOST_LEFT_OFF",
        f"{name} was cut at level {step.level} and is not back after {within_s:.0f} s: {why}",
        next_step=switch_it_on(name),
        host=name,
    )
