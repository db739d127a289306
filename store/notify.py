"""Tell waiters that something changed, so that they need not ask all the time.

`announce` inside a transaction; `changes` to wait. On PostgreSQL every process hears it (NOTIFY,
delivered with the commit). Elsewhere only waiters in this process do, through an on-commit hook,
and all others find out when their time-out ends: so a caller always looks again after a time-out,
on every database. Nothing is lost by a missed announcement but time.

Race       An announcement between looking and waiting is kept: the next `wait` returns at once.
           After a lost connection to PostgreSQL the first `wait` returns True, because one may
           have been missed meanwhile.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal, TypeAlias

import asyncpg
import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from store.database import Database
from store.dialects import in_memory, unit_of
from store.server_links import CONNECT_S

log = structlog.get_logger()

Channel: TypeAlias = Literal["outbox", "events"]

AGAIN_S = 1.0
"""How long to wait before the next attempt to listen to a PostgreSQL that is away."""

PROBE_S = 30.0
"""How often a silent listening connection is asked whether it is still alive."""

TROUBLE = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError)


class Changes:
    """What one waiter has heard of one channel."""

    def __init__(self) -> None:
        self._heard = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def wake(self) -> None:
        """Something changed; from any thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._heard.set)

    async def wait(self, timeout_s: float) -> bool:
        """Whether something was announced since the last call; False after `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._heard.wait()
        except TimeoutError:
            return False
        self._heard.clear()
        return True


_waiters: defaultdict[tuple[object, str], set[Changes]] = defaultdict(set)


async def announce(connection: AsyncConnection, channel: Channel) -> None:
    """Wake who waits for `channel`, when and if the open transaction commits; repeatable."""
    unit = unit_of(connection)
    if channel in unit.announced:
        return
    unit.announced.add(channel)
    if connection.dialect.name == "postgresql":
        await connection.execute(sa.select(sa.func.pg_notify(channel, "")))
        return
    assert isinstance(unit.database, Database)
    key = _key(unit.database, channel)

    async def wake_all() -> None:
        for waiter in tuple(_waiters.get(key, ())):
            waiter.wake()

    unit.on_commit(wake_all)


@asynccontextmanager
async def changes(database: Database, channel: Channel) -> AsyncIterator[Changes]:
    """Hear `channel` inside the block; a database that is away only makes `wait` time out."""
    waiter = Changes()
    if database.dialect == "postgresql":
        async with _listening(database, channel, waiter):
            yield waiter
        return
    key = _key(database, channel)
    _waiters[key].add(waiter)
    try:
        yield waiter
    finally:
        _waiters[key].discard(waiter)
        if not _waiters[key]:
            del _waiters[key]


def _key(database: Database, channel: Channel) -> tuple[object, str]:
    # Two objects may serve one file; two memory databases are never the same.
    return (id(database) if in_memory(database.url) else database.url, channel)


@asynccontextmanager
async def _listening(database: Database, channel: Channel, waiter: Changes) -> AsyncIterator[None]:
    first = asyncio.Event()
    task = asyncio.create_task(_listen_for_ever(database.url, channel, waiter, first))
    try:
        await first.wait()
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()


async def _listen_for_ever(
    url: str, channel: Channel, waiter: Changes, first: asyncio.Event
) -> None:
    try:
        while True:
            try:
                await _listen(url, channel, waiter, first)
            except TROUBLE as error:
                first.set()
                log.warning("not listening for changes", channel=channel, error=str(error)[:200])
            await asyncio.sleep(AGAIN_S)
    finally:
        first.set()


async def _listen(url: str, channel: Channel, waiter: Changes, first: asyncio.Event) -> None:
    """Until the connection is lost; raises one of `TROUBLE` when there is none."""
    limits = {"timeout": CONNECT_S, "command_timeout": CONNECT_S}
    connection = await asyncpg.connect(**_arguments(url), **limits)
    try:
        lost = asyncio.Event()
        connection.add_termination_listener(lambda _: lost.set())
        await connection.add_listener(channel, lambda *_: waiter.wake())
        if first.is_set():
            waiter.wake()
        first.set()
        while not lost.is_set():
            try:
                async with asyncio.timeout(PROBE_S):
                    await lost.wait()
            except TimeoutError:
                await connection.execute("SELECT 1")
    finally:
        connection.terminate()


def _arguments(url: str) -> dict[str, Any]:
    address = sa.make_url(url)
    made = address.get_dialect()().create_connect_args(address)[1]
    ours = ("host", "port", "user", "password", "database", "ssl")
    return {name: made[name] for name in ours if name in made}
