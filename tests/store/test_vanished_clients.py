"""A client of a database server that was paused or has lost its power keeps nobody out for long."""

import asyncio
import socket
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.errors import Unavailable
from store import dialects
from store.database import Database
from tests.store.notes import NOTE, Notes, note, writing

pytestmark = pytest.mark.store

SERVERS = pytest.mark.parametrize("kind", ["postgresql", "mariadb"], indirect=True)


@SERVERS
async def test_a_transaction_that_stands_still_is_ended_by_its_server_and_its_locks_are_free(
    database: Database, notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dialects, "IDLE_S", 1)
    paused = Database(database.url)
    locked, go_on = asyncio.Event(), asyncio.Event()

    async def stands_still(connection: AsyncConnection) -> None:
        await note(connection, "mine")
        locked.set()
        await go_on.wait()

    task = asyncio.create_task(paused.write(stands_still))
    try:
        await locked.wait()
        # It has to wait for the other's key, and gets it once the server has given that up.
        async with asyncio.timeout(60):
            await database.write(writing("mine"))
        go_on.set()
        with pytest.raises(Unavailable):
            await task
    finally:
        go_on.set()
        await asyncio.gather(task, return_exceptions=True)
        await paused.close()


@SERVERS
async def test_a_server_that_gives_no_sign_of_life_any_more_is_not_waited_for(
    database: Database,
) -> None:
    async def plug(connection: AsyncConnection) -> socket.socket:
        raw: Any = (await connection.get_raw_connection()).driver_connection
        found: socket.socket = raw._transport.get_extra_info("socket")
        return found

    def option(name: int) -> int:
        return found.getsockopt(socket.IPPROTO_TCP, name)

    found = await database.read(plug)
    assert found.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    silent_s = option(socket.TCP_KEEPIDLE)
    silent_s += option(socket.TCP_KEEPINTVL) * option(socket.TCP_KEEPCNT)
    assert (silent_s, option(socket.TCP_USER_TIMEOUT)) == (dialects.DEAD_S, 1000 * dialects.DEAD_S)


@SERVERS
async def test_a_transaction_that_copies_may_stand_still(
    database: Database, notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    await database.write(writing("mine"))
    monkeypatch.setattr(dialects, "IDLE_S", 1)
    copying = Database(database.url)

    async def stands_still(connection: AsyncConnection) -> list[str]:
        await dialects.may_idle(connection)
        await connection.execute(sa.select(NOTE.c.text))
        await asyncio.sleep(2.5 * dialects.IDLE_S)
        return list((await connection.execute(sa.select(NOTE.c.text))).scalars())

    try:
        assert await copying.read(stands_still) == ["mine"]
    finally:
        await copying.close()
