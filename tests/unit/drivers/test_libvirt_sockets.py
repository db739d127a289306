"""Looking for libvirt's sockets among a process's descriptors harms none of the others."""

import fcntl
import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from drivers import libvirt_sockets
from drivers.libvirt_sockets import hang_up, sockets_to

pytestmark = pytest.mark.unit

TRY_LOCK = """
import fcntl, sys
with open(sys.argv[1], "r+") as file:
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit("held")
"""

TRY_WRITE = """
import sqlite3, sys
try:
    sqlite3.connect(sys.argv[1], timeout=0, isolation_level=None).execute("BEGIN IMMEDIATE")
except sqlite3.OperationalError:
    sys.exit("held")
"""


def held_against_others(script: str, path: Path) -> bool:
    """Whether another process is kept out, as it says itself."""
    command = [sys.executable, "-c", script, str(path)]
    tried = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert tried.stderr.strip() in ("", "held")
    return tried.stderr.strip() == "held"


def descriptors_of(path: Path) -> set[int]:
    """This process's descriptors of a file."""
    links = Path("/proc/self/fd")
    return {int(name) for name in os.listdir(links) if Path(links, name).resolve() == path}


LOOKS: dict[str, Callable[[], object]] = {
    "sockets_to": lambda: sockets_to([("127.0.0.1", 1)]),
    "hang_up": lambda: hang_up(frozenset({-1})),
}


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_a_file_stays_locked_while_sockets_are_looked_for(
    tmp_path: Path, look: Callable[[], object]
) -> None:
    path = tmp_path / "locked"
    with path.open("w") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        look()
        assert held_against_others(TRY_LOCK, path)


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_a_database_keeps_its_one_writer_while_sockets_are_looked_for(
    tmp_path: Path, look: Callable[[], object]
) -> None:
    path = tmp_path / "holdfast.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("PRAGMA journal_mode=WAL")
        writer.execute("CREATE TABLE step (id)")
        writer.execute("BEGIN IMMEDIATE")
        look()
        assert held_against_others(TRY_WRITE, path)


def test_a_number_that_became_a_file_meanwhile_is_neither_shut_down_nor_unlocked(
    tmp_path: Path,
) -> None:
    path = tmp_path / "locked"
    with path.open("w") as file:
        file_number = file.fileno()
        fcntl.lockf(file, fcntl.LOCK_EX)
        libvirt_sockets._shut_down(file.fileno(), os.fstat(file.fileno()).st_ino)
        kept = descriptors_of(path)
        assert file_number in kept
        assert held_against_others(TRY_LOCK, path)
    for number in kept - {file_number}:
        os.close(number)


def test_only_the_socket_that_is_named_is_shut_down() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        with socket.create_connection(address) as ours, socket.create_connection(address) as other:
            theirs, others = server.accept()[0], server.accept()[0]
            with theirs, others:
                mine = os.fstat(ours.fileno()).st_ino
                assert sockets_to([address]) == {mine, os.fstat(other.fileno()).st_ino}
                hang_up(frozenset({mine}))
                theirs.settimeout(10)
                assert theirs.recv(1) == b""
                other.sendall(b"x")
                others.settimeout(10)
                assert others.recv(1) == b"x"
