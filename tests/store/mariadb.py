"""A private MariaDB server, and databases on it that are used again."""

import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

from store.columns import metadata
from store.migrate import upgrade
from tests.store.server import PrivateServer

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


class Server(PrivateServer):
    """One server with its data directory."""

    make = "MariaDB"
    politely, at_once = signal.SIGTERM, signal.SIGKILL

    def __init__(self, program: Path) -> None:
        super().__init__()
        self._program = program
        self._free: list[str] = []
        self._made = count(1)
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

    def serve(self) -> list[str]:
        """The command line of the server."""
        settings = [
            f"--{name}={value}" if value else f"--{name}" for name, value in SETTINGS.items()
        ]
        where = (f"--port={self.port}", f"--socket={self._folder / 'socket'}")
        return self._command(str(self._program), "--no-defaults", *self._data(), *where, *settings)

    def ping(self) -> list[str]:
        """A command line that succeeds once the server takes connections."""
        return self.client("mariadb-admin", "ping")

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

    def _data(self) -> tuple[str, ...]:
        return (f"--datadir={self._folder / 'data'}",)

    def _command(self, program: str, *arguments: str) -> list[str]:
        group = str(pwd.getpwnam(OWNER).pw_gid)
        owner = [f"--reuid={OWNER}", f"--regid={group}", "--init-groups"]
        drop = owner if os.geteuid() == 0 else []
        return ["setpriv", *drop, "--pdeathsig=TERM", program, *arguments]
