"""A data centre in one process, and its hypervisor and power switch in another.

Worker processes that are to be killed reach the test's data centre over a socket. A call that was
received is carried out even when its caller is dead by then, as real hosts do; a session lasts as
long as its connection.
"""

import asyncio
import pickle
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from domain.errors import EngineError
from domain.inventory import FenceDevice, PowerReading
from domain.readings import HostReading, Knock
from tests.fakes import DataCentre, FakeHypervisor, FakePower

LENGTH_BYTES = 4


@asynccontextmanager
async def served(centre: DataCentre, socket: Path) -> AsyncIterator[None]:
    """Let other processes reach a data centre at a socket."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with AsyncExitStack() as stack:
            stack.callback(writer.close)
            await _Desk(centre, stack).serve(reader, writer)

    server = await asyncio.start_unix_server(serve, socket)
    try:
        yield
    finally:
        server.close()


class _Desk:
    """Answers one connection."""

    def __init__(self, centre: DataCentre, stack: AsyncExitStack) -> None:
        self._hypervisor = FakeHypervisor(centre)
        self._targets: dict[str, Any] = {"hypervisor": self._hypervisor, "power": FakePower(centre)}
        self._stack = stack

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (asked := await _receive(reader)) is not None:
            answer: tuple[Any, Any]
            try:
                answer = (await self._do(*asked), None)
            except EngineError as error:
                answer = (None, (type(error), error.code, error.detail))
            if writer.is_closing():
                return
            _send(writer, answer)

    async def _do(self, target: str, call: str, args: tuple[Any, ...]) -> Any:
        if call == "session":
            session = self._hypervisor.session(*args)
            self._targets["session"] = await self._stack.enter_async_context(session)
            return None
        return await getattr(self._targets[target], call)(*args)


class FarSession:
    """Implements `HypervisorSession` by asking: each of its methods is one call."""

    def __init__(self, line: "_Line") -> None:
        self._line = line

    def __getattr__(self, call: str) -> Any:
        async def ask(*args: Any) -> Any:
            return await self._line.ask("session", call, *args)

        return ask


class FarHypervisor:
    """Implements `Hypervisor`."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    @asynccontextmanager
    async def session(self, uri: str, deadline_s: float) -> AsyncIterator[Any]:
        """A connection to the host's present boot."""
        async with _line(self._socket) as line:
            await line.ask("hypervisor", "session", uri, deadline_s)
            yield FarSession(line)

    async def poll(self, uri: str, deadline_s: float) -> HostReading:
        """Read the host."""
        async with _line(self._socket) as line:
            reading: HostReading = await line.ask("hypervisor", "poll", uri, deadline_s)
            return reading

    async def knock(self, uri: str, deadline_s: float) -> Knock:
        """What comes back from the host's door."""
        async with _line(self._socket) as line:
            sign: Knock = await line.ask("hypervisor", "knock", uri, deadline_s)
            return sign


class FarPower:
    """Implements `PowerSwitch`."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    async def read(self, device: FenceDevice) -> PowerReading:
        """What the controller says."""
        async with _line(self._socket) as line:
            reading: PowerReading = await line.ask("power", "read", device)
            return reading

    async def off(self, device: FenceDevice) -> None:
        """Take the command."""
        async with _line(self._socket) as line:
            await line.ask("power", "off", device)

    async def on(self, device: FenceDevice) -> None:
        """Take the command."""
        async with _line(self._socket) as line:
            await line.ask("power", "on", device)


class _Line:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def ask(self, target: str, call: str, *args: Any) -> Any:
        _send(self._writer, (target, call, args))
        result, error = await _receive(self._reader)
        if error is not None:
            kind, code, detail = error
            raise kind(code, detail)
        return result


@asynccontextmanager
async def _line(socket: Path) -> AsyncIterator[_Line]:
    reader, writer = await asyncio.open_unix_connection(socket)
    try:
        yield _Line(reader, writer)
    finally:
        writer.close()


def _send(writer: asyncio.StreamWriter, value: Any) -> None:
    data = pickle.dumps(value)
    writer.write(len(data).to_bytes(LENGTH_BYTES, "big") + data)


async def _receive(reader: asyncio.StreamReader) -> Any:
    try:
        length = int.from_bytes(await reader.readexactly(LENGTH_BYTES), "big")
        return pickle.loads(await reader.readexactly(length))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
