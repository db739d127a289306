"""The TCP side of libvirt connections: is anybody there, and how to hang up on a hung call.

libvirt connects without a deadline of its own (a silent address blocks for two minutes) and reads
the first answers without keep-alive (a frozen daemon blocks for ever). So the address is tried
first by a connect that can be given up, and a hung connection's sockets are shut down under it:
libvirt then sees an end of file and gives the thread back.

Races  A descriptor may be closed and used again at any time. It is duplicated before it is looked
       at, and what is looked at is what is shut down; a socket is known by its inode.
"""

import asyncio
import os
import socket
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress

from domain.errors import NoAnswer

Address = tuple[str, int]


def resolve(host: str, port: int) -> tuple[Address, ...]:
    """The addresses of a host; blocks while names are looked up. NoAnswer for an unknown name."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise NoAnswer("HOST_NAME_UNKNOWN", f"{host}: {error}", host=host) from None
    return tuple(dict.fromkeys((str(entry[4][0]), int(entry[4][1])) for entry in found))


async def knock(host: str, addresses: Iterable[Address], deadline_s: float) -> None:
    """Connect to the first address that answers, and hang up again.

    NoAnswer: HOST_PORT_REFUSED when the machine answers and nothing listens (its guests may run),
    HOST_SILENT when nothing comes back in time, HOST_UNREACHABLE when the network says no.
    """
    last: OSError | None = None
    for address in addresses:
        try:
            async with asyncio.timeout(deadline_s):
                await _connect(address)
        except TimeoutError:
            detail = f"{host}: no answer to a connect within {deadline_s:.3g} s"
            raise NoAnswer("HOST_SILENT", detail, host=host) from None
        except OSError as error:
            last = error
        else:
            return
    code = "HOST_PORT_REFUSED" if isinstance(last, ConnectionRefusedError) else "HOST_UNREACHABLE"
    raise NoAnswer(code, f"{host}: {last}", host=host) from None


async def _connect(address: Address) -> None:
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as knocker:
        await asyncio.get_running_loop().sock_connect(knocker, address)


def sockets_to(addresses: Iterable[Address]) -> frozenset[int]:
    """Inodes of this process's TCP sockets whose other end is one of the addresses."""
    wanted = frozenset(addresses)
    return frozenset(inode for inode, end in _own_sockets() if _peer(end) in wanted)


def hang_up(inodes: frozenset[int]) -> None:
    """Shut these sockets down in both directions; one that is gone is skipped. Idempotent."""
    for inode, end in _own_sockets():
        if inode in inodes:
            with suppress(OSError):  # Not connected any more: that was the aim.
                end.shutdown(socket.SHUT_RDWR)


def _own_sockets() -> Iterator[tuple[int, socket.socket]]:
    """Each socket of this process as a duplicate, which is closed when the next is asked for."""
    for name in os.listdir("/proc/self/fd"):
        try:
            descriptor = os.dup(int(name))
        except OSError:
            continue  # Closed since it was listed.
        status = os.fstat(descriptor)
        if not stat.S_ISSOCK(status.st_mode):
            os.close(descriptor)
            continue
        with socket.socket(fileno=descriptor) as end:
            yield status.st_ino, end


def _peer(end: socket.socket) -> Address | None:
    if end.family not in (socket.AF_INET, socket.AF_INET6):
        return None
    try:
        name = end.getpeername()
    except OSError:
        return None  # Not connected.
    return str(name[0]), int(name[1])
