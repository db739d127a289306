"""What switching a host off and on again through one level of its devices has shown.

A status says that a device answers, not whose power it holds. A rehearsal does: the host's own
door has to fall silent while the level reads off, and the host has to come back as another boot,
without the mark that it was given before. One that lives on though its level reads off is not what
the level cuts, and another machine may just have lost its power.
"""

from enum import StrEnum

from domain.base import Frozen


class Rehearsed(StrEnum):
    """What the last rehearsal of a device has shown; `cut`: it is not known to be back."""

    CUT = "cut"
    PROVEN = "proven"
    OTHER = "other"
    FAILED = "failed"


class LevelOff(Frozen):
    """What was seen after a level was told to cut."""

    level: int
    read_off: bool  # all of its devices
    silent: bool = False  # the host, while they did
    why: str = ""  # it is not so


class LevelBack(Frozen):
    """What one level turned out to be, once the host answers again."""

    level: int
    verdict: Rehearsed
    said: str


def verdict(off: LevelOff | None, *, rebooted: bool) -> Rehearsed:
    """What a level has shown; None: nobody knows what its cut did."""
    if off is None or not off.read_off:
        return Rehearsed.FAILED
    return Rehearsed.PROVEN if off.silent and rebooted else Rehearsed.OTHER


def sentence(level: int, devices: tuple[str, ...], shown: Rehearsed, off: LevelOff | None) -> str:
    """The same in words."""
    names = ", ".join(devices)
    if shown is Rehearsed.PROVEN:
        return f"level {level} ({names}) cuts this host"
    if shown is Rehearsed.FAILED:
        why = (off.why if off is not None else "") or "how its cut ended is not known"
        return f"level {level} ({names}) did not read off: {why}"
    which = "this device cuts" if len(devices) == 1 else "one of these devices cuts"
    how = "kept running" if off is not None and off.silent else "kept answering"
    return f"the host {how} while level {level} ({names}) read off: {which} another machine"


def switch_it_on(host: str) -> str:
    """What a person does about a host that a rehearsal may have left off."""
    return (
        f"`holdfast host activate {host}` switches it on once its devices answer, or do it at the"
        " machine; `holdfast fence list` shows which of them are cut"
    )
