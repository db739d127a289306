"""Ports of services in guests, tried from this machine."""

import asyncio
import contextlib


class TcpDoors:
    """Fits `Doors`: opens a connection and drops it at once; nothing is sent."""

    async def open(self, host: str, port: int, within_s: float) -> bool:
        """Whether the port takes a connection within so many seconds."""
        try:
            async with asyncio.timeout(within_s):
                _reader, writer = await asyncio.open_connection(host, port)
        except (OSError, TimeoutError, UnicodeError):  # the last: a name that no host can have
            return False
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        return True
