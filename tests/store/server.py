"""A private database server: started by the tests, on loopback, gone with them.

A child of the test process that the kernel stops when its parent dies. What differs between the
makes of server is the commands, and the signals by which they end.
"""

import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

LIMIT_S = 60
MEMORY = Path("/dev/shm")
"""Where data directories lie if there is such a place: copying a template takes a tenth there."""


class PrivateServer(ABC):
    """One server with its data directory."""

    make: ClassVar[str]
    politely: ClassVar[signal.Signals]
    """Ends it, dropping its connections."""
    at_once: ClassVar[signal.Signals]
    """Ends it without tidying up."""

    def __init__(self) -> None:
        where = MEMORY if os.access(MEMORY, os.W_OK) else None
        self._folder = Path(tempfile.mkdtemp(prefix=f"holdfast-{self.make.lower()}-", dir=where))
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()

    @abstractmethod
    def url(self, database: str) -> str:
        """SQLAlchemy's address of one database."""

    @abstractmethod
    def serve(self) -> list[str]:
        """The command line of the server."""

    @abstractmethod
    def ping(self) -> list[str]:
        """A command line that succeeds once the server takes connections."""

    def start(self) -> None:
        """Start the server and wait until it takes connections."""
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(self.serve(), stdout=log, stderr=log, cwd=self._folder)
        deadline = time.monotonic() + LIMIT_S
        while not self._ready():
            assert time.monotonic() < deadline, self._said("is not ready in time")
            try:
                self._process.wait(timeout=0.05)
            except subprocess.TimeoutExpired:
                continue
            raise AssertionError(self._said("ended at once"))

    @property
    def running(self) -> bool:
        """Whether it was started and not stopped since."""
        return self._process is not None

    def stop(self) -> None:
        """Stop the server, dropping its connections; stopped already is fine."""
        self._end(self.politely)

    def pause(self) -> None:
        """Let it stand still, as a frozen VM does: its kernel goes on acknowledging."""
        assert self._process is not None, "it was not started"
        # The parent first: PostgreSQL has a process for each connection, and makes no new one then.
        self._stop_still(self._process.pid)
        for child in self._children():
            self._stop_still(child)

    def resume(self) -> None:
        """Let it go on; one that goes on already does so."""
        assert self._process is not None, "it was not started"
        for child in self._children():
            with suppress(ProcessLookupError):  # its connection has ended since it was listed
                os.kill(child, signal.SIGCONT)
        os.kill(self._process.pid, signal.SIGCONT)

    def remove(self) -> None:
        """Stop the server without tidying up, and delete its data."""
        self._end(self.at_once)
        shutil.rmtree(self._folder)

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(timeout=LIMIT_S)
            self._process = None

    def _children(self) -> list[int]:
        assert self._process is not None
        pid = self._process.pid
        return [
            int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        ]

    def _stop_still(self, process: int) -> None:
        assert self._process is not None
        os.kill(process, signal.SIGSTOP)
        deadline = time.monotonic() + LIMIT_S
        # A thread that is in the kernel just then still gives an answer before it stops.
        while not _stands_still(process):
            assert time.monotonic() < deadline, self._said("does not stand still in time")
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=0.001)

    def _ready(self) -> bool:
        return subprocess.run(self.ping(), capture_output=True, check=False).returncode == 0

    def _said(self, what: str) -> str:
        return f"{self.make} {what}: {(self._folder / 'log').read_text()[-2000:]}"


def _stands_still(process: int) -> bool:
    """Whether all its threads are stopped, or ended."""
    threads = Path(f"/proc/{process}/task").iterdir()
    told = [(thread / "stat").read_text().rpartition(")")[2].split()[0] for thread in threads]
    return set(told) <= {"T", "Z"}


_ports = itertools.count(20_000 + 1_000 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]))


def free_port() -> int:
    """A port of loopback that nobody listens on, that the kernel gives to nobody by itself, and
    that no other process of these tests takes: a server listens on it only seconds later.
    """
    for port in _ports:
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("there is always a next one")
