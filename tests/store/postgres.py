"""A private PostgreSQL cluster."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

from tests.store.server import PrivateServer

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


def programs() -> Path | None:
    """Where the newest PostgreSQL's server programs are; None without any."""
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3])
    )
    there = found[-1] if found else shutil.which("initdb")
    return Path(there).resolve().parent if there else None


class Cluster(PrivateServer):
    """One server with its data directory."""

    make = "PostgreSQL"
    politely, at_once = signal.SIGINT, signal.SIGQUIT

    def __init__(self, folder_of_programs: Path) -> None:
        super().__init__()
        self._programs = folder_of_programs
        if os.geteuid() == 0:
            shutil.chown(self._folder, "postgres", "postgres")
        data = ("--pgdata", str(self._folder / "data"))
        options = ("--auth=trust", "--username=holdfast", "--encoding=UTF8", "--no-locale")
        command = self._command("initdb", "--no-sync", *options, *data)
        subprocess.run(command, check=True, capture_output=True, cwd=self._folder)

    def url(self, database: str) -> str:
        """SQLAlchemy's address of one database."""
        return f"postgresql+asyncpg://holdfast@127.0.0.1:{self.port}/{database}"

    def serve(self) -> list[str]:
        """The command line of the server."""
        settings = [f"--{name}={value}" for name, value in SETTINGS.items()]
        data = ("-D", str(self._folder / "data"), "-p", str(self.port))
        return self._command("postgres", *data, *settings)

    def ping(self) -> list[str]:
        """A command line that succeeds once the server takes connections."""
        return [str(self._programs / "pg_isready"), "-h", "127.0.0.1", "-p", str(self.port)]

    def _command(self, program: str, *arguments: str) -> list[str]:
        owner = ["--reuid=postgres", "--regid=postgres", "--init-groups"]
        drop = owner if os.geteuid() == 0 else []
        return ["setpriv", *drop, "--pdeathsig=INT", str(self._programs / program), *arguments]
