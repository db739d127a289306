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

from domain.inventory import FenceDevice, PowerReading

LEVELS_MAX = 9
"""Levels run from 1 (tried first) to 9, as in Pacemaker."""


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


def next_level(devices: Iterable[FenceDevice], first: int = 1) -> int | None:
    """The lowest level from `first` on that has a device, or None."""
    return min((device.level for device in devices if device.level >= first), default=None)
