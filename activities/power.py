"""Asking the power controllers of one host, side by side."""

import asyncio
import contextlib
import time

from activities.ports import Claim, PowerSwitch
from domain.errors import NoAnswer, Refused
from domain.inventory import FenceDevice, PowerReading
from domain.orders import HostRef
from domain.topology import proven_level

CONTRADICT_S = 2.0
"""How long the other devices of a host are waited for once a whole level of it reads off.

Higher: VMs wait longer for a controller that died with its host. Lower: a slow one cannot say that
the power is on. An `ipmitool` session takes 0.2 s in the lab and up to 2 s on slow BMCs."""


ASKED_AGAIN_S = 0.5
"""How long a device is asked once more that said nothing before, when a person says that its host
is dead: as long as the host itself is listened at meanwhile (`Policy.knock_s`), so that it costs
nothing. Higher: the VMs wait longer for a controller that died with its host. Lower: one that only
had a bad moment cannot contradict; IPMI takes 0.15 s in the lab."""


FRESH_S = 2.0
"""How old a claim may be when its command is sent. Higher: a process that stood still in between
sends a command that nothing speaks for any more. Lower: a slow database is asked again and again.
"""

CLAIMS_MOST = 5


def freshly(claim: Claim) -> Claim:
    """The claim, made again when this process or its machine stood still meanwhile.

    It counts the same however often one step makes it. NoAnswer (`CLAIM_TOO_SLOW`) when it takes
    too long each time.
    """

    async def made() -> None:
        for _ in range(CLAIMS_MOST):
            began = _clocks()
            await claim()
            if all(now - was <= FRESH_S for now, was in zip(_clocks(), began, strict=True)):
                return
        raise NoAnswer(
            "CLAIM_TOO_SLOW",
            f"the right to switch power came later than {FRESH_S:.0f} s after it was asked for, "
            f"{CLAIMS_MOST} times",
            next_step="see why the engine's database is slow",
        )

    return made


def in_turn(turn: asyncio.Lock, claim: Claim) -> Claim:
    """The claim of one of several devices, made freshly once its turn has come.

    How long it waits for that makes no claim late: whose turn has not come asks for nothing yet.
    """
    fresh = freshly(claim)

    async def made() -> None:
        async with turn:
            await fresh()

    return made


def _clocks() -> tuple[float, float]:
    """The loop's, and one that goes on while the machine is suspended."""
    return asyncio.get_running_loop().time(), time.clock_gettime(time.CLOCK_BOOTTIME)


def some(devices: tuple[FenceDevice, ...], host: HostRef) -> tuple[FenceDevice, ...]:
    """The devices of a host; Refused (`NO_FENCE_DEVICE`) when there is none."""
    if not devices:
        raise Refused(
            "NO_FENCE_DEVICE",
            f"{host.name} has no fence device",
            next_step="add one with `holdfast fence add`",
            host=host.name,
        )
    return devices


def briefly(device: FenceDevice) -> FenceDevice:
    """A device to be asked once, for no longer than `ASKED_AGAIN_S`."""
    deadline_s = min(device.deadline_s, ASKED_AGAIN_S)
    return device.model_copy(update={"deadline_s": deadline_s, "retries": 0})


def patient(device: FenceDevice) -> FenceDevice:
    """A device to be asked once more, whatever its retries: a packet that was lost is no reason for
    a warning.
    """
    return device.model_copy(update={"retries": max(1, device.retries)})


async def read(power: PowerSwitch, device: FenceDevice) -> PowerReading:
    """What a device says, asked again as often as it may be; repeatable, never raises for it."""
    verdict = await power.read(device)
    for _again in range(device.retries):
        if verdict is not PowerReading.UNKNOWN:
            break
        verdict = await power.read(device)
    return verdict


async def switch_on(power: PowerSwitch, devices: tuple[FenceDevice, ...]) -> tuple[str, ...]:
    """Switch on every device that reads off, the highest level first; their names. Repeatable.

    What was cut last feeds what was cut first: an outlet its host's BMC, which answers only some
    time after its outlet is on, so whoever waits for a host asks for this again and again. NoAnswer
    when a device did not take the command.
    """
    switched = []
    for device in sorted(devices, key=lambda device: -device.level):
        if await power.read(device) is PowerReading.OFF:
            await power.on(device)
            switched.append(device.name)
    return tuple(switched)


Said = tuple[tuple[PowerReading, float], ...]
"""What each of some devices said, and how many seconds that took."""


def proves_off(devices: tuple[FenceDevice, ...], said: Said) -> bool:
    """Whether what these devices said proves their host off (`domain.topology`)."""
    words = ((device.level, word) for device, (word, _s) in zip(devices, said, strict=True))
    return proven_level(words) is not None


async def ask(power: PowerSwitch, devices: tuple[FenceDevice, ...], *, proofs: int = 1) -> Said:
    """What each device says and how many seconds that took, in the order given.

    Ends when all have answered, or `CONTRADICT_S` after those that have prove the host off: one
    that has not answered by then reads `unknown`.
    """
    clock = asyncio.get_running_loop().time
    began, said = clock(), dict[int, tuple[PowerReading, float]]()
    waiting: dict[int, asyncio.Timeout] = {}
    until_s: float | None = None

    async def one(number: int) -> None:
        nonlocal until_s
        verdict = PowerReading.UNKNOWN
        with contextlib.suppress(TimeoutError):  # not waited for any longer: no answer
            async with asyncio.timeout_at(until_s) as waiting[number]:
                verdict = await read(power, devices[number])
        del waiting[number]
        said[number] = (verdict, round(clock() - began, 3))
        if until_s is None and proven_level(_words(devices, said), proofs) is not None:
            until_s = clock() + CONTRADICT_S
            for limit in waiting.values():
                limit.reschedule(until_s)

    await asyncio.gather(*(one(number) for number in range(len(devices))))
    return tuple(said[number] for number in range(len(devices)))


def _words(
    devices: tuple[FenceDevice, ...], said: dict[int, tuple[PowerReading, float]]
) -> list[tuple[int, PowerReading]]:
    silent = (PowerReading.UNKNOWN, 0.0)
    return [(d.level, said.get(number, silent)[0]) for number, d in enumerate(devices)]
