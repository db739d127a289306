"""Connections to PostgreSQL and MariaDB on which no wait is without end.

A server that stands still (a frozen VM, a stopped process) keeps its connections: its kernel
acknowledges what is sent, so neither keep-alive nor a time-out of TCP ever ends the wait.

| Waited for                                      | At most       | Then                        |
|-------------------------------------------------|---------------|-----------------------------|
| a new connection                                | `CONNECT_S`   | DATABASE_UNAVAILABLE        |
| whether a connection of the pool works still    | `CONNECT_S`   | all of the pool are dropped |
| the answer to a statement                       | `STATEMENT_S` | dropped, as when it is lost |
| the answer to a commit                          | the same      | COMMIT_OUTCOME_UNKNOWN      |
| the end of a connection, or of a whole pool     | `CLOSE_S`     | dropped without a goodbye   |

Race       A server that goes on reads what it was sent meanwhile: a lone statement is rolled back
           with its connection, a commit may still be carried out. So its outcome is unknown.
"""

import asyncio
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import asyncpg
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

CONNECT_S = 5
"""How long a server may take for a connection, or to say that one works still: neither has
anything to wait for. Higher: each request to a paused server takes as long."""

STATEMENT_S = 60.0
"""How long a statement may take. It waits at most `LOCK_S` (5 s) for one row, and reads or writes
no more than a screenful or a batch; the rest is for storage that stalls while its paths change.
Higher: what was under way when a server froze is held up longer. Lower: a server that is only slow
loses work that it would have done, again at every try."""

CLOSE_S = 2.0
"""How long a server may take to let connections go. Higher: a process ends later."""


class PostgresLink(asyncpg.Connection):  # type: ignore[misc]  # asyncpg tells no types
    """One connection to PostgreSQL."""

    async def close(self, *, timeout: float | None = None) -> None:
        """Say goodbye and close; without one after `CLOSE_S`."""
        try:
            await super().close(timeout=CLOSE_S if timeout is None else min(timeout, CLOSE_S))
        except TimeoutError:
            self.give_up()

    def give_up(self) -> None:
        """Close at once; whoever waits for an answer gets an error. Repeatable."""
        self.terminate()


def watch(engine: AsyncEngine) -> None:
    """Bound what the drivers do not: the look whether a connection works, and the pool's end."""
    links: WeakSet[Any] = WeakSet()
    _of[engine] = links
    dialect: Any = engine.sync_engine.dialect
    asked = dialect.do_ping

    def do_ping(raw: Any) -> bool:
        link = raw.driver_connection
        limit = asyncio.get_running_loop().call_later(CONNECT_S, link.give_up)
        try:
            return bool(asked(raw))
        finally:
            limit.cancel()

    dialect.do_ping = do_ping
    sa.event.listen(
        engine.sync_engine, "connect", lambda raw, _record: links.add(raw.driver_connection)
    )


async def dispose(engine: AsyncEngine) -> None:
    """Close the pool; after `CLOSE_S` every connection that is left is dropped at once."""
    links = _of.get(engine, ())

    def give_up() -> None:
        for link in tuple(links):
            link.give_up()

    limit = asyncio.get_running_loop().call_later(CLOSE_S, give_up)
    try:
        await engine.dispose()
    finally:
        limit.cancel()


_of: WeakKeyDictionary[AsyncEngine, WeakSet[Any]] = WeakKeyDictionary()
"""The connections of each engine that may be open."""
