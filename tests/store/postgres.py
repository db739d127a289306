"""A private PostgreSQL cluster: started by the tests, on loopback, gone with them.

The server is a child of the test process and the kernel stops it when its parent dies, so that not
even a killed test run leaves one behind.
"""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "shared_buffers": "32MB",
    "max_connections": "200",
    "deadlock_timeout": "200ms",
}
LIMIT_S = 60
MEMORY = Path("/dev/shm")
"""Copying a template database takes a tenth of the time here."""


def programs() -> Path | None:
    """Where the newest PostgreSQL's server programs are; None without any."""
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3])
    )
    there = found[-1] if found else shutil.which("initdb")
    return Path(there).resolve().parent if there else None


class Cluster:
    """One server with its data directory."""

    def __init__(self, folder_of_programs: Path) -> None:
        self._programs = folder_of_programs
        where = MEMORY if os.access(MEMORY, os.W_OK) else None
        self._folder = Path(tempfile.mkdtemp(prefix="holdfast-pg-", dir=where))
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        if os.geteuid() == 0:
            shutil.chown(self._folder, "postgres", "postgres")
        data = ("--pgdata", str(self._folder / "data"))
        options = ("--auth=trust", "--username=holdfast", "--encoding=UTF8", "--no-locale")
        command = self._command("initdb", "--no-sync", *options, *data)
        subprocess.run(command, check=True, capture_output=True, cwd=self._folder)

    def url(self, database: str) -> str:
        """SQLAlchemy's address of one database."""
        return f"postgresql+asyncpg://holdfast@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start the server and wait until it takes connections."""
        settings = [f"--{name}={value}" for name, value in SETTINGS.items()]
        data = ("-D", str(self._folder / "data"), "-p", str(self.port))
        command = self._command("postgres", *data, *settings)
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self._folder)
        deadline = time.monotonic() + LIMIT_S
        while not self._ready():
            assert time.monotonic() < deadline, self._said("is not ready in time")
            try:
                self._process.wait(timeout=0.05)
            except subprocess.TimeoutExpired:
                continue
            raise AssertionError(self._said("ended at once"))

    def stop(self) -> None:
        """Stop the server, dropping its connections; stopped already is fine."""
        self._end(signal.SIGINT)

    def remove(self) -> None:
        """Stop the server without tidying up, and delete its data."""
        self._end(signal.SIGQUIT)
        shutil.rmtree(self._folder)

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(timeout=LIMIT_S)
            self._process = None

    def _ready(self) -> bool:
        ask = [str(self._programs / "pg_isready"), "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(ask, capture_output=True, check=False).returncode == 0

    def _said(self, what: str) -> str:
        return f"PostgreSQL {what}: {(self._folder / 'log').read_text()[-2000:]}"

    def _command(self, program: str, *arguments: str) -> list[str]:
        owner = ["--reuid=postgres", "--regid=postgres", "--init-groups"]
        drop = owner if os.geteuid() == 0 else []
        return ["setpriv", *drop, "--pdeathsig=INT", str(self._programs / program), *arguments]


def free_port() -> int:
    """A port of loopback that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
