"""A port is tried by opening a connection, and whatever comes of it is an answer."""

import asyncio
import socket

import pytest

from drivers.tcp_doors import TcpDoors

pytestmark = pytest.mark.unit


async def test_a_port_that_listens_is_open_and_one_that_does_not_is_closed() -> None:
    async def drop(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(drop, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        assert await TcpDoors().open("127.0.0.1", port, 5)
    assert not await TcpDoors().open("127.0.0.1", port, 5)


@pytest.mark.parametrize("name", ["no-such-guest.invalid", "db..lan", "x" * 64])
async def test_a_name_that_nobody_knows_or_can_have_is_closed(name: str) -> None:
    assert not await TcpDoors().open(name, 80, 5)


async def test_a_port_that_says_nothing_is_closed_after_its_time() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        # With its queue full, the kernel answers no further connection.
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(full.getsockname())
        assert not await TcpDoors().open("127.0.0.1", full.getsockname()[1], 0.3)
        for each in waiting:
            each.close()
