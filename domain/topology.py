"""How a host's fence devices prove it off together: levels, tried one after the other.

A level is a set of devices that only together keep a host without power, such as the two outlets
of two power supplies: all of them have to read off. One level is enough, since each is a way to
switch the host off by itself. But a reading of on by *any* device of the host is no proof, also
by one of another level: it contradicts, and a doubt is worth more than a second. That has a price
for the usual pair of a BMC (level 1) and the outlets that feed the host (level 2): an outlet reads
on while it carries current, so the host is proven off only once the outlets are cut as well. No
answer contradicts nothing, or a controller that died with its host would block every other one.
"""

from collections.abc import Iterable

from domain.base import Frozen
from domain.inventory import FenceDevice, PowerReading
from domain.profiles import Policy

MISSES = 2
"""After how many questions without any answer a device is given up for a person's word. Higher: the
VMs wait longer for a controller that died with its host. Lower: one answer that was lost on the way
all but silences a controller that could say that the host lives."""

LEVELS_MAX = 9
"""Levels run from 1 (tried first) to 9, as in Pacemaker."""

RETRY_FIRST_S = 0.5
RETRY_MAX_S = 5.0
"""First and longest wait between tries of a step that touches power, doubled in between. Higher: a
controller that had a bad moment costs more. Lower: the tries of a dead one follow on each other."""

FENCE_LIMIT_S = 300.0
"""How long a fence of a host may take at most, unless a cluster says otherwise. A BMC with the
default deadline needs 125 s in the worst case, with outlets behind it 165 s. Higher: whoever waits
for a fence waits longer before it is given up. Lower: fewer levels and retries are possible."""


def proven_level(readings: Iterable[tuple[int, PowerReading]], proofs: int = 1) -> int | None:
    """The first level that proves a host off, given the level and the word of each device.

    None while a device reads on, while no level reads off as a whole, or while fewer than `proofs`
    devices of any level read off: each device is a witness of its own.
    """
    said = tuple(readings)
    words = [word for _level, word in said]
    if PowerReading.ON in words or words.count(PowerReading.OFF) < max(1, proofs):
        return None
    missing = {level for level, word in said if word is not PowerReading.OFF}
    return min((level for level, _word in said if level not in missing), default=None)


def given_up(said: Iterable[tuple[str, str]]) -> frozenset[str]:
    """Devices that have said nothing in a whole incident, given each device and word of it."""
    words: dict[str, list[str]] = {}
    for device, word in said:
        words.setdefault(device, []).append(word)
    return frozenset(
        device
        for device, told in words.items()
        if len(told) >= MISSES and set(told) == {PowerReading.UNKNOWN}
    )


def next_level(devices: Iterable[FenceDevice], first: int = 1) -> int | None:
    """The lowest level from `first` on that has a device, or None."""
    return min((device.level for device in devices if device.level >= first), default=None)


def provable(devices: Iterable[FenceDevice], proofs: int = 1) -> bool:
    """Whether these devices, all of them at their best, are enough to prove a host off."""
    return (
        proven_level(((device.level, PowerReading.OFF) for device in devices), proofs) is not None
    )


def survives_power_loss(devices: Iterable[FenceDevice], proofs: int = 1) -> bool:
    """Whether these devices could still prove a host off that has lost its supply.

    Otherwise nothing answers that could: its recovery waits for a person.
    """
    silent, off = PowerReading.UNKNOWN, PowerReading.OFF
    said = ((d.level, silent if d.shares_power else off) for d in devices)
    return proven_level(said, proofs) is not None


class LevelBudget(Frozen):
    """The longest that one level may take, in seconds; the last level is tried `tries` times."""

    level: int
    devices: int
    off_s: float  # one try to cut it: asked first, delayed, cut, each as often as it may be
    read_s: float  # one try to read it back, with the knock
    tries: int
    waits_s: float  # between its tries, of both

    @property
    def total_s(self) -> float:
        """All of its tries."""
        return self.tries * (self.off_s + self.read_s) + self.waits_s


class FenceBudget(Frozen):
    """The longest that a fence of one host may take until it is proven off or given up."""

    levels: tuple[LevelBudget, ...]

    @property
    def total_s(self) -> float:
        """All levels, one after the other."""
        return sum(level.total_s for level in self.levels)


def fence_budget(devices: Iterable[FenceDevice], policy: Policy) -> FenceBudget:
    """Add up a host's worst case: every device silent to its deadline, every try made in vain.

    What the engine itself needs between its steps (milliseconds, while its database and Temporal
    answer) is not counted, nor is a recovery's beginning again after it.
    """
    known = tuple(devices)
    numbers = sorted({device.level for device in known})
    # Whatever level is read back, all devices of the host are asked: any may contradict.
    look_s = max((_asked_s(device) for device in known), default=0.0)
    read_s = policy.off_read_back_s + look_s + policy.knock_s
    levels = []
    for number in numbers:
        here = [device for device in known if device.level == number]
        tries = policy.fence_tries if number == numbers[-1] else 1
        levels.append(
            LevelBudget(
                level=number,
                devices=len(here),
                off_s=max(_asked_s(d) + d.delay_s + _asked_s(d) for d in here),
                read_s=read_s,
                tries=tries,
                waits_s=2 * sum(_retry_waits_s(tries)),
            )
        )
    return FenceBudget(levels=tuple(levels))


def _asked_s(device: FenceDevice) -> float:
    return (1 + device.retries) * device.deadline_s


def _retry_waits_s(tries: int) -> Iterable[float]:
    return (min(RETRY_FIRST_S * 2**number, RETRY_MAX_S) for number in range(tries - 1))
