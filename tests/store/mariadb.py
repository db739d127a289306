"""A private MariaDB server: started by the tests, on loopback, gone with them.

Like `tests.store.postgres`: a child of the test process that the kernel stops when its parent dies.
"""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

from store.columns import metadata
from store.migrate import upgrade
from tests.store.postgres import LIMIT_S, MEMORY, free_port

SETTINGS = {
    "bind-address": "127.0.0.1",
    "innodb-flush-log-at-trx-commit": "0",
    "innodb-flush-method": "nosync",
    "innodb-doublewrite": "0",
    "innodb-buffer-pool-size": "32M",
    "innodb-log-file-size": "16M",
    "innodb-log-buffer-size": "1M",
    "innodb-fast-shutdown": "2",
    "innodb-deadlock-detect": "ON",
    "performance-schema": "OFF",
    "max-connections": "300",
    "skip-log-bin": "",
    "sync-frm": "0",
}
OWNER = "nobody"
"""Whom the server runs as when the tests are root, which it refuses to be."""


def programs() -> Path | None:
    """Where MariaDB's server is; None without any."""
    found = shutil.which("mariadbd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    return Path(found) if found and shutil.which("mariadb-install-db") else None


class Server:
    """One server with its data directory."""

    def __init__(self, program: Path) -> None:
        self._program = program
        where = MEMORY if os.access(MEMORY, os.W_OK) else None
        self._folder = Path(tempfile.mkdtemp(prefix="holdfast-my-", dir=where))
        self._process: subprocess.Popen[bytes] | None = None
        self._free: list[str] = []
        self._made = count(1)
        self.port = free_port()
        if os.geteuid() == 0:
            shutil.chown(self._folder, OWNER)
        options = ("--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db")
        fast = ("--innodb-flush-method=nosync", "--innodb-log-file-size=16M")
        command = self._command("mariadb-install-db", *options, *self._data(), *fast)
        subprocess.run(command, check=True, capture_output=True, cwd=self._folder)

    def url(self, database: str) -> str:
        """SQLAlchemy's address of one database."""
        return f"mariadb+asyncmy://root@127.0.0.1:{self.port}/{database}"

    async def create(self, name: str) -> str:
        """Create an empty database; its address."""
        await self._run([f"CREATE DATABASE {name}"])
        return self.url(name)

    @asynccontextmanager
    async def migrated(self) -> AsyncIterator[str]:
        """The address of a database with all tables and no rows; used again afterwards."""
        url = self._free.pop() if self._free else await self._new()
        yield url
        if await self._emptied(url):
            self._free.append(url)

    def start(self) -> None:
        """Start the server and wait until it takes connections."""
        settings = [
            f"--{name}={value}" if value else f"--{name}" for name, value in SETTINGS.items()
        ]
        where = (f"--port={self.port}", f"--socket={self._folder / 'socket'}")
        command = self._command(
            str(self._program), "--no-defaults", *self._data(), *where, *settings
        )
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
        self._end(signal.SIGTERM)

    def remove(self) -> None:
        """Stop the server without tidying up, and delete its data."""
        self._end(signal.SIGKILL)
        shutil.rmtree(self._folder)

    def client(self, *arguments: str) -> list[str]:
        """The command line of one of MariaDB's client programs, connected to this server."""
        program, *rest = arguments
        return [program, "--no-defaults", f"--socket={self._folder / 'socket'}", "-uroot", *rest]

    async def _new(self) -> str:
        url = await self.create(f"test_{next(self._made)}")
        await upgrade(url)
        return url

    async def _emptied(self, url: str) -> bool:
        engine = create_async_engine(url)
        async with engine.begin() as connection:
            tables = set((await connection.execute(sa.text("SHOW TABLES"))).scalars())
            usable = tables == {*metadata.tables, "alembic_version"}
            await connection.execute(sa.text("SET foreign_key_checks = 0"))
            for table in metadata.tables.values() if usable else ():
                # Events refuse to be deleted; emptying the whole table asks no trigger.
                guarded = table.name == "event"
                statement = sa.text("TRUNCATE TABLE event") if guarded else table.delete()
                await connection.execute(statement)
        await engine.dispose()
        return usable

    async def _run(self, statements: list[str]) -> None:
        engine = create_async_engine(self.url("mysql"))
        async with engine.begin() as connection:
            for statement in statements:
                await connection.execute(sa.text(statement))
        await engine.dispose()

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(timeout=LIMIT_S)
            self._process = None

    def _ready(self) -> bool:
        ask = self.client("mariadb-admin", "ping")
        return subprocess.run(ask, capture_output=True, check=False).returncode == 0

    def _said(self, what: str) -> str:
        return f"MariaDB {what}: {(self._folder / 'log').read_text()[-2000:]}"

    def _data(self) -> tuple[str, ...]:
        return (f"--datadir={self._folder / 'data'}",)

    def _command(self, program: str, *arguments: str) -> list[str]:
        group = str(pwd.getpwnam(OWNER).pw_gid)
        owner = [f"--reuid={OWNER}", f"--regid={group}", "--init-groups"]
        drop = owner if os.geteuid() == 0 else []
        return ["setpriv", *drop, "--pdeathsig=TERM", program, *arguments]
