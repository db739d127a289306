"""Processes as /proc shows them, and the rule of which ones the lab may end.

Invariants  a process is named by (pid, start time), so that a reused pid is never hit; a zombie
            counts as gone.
Races       any read of /proc may find the process ended: that is an answer (None), not an error.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from domain.base import Frozen
from domain.errors import NoAnswer

PROC = Path("/proc")
POLL_S = 0.01


class ProcessId(Frozen):
    """One life of one process; `started` is in clock ticks since the machine's boot."""

    pid: int
    started: int


class Stat(Frozen):
    """What /proc/PID/stat says that we need."""

    pid: int
    name: str
    state: str
    parent: int
    started: int

    @property
    def alive(self) -> bool:
        """Whether it still runs or could; stopped counts, a zombie does not."""
        return self.state not in "ZXx"


def stat(pid: int) -> Stat | None:
    """Read one process; None when there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name may hold blanks and brackets, so the fields start after the last bracket.
    head, _, tail = text.rpartition(")")
    fields = tail.split()
    name = head.partition("(")[2]
    return Stat(pid=pid, name=name, state=fields[0], parent=int(fields[1]), started=int(fields[19]))


def pids() -> Iterator[int]:
    """Every process id of this machine that we can see."""
    return (int(entry) for entry in os.listdir(PROC) if entry.isdigit())


def own_pid() -> int:
    """The process that asks."""
    return os.getpid()


def identify(pid: int) -> ProcessId | None:
    """Name a living process, or None."""
    found = stat(pid)
    return ProcessId(pid=pid, started=found.started) if found and found.alive else None


def alive(process: ProcessId | None) -> bool:
    """Whether exactly this process still lives."""
    return process is not None and identify(process.pid) == process


def arguments(pid: int) -> tuple[str, ...]:
    """The command line; empty for a zombie, a kernel thread or a process that is gone."""
    try:
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return ()
    return tuple(part.decode(errors="replace") for part in raw.split(b"\0")[:-1])


def pid_namespace(pid: int) -> int | None:
    """Inode of the process's PID namespace; None when it is gone or hidden from us, so not ours."""
    try:
        return os.stat(f"/proc/{pid}/ns/pid").st_ino
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None


def is_namespace_init(pid: int) -> bool:
    """Whether it is process 1 of a PID namespace below ours."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    for line in text.splitlines():
        if line.startswith("NSpid:"):
            ids = line.split()[1:]
            return len(ids) > 1 and ids[-1] == "1"
    return False


def send(process: ProcessId, number: signal.Signals) -> bool:
    """Signal exactly this process; False when it is gone already."""
    if not alive(process):
        return False
    try:
        os.kill(process.pid, number)
    except ProcessLookupError:
        return False
    return True


def until(
    holds: Callable[[], bool], deadline_s: float, what: str, *, poll_s: float = POLL_S
) -> None:
    """Wait until a condition holds; raises NoAnswer at the deadline. It is always asked once."""
    end = time.monotonic() + deadline_s
    while not holds():
        if time.monotonic() >= end:
            raise NoAnswer(
                "LAB_TIMEOUT",
                f"{what}: not after {deadline_s:g} s",
                next_step="`holdfast lab status` shows more; logs lie in the lab's folder",
            )
        time.sleep(poll_s)


def end(process: ProcessId | None, deadline_s: float = 10.0) -> None:
    """SIGKILL exactly this process and wait until it is gone; repeating it is harmless."""
    if process is None or not send(process, signal.SIGKILL):
        return
    until(lambda: not alive(process), deadline_s, f"process {process.pid} is gone")
