"""What an engine must have to itself before it starts anything: its folder and its API's port.

Invariant  `only_engine` holds an exclusive lock of the kernel on `<folder>/up.lock`. The lock ends
           with the process, however it ends; the file stays, because removing it would let two
           engines lock two files of the same name.
Race       A port that was free may be taken before the API listens there. The check finds a
           program that listens already, which is the common mistake.
"""

import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from domain.errors import Conflict, Invalid

LOCK_FILE = "up.lock"


@contextmanager
def only_engine(var: Path) -> Iterator[None]:
    """Keep a folder for one engine; made when missing. Conflict while another one has it."""
    var.mkdir(parents=True, exist_ok=True)
    with (var / LOCK_FILE).open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise _running(var, lock.read().strip()) from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


def _running(var: Path, pid: str) -> Conflict:
    # The file is empty for a moment after it was locked.
    who = f"process {pid}" if pid else "another process"
    return Conflict(
        "ENGINE_RUNNING",
        f"an engine runs in {var.absolute()} already: {who}",
        next_step="use or end that engine, or name another folder in HOLDFAST_VAR",
        folder=str(var.absolute()),
        pid=pid or None,
    )


def usable_port(host: str, port: int) -> int:
    """The port once nobody listens there, or a free one for 0.

    Conflict when another program listens there, Invalid when this machine cannot listen there.
    """
    try:
        family, kind, protocol, _name, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            # Connections of an API just stopped linger in TIME_WAIT and hinder nobody.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            return int(probe.getsockname()[1])
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise Conflict(
                "API_PORT_TAKEN",
                f"port {port} on {host} is taken by another program",
                next_step="stop that program, or choose another port in HOLDFAST_API_PORT",
                host=host,
                port=port,
            ) from None
        raise Invalid(
            "API_ADDRESS_UNUSABLE",
            f"the API cannot listen on {host} port {port}: {error.strerror}",
            next_step="correct HOLDFAST_API_HOST and HOLDFAST_API_PORT",
            host=host,
            port=port,
        ) from None
