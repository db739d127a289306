"""Who a monitor's name belongs to: one process, told apart from every other one there ever was.

A name is stable over restarts, so that counts go on; two live processes of one name would overwrite
each other's observations. Each writes its mark, and writes only while the mark is its own. A new
one that finds another's mark takes the name at once when it can see that process to be dead; else
it watches for a while whether the other still gives signs of life.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from activities.waiting import until
from domain.eyes import BEAT_S
from engine.records.watching import WatchRecords
from store.observations import Me, Watched, name_taken

TAKEN_S = 3 * BEAT_S
"""How long a new process watches whether the owner of its name lives. Higher: a machine that has
booted watches its hosts later. Lower: one whose database is slow loses its name."""

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def _unknown(mark: str) -> bool:
    """Whether the process of a mark is known to be dead; here nobody knows."""
    return False


class Identity(NamedTuple):
    """One process: its machine, its mark, and how to tell that another's process is dead."""

    machine: str = ""
    mark: str = ""
    is_dead: Callable[[str], bool] = _unknown


def this_process(machine: str) -> Identity:
    """The identity of this process; others of the same boot and process namespace are seen."""
    return Identity(machine, _mark(os.getpid()), _dead_here)


def _mark(pid: int) -> str:
    namespace = os.stat("/proc/self/ns/pid").st_ino
    return f"{BOOT_ID.read_text().strip()}/{namespace}/{pid}/{_started(pid)}"


def _started(pid: int) -> str:
    """When a process began, in ticks since the boot; empty when there is none.

    The 22nd field of `/proc/PID/stat` (proc_pid_stat(5)); the name before it may hold spaces.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[19]


def _dead_here(mark: str) -> bool:
    place, _, rest = mark.rpartition("/")
    pid = place.rpartition("/")[2]
    if not (pid.isdigit() and rest):
        return False
    here = _mark(int(pid))
    # Of another boot or namespace this process sees nothing.
    return here.rsplit("/", 2)[0] == mark.rsplit("/", 2)[0] and here != mark


async def take_name(records: WatchRecords, name: str, who: Identity) -> Watched:
    """Register under a name, and begin afresh; what the name has counted so far.

    Conflict (`MONITOR_NAME_TAKEN`) when a live process has it. Repeatable.
    """
    known = await records.eyes.find(name)
    others = known is not None and known.owner not in ("", who.mark)
    if known is not None and others and not (known.gone or who.is_dead(known.owner)):

        async def moved() -> bool:
            now = await records.eyes.find(name)
            return now is not None and now.sequence != known.sequence

        if await until(moved, every_s=BEAT_S / 4, within_s=TAKEN_S):
            raise name_taken(name, known.machine)
    was = None if known is None else known.owner
    return await records.register(name, Me(who.mark, who.machine), was)
