"""The TCP side of libvirt connections: is anybody there, and how to hang up on a hung call.

libvirt connects without a deadline of its own (a silent address blocks for two minutes) and reads
the first answers without keep-alive (a frozen daemon blocks for ever). So the address is tried
first by a connect that can be given up, and a hung connection's sockets are shut down under it:
libvirt then sees an end of file and gives the thread back.

Races  A descriptor may be closed and used again at any time. What is shut down is a duplicate that
       was looked at after it was made; a socket is known by its inode.
Never  is a duplicate of a file closed: POSIX gives back all of a process's locks on a file when any
       descriptor of it is closed. The engine's own database is such a file (decision 7).
"""

import asyncio
import errno
import os
import socket
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress

from domain.errors import NoAnswer
from domain.readings import Knock

Address = tuple[str, int]

SIGNS = {
    0: Knock.OPEN,
    errno.EISCONN: Knock.OPEN,
    errno.ECONNREFUSED: Knock.REFUSED,
    errno.ECONNRESET: Knock.REFUSED,
    errno.EALREADY: Knock.SILENT,
    errno.ETIMEDOUT: Knock.SILENT,
    errno.EHOSTUNREACH: Knock.SILENT,
    errno.EHOSTDOWN: Knock.SILENT,
}
"""What each end of a connect says about the host. An end that is not listed says nothing: without
a route to the whole network (ENETUNREACH) or a descriptor, the host was never asked."""


def resolve(host: str, port: int) -> tuple[Address, ...]:
    """The addresses of a host; blocks while names are looked up. NoAnswer for an unknown name."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:  # A label too long for IDNA is no OSError.
        raise NoAnswer("HOST_NAME_UNKNOWN", f"{host}: {error}", host=host) from None
    return tuple(dict.fromkeys((str(entry[4][0]), int(entry[4][1])) for entry in found))


async def reach(host: str, addresses: Iterable[Address], deadline_s: float) -> None:
    """Make sure that a kernel takes connections, so that libvirt will not block on a silent host.

    NoAnswer: HOST_PORT_REFUSED when the machine answers and nothing listens (its guests may run),
    HOST_SILENT when nothing comes back in time, HOST_UNREACHABLE when the network says no.
    """
    ended = await _dial_all(addresses, deadline_s)
    signs = {SIGNS.get(error) for error in ended}
    if Knock.OPEN in signs:
        return
    if Knock.REFUSED in signs:
        raise NoAnswer("HOST_PORT_REFUSED", f"{host}: the connection was refused", host=host)
    if errno.EALREADY in ended:
        detail = f"{host}: no answer to a connect within {deadline_s:.3g} s"
        raise NoAnswer("HOST_SILENT", detail, host=host)
    raise NoAnswer("HOST_UNREACHABLE", f"{host}: {_said(ended)}", host=host)


async def knock(host: str, addresses: Iterable[Address], deadline_s: float) -> Knock:
    """The strongest sign of life that a connect to any of the addresses gives: open or refused.

    SILENT needs an address that was really tried for `deadline_s` seconds, or a network that says
    that the host is not there. NoAnswer (KNOCK_NOT_POSSIBLE) when none could be tried, because
    this machine has no route or no descriptor left. Sends nothing but the connect; repeatable.
    """
    ended = await _dial_all(addresses, deadline_s)
    signs = {SIGNS.get(error) for error in ended}
    for sign in (Knock.OPEN, Knock.REFUSED, Knock.SILENT):
        if sign in signs:
            return sign
    raise no_knock(host, _said(ended))


def no_knock(host: str, why: str) -> NoAnswer:
    """The error for a door that could not be tried."""
    return NoAnswer(
        "KNOCK_NOT_POSSIBLE",
        f"{host}: whether it is silent could not be tried: {why}",
        next_step="check this machine's own network, name service and limits",
        host=host,
    )


async def _dial_all(addresses: Iterable[Address], deadline_s: float) -> tuple[int, ...]:
    """How a connect to each address ended; once one is taken, the others are not waited for."""
    dials = [asyncio.create_task(_dial(address, deadline_s)) for address in addresses]
    ended: list[int] = []
    try:
        for dial in asyncio.as_completed(dials):
            ended.append(await dial)
            if SIGNS.get(ended[-1]) is Knock.OPEN:
                break
    finally:
        for given_up in dials:
            given_up.cancel()
        await asyncio.gather(*dials, return_exceptions=True)
    return tuple(ended)


async def _dial(address: Address, deadline_s: float) -> int:
    """The error number of one connect: 0 when it was taken, EALREADY when nothing came back."""
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as dialling:
            return await _connect(dialling, address, deadline_s)
    except OSError as error:
        return error.errno or errno.EIO  # No descriptor left, for example.


async def _connect(dialling: socket.socket, address: Address, deadline_s: float) -> int:
    try:
        async with asyncio.timeout(deadline_s):
            await asyncio.get_running_loop().sock_connect(dialling, address)
    except TimeoutError as error:
        # A process that was held up sees its deadline before the answer that has come meanwhile,
        # so the kernel has the last word. It raises this class too, with a number.
        return error.errno or dialling.connect_ex(address)
    return 0


def _said(ended: Iterable[int]) -> str:
    return ", ".join(dict.fromkeys(os.strerror(error) for error in ended))


def sockets_to(addresses: Iterable[Address]) -> frozenset[int]:
    """Inodes of this process's TCP sockets whose other end is one of the addresses."""
    wanted = frozenset(addresses)
    return frozenset(inode for number, inode in _own_sockets() if _peer(number) in wanted)


def hang_up(inodes: frozenset[int]) -> None:
    """Shut these sockets down in both directions; one that is gone is skipped. Idempotent."""
    for number, inode in _own_sockets():
        if inode in inodes:
            _shut_down(number, inode)


def _own_sockets() -> Iterator[tuple[int, int]]:
    """Number and inode of each descriptor of this process that is a socket at this moment."""
    for name in os.listdir("/proc/self/fd"):
        try:
            status = os.stat(f"/proc/self/fd/{name}")
        except OSError:
            continue  # Closed since it was listed, or it stands for nothing that has a status.
        if stat.S_ISSOCK(status.st_mode):
            yield int(name), status.st_ino


def _peer(number: int) -> Address | None:
    """The other end of the connection that `number` is; None when it is none."""
    try:
        borrowed = socket.socket(fileno=number)
    except OSError:
        return None  # Closed meanwhile, or another thing by now.
    try:
        if borrowed.family not in (socket.AF_INET, socket.AF_INET6):
            return None
        name = borrowed.getpeername()
    except OSError:
        return None  # Not connected.
    finally:
        borrowed.detach()
    return str(name[0]), int(name[1])


def _shut_down(number: int, inode: int) -> None:
    try:
        duplicate = os.dup(number)
    except OSError:
        return  # Closed since it was listed.
    status = os.fstat(duplicate)
    if not stat.S_ISSOCK(status.st_mode):
        # The number has become a file within these lines. Closing the duplicate would release the
        # file's locks, so it is kept: one descriptor lost is nothing, one lock lost is data lost.
        return
    with socket.socket(fileno=duplicate) as end:
        if status.st_ino == inode:
            with suppress(OSError):  # Not connected any more: that was the aim.
                end.shutdown(socket.SHUT_RDWR)
