"""Count the copies of each VM that run, independently of any engine and of libvirt.

It reads /proc alone: a copy is a living QEMU process with a guest's name, and the inode of its PID
namespace tells its host. Paused guests and migration targets count (they may write to the disks);
zombies, libvirt's capability probes and guests of other labs do not.

Invariants  a VM's figure is the largest number of its processes alive in one scan. Two processes
            are copies of one VM when name *or* UUID agree, so neither a renamed nor a redefined
            copy is missed. `longest_gap_s` says how long the sampler may have been blind.
Races       the inode of an ended namespace is used again, so the host of a new process is looked up
            afresh and never remembered by inode.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Literal, Self

from domain.base import Frozen
from lab import processes
from lab.processes import ProcessId

PERIOD_S = 0.08
"""Pause between scans. Shorter: the sampler's own load shows in what is measured. Longer: fewer
than the ten scans a second that make a copy of 0.1 s visible."""

QEMU_NAME = "qemu-system"


class Copy(Frozen):
    """One QEMU process of a lab's host."""

    vm: str
    uuid: str
    host: str
    pid: int


class Sighting(Frozen):
    """A copy came or went; `t` is the monotonic clock in seconds."""

    t: float
    what: Literal["appeared", "vanished"]
    guest: Copy


class Samples(Frozen):
    """What one sampler saw."""

    most: dict[str, int]
    timeline: tuple[Sighting, ...]
    running: tuple[Copy, ...]
    scans: int
    elapsed_s: float
    longest_gap_s: float

    def copies_max(self, vm: str) -> int:
        """The most copies of a VM (by name or UUID) alive at once; 0 when it was never seen."""
        return self.most.get(vm, 0)

    def doubled(self) -> tuple[str, ...]:
        """Names and UUIDs of all VMs that ran twice at some moment."""
        return tuple(sorted(vm for vm, copies in self.most.items() if copies > 1))

    def hosts_of(self, vm: str) -> tuple[str, ...]:
        """Hosts on which a VM (by name or UUID) runs at the last scan."""
        return tuple(copy.host for copy in self.running if vm in (copy.vm, copy.uuid))

    @property
    def rate_hz(self) -> float:
        """Scans a second."""
        return self.scans / self.elapsed_s if self.elapsed_s else 0.0


class Sampler:
    """A context manager that scans in its own thread. `result` may be asked at any time.

    `hosts` gives the PID-namespace inode of each running host.
    """

    def __init__(self, hosts: Callable[[], Mapping[int, str]], period_s: float = PERIOD_S) -> None:
        self._hosts = hosts
        self._period_s = period_s
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._loop, name="copy-sampler", daemon=True)
        self._live: dict[ProcessId, Copy] = {}
        self._most: Counter[str] = Counter()
        self._timeline: list[Sighting] = []
        self._scans = 0
        self._started = self._last = 0.0
        self._longest_gap_s = 0.0
        self._failure: BaseException | None = None

    def __enter__(self) -> Self:
        self._started = self._last = time.monotonic()
        self._scan()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _loop(self) -> None:
        try:
            while not self._stop.wait(self._period_s):
                self._scan()
        except BaseException as error:
            # A sampler that died in silence would prove that nothing was doubled.
            self._failure = error
            raise

    def result(self) -> Samples:
        """Everything seen so far; raises RuntimeError when the scanning thread failed."""
        if self._failure is not None:
            raise RuntimeError("the copy sampler failed; its figures are void") from self._failure
        with self._lock:
            return Samples(
                most=dict(self._most),
                timeline=tuple(self._timeline),
                running=tuple(self._live.values()),
                scans=self._scans,
                elapsed_s=self._last - self._started,
                longest_gap_s=self._longest_gap_s,
            )

    def _scan(self) -> None:
        found = dict(self._copies())
        now = time.monotonic()
        with self._lock:
            self._note(now, found)
            self._longest_gap_s = max(self._longest_gap_s, now - self._last)
            self._last = now
            self._scans += 1

    def _copies(self) -> Iterator[tuple[ProcessId, Copy]]:
        hosts: Mapping[int, str] | None = None
        for pid in processes.pids():
            found = processes.stat(pid)
            if found is None or not found.alive or not found.name.startswith(QEMU_NAME):
                continue
            process = ProcessId(pid=pid, started=found.started)
            known = self._live.get(process)
            if known is None:
                hosts = self._hosts() if hosts is None else hosts
                known = _read_copy(pid, hosts)
            if known is not None:
                yield process, known

    def _note(self, now: float, found: dict[ProcessId, Copy]) -> None:
        for process, copy in self._live.items():
            if process not in found:
                self._timeline.append(Sighting(t=now, what="vanished", guest=copy))
        for process, copy in found.items():
            if process not in self._live:
                self._timeline.append(Sighting(t=now, what="appeared", guest=copy))
        self._live = found
        counted = Counter(copy.vm for copy in found.values())
        counted.update(copy.uuid for copy in found.values() if copy.uuid)
        for vm, copies in counted.items():
            self._most[vm] = max(self._most[vm], copies)


def _read_copy(pid: int, hosts: Mapping[int, str]) -> Copy | None:
    argv = processes.arguments(pid)
    host = hosts.get(processes.pid_namespace(pid) or 0)
    vm = guest_name(argv)
    if host is None or vm is None:
        return None
    return Copy(vm=vm, uuid=_option(argv, "-uuid") or "", host=host, pid=pid)


def guest_name(argv: tuple[str, ...]) -> str | None:
    """The guest's name on a QEMU command line; None for a probe, which has none."""
    for part in (_option(argv, "-name") or "").split(","):
        if part.startswith("guest="):
            return part.removeprefix("guest=")
    return None


def _option(argv: tuple[str, ...], name: str) -> str | None:
    try:
        return argv[argv.index(name) + 1]
    except (ValueError, IndexError):
        return None
