"""A private PostgreSQL cluster: started by the tests, on loopback, gone with them.

The server is a child of the test process and asks the kernel to be stopped when its parent dies,
so that not even a killed test run leaves one behind.
"""

import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "shared_buffers": "64MB",
    "max_connections": "200",
    "deadlock_timeout": "200ms",
}
START_S = 60


def binaries() -> Path | None:
    """Where PostgreSQL's server programs are, newest version first; None without them."""
    found = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    newest = sorted(found, key=lambda path: int(path.parts[-3].split(".")[0]))
    if newest:
        return newest[-1].parent
    there = shutil.which("initdb")
    return Path(there).resolve().parent if there else None


class Cluster:
    """One server with its data directory."""

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        self._folder = Path(tempfile.mkdtemp(prefix="holdfast-pg-"))
        self._process: subprocess.Popen[bytes] | None = None
        self.port = _free_port()
        if os.geteuid() == 0:
            shutil.chown(self._folder, "postgres", "postgres")
        options = ("--auth=trust", "--username=holdfast", "--encoding=UTF8", "--no-locale")
        subprocess.run(
            self._as_owner("initdb", "--no-sync", *options, "-D", str(self._data)),
            check=True,
            capture_output=True,
            cwd=self._folder,
        )

    def url(self, database: str) -> str:
        """SQLAlchemy's address of one database."""
        return f"postgresql+asyncpg://holdfast@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start the server and wait until it takes connections."""
        settings = [f"--{name}={value}" for name, value in (SETTINGS | self._port()).items()]
        command = self._as_owner("postgres", "-D", str(self._data), *settings)
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self._folder)
        ask = ("-h", "127.0.0.1", "-p", str(self.port), "-t", str(START_S))
        waiting = [str(self._programs / "pg_ctl"), "--version"]
        subprocess.run(waiting, check=True, capture_output=True)
        self._await_ready(ask)

    def stop(self) -> None:
        """Stop the server at once, dropping its connections; stopped already is fine."""
        if self._process is not None:
            self._process.terminate()
        self._process = None

    def remove(self) -> None:
        """Stop the server and delete its data."""
        self.stop()
        shutil.rmtree(self._folder)
