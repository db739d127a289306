"""Find a Temporal server, or a program that can run one.

Order       1. `HOLDFAST_TEMPORAL_ADDRESS`: a running server; nothing is started.
            2. `temporal` on PATH.
            3. An earlier build or download: `$HOLDFAST_VAR/bin`, then the user's cache.
            4. The SDK's own download, given up as soon as it stalls.
            5. A build by the Go tool chain from the pinned module in `deploy/temporal`.
Invariants  A program is used only after it has told its version and the server inside is new
            enough; one that is not is passed over with a line that says why.
Races       Two processes may look at once: getting a program holds a file lock, and the one that
            waited looks again; a program appears under its name only when it is complete.
"""

import fcntl
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from domain.errors import EngineError, Invalid, Unavailable
from worker.temporal_get import (
    ROOT,
    NotObtained,
    Say,
    build_with_go,
    download_with_sdk,
    pinned,
)

ADDRESS = "HOLDFAST_TEMPORAL_ADDRESS"
SERVER_MIN = (1, 31)
"""The first server whose matcher honours priority keys without a switch."""

VERSION_WITHIN_S = 20.0


@dataclass(frozen=True)
class ExistingServer:
    """A server that someone else runs."""

    address: str


@dataclass(frozen=True)
class Program:
    """A Temporal CLI that can run the dev server; versions as it tells them itself."""

    path: Path
    origin: str
    version: str
    server: str


Getter = Callable[[Path, Mapping[str, str], Say], None]
"""Puts the pinned program at a path, or raises NotObtained with the reason."""

GETTERS: tuple[tuple[str, Getter], ...] = (
    ("downloaded by the SDK", download_with_sdk),
    ("built by Go", build_with_go),
)


def find_temporal(
    env: Mapping[str, str], say: Say, getters: tuple[tuple[str, Getter], ...] = GETTERS
) -> ExistingServer | Program:
    """The first of the five sources that works; blocks for minutes if it has to build.

    `say` gets one line for each thing worth telling. Raises Invalid (`TEMPORAL_ADDRESS_INVALID`)
    or Unavailable (`TEMPORAL_MISSING`). Safe to repeat and to run in several processes.
    """
    if address := env.get(ADDRESS, "").strip():
        return ExistingServer(_checked(address))
    try:
        return _at_hand(env, say) or _obtain(env, say, getters)
    except NotObtained as e:  # only an installation without the tool module
        raise _missing([str(e)]) from e


def probe(path: Path, origin: str) -> Program:
    """Ask a program for its version; raises NotObtained when it cannot serve us."""
    try:
        done = subprocess.run(
            [str(path), "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=VERSION_WITHIN_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as e:
        raise NotObtained(f"{path} does not run: {e}") from e
    match = re.search(r"version (\S+) \(Server (\d+)\.(\d+)([^,\s)]*)", done.stdout)
    if match is None:
        raise NotObtained(f"{path} does not say which Temporal server it holds")
    server = f"{match[2]}.{match[3]}{match[4]}"
    if (int(match[2]), int(match[3])) < SERVER_MIN:
        wanted = ".".join(map(str, SERVER_MIN))
        raise NotObtained(f"{path} holds server {server}, {wanted} or newer is needed")
    return Program(path=path, origin=origin, version=match[1], server=server)


def _checked(address: str) -> str:
    if not re.fullmatch(r"\S+:\d{1,5}", address):
        raise Invalid(
            "TEMPORAL_ADDRESS_INVALID",
            f"{ADDRESS} is {address!r}, which is not HOST:PORT",
            next_step=f"set {ADDRESS} to something like 127.0.0.1:7233, or unset it",
            address=address,
        )
    return address


def _at_hand(env: Mapping[str, str], say: Say) -> Program | None:
    """What is here already: on PATH, or kept from an earlier build or download."""
    for path, origin in _candidates(env):
        try:
            return probe(path.absolute(), origin)
        except NotObtained as e:
            say(f"passed over: {e}")
    return None


def _candidates(env: Mapping[str, str]) -> Iterator[tuple[Path, str]]:
    if on_path := shutil.which("temporal", path=env.get("PATH", os.defpath)):
        yield Path(on_path), "PATH"
    for folder in _folders(env):
        path = folder / _file_name()
        # `Path.is_file` raises for a folder that may not be entered; that one just has nothing.
        if os.access(path, os.X_OK):
            yield path, "earlier build"


def _obtain(env: Mapping[str, str], say: Say, getters: tuple[tuple[str, Getter], ...]) -> Program:
    folder = _writable_folder(env)
    reasons = []
    with _one_at_a_time(folder, say) as waited:
        if waited and (found := _at_hand(env, say)):
            return found
        for origin, get in getters:
            path = folder / _file_name()
            try:
                get(path, env, say)
                return probe(path, origin)
            except NotObtained as e:
                say(f"not {origin}: {e}")
                reasons.append(f"not {origin}: {e}")
    raise _missing(reasons)


def _missing(reasons: list[str]) -> Unavailable:
    return Unavailable(
        "TEMPORAL_MISSING",
        f"no Temporal server was found or could be made ({'; '.join(reasons)})",
        next_step=(
            f"one of three: (1) set {ADDRESS}=HOST:PORT to a running Temporal server; "
            "(2) put the Temporal CLI (`temporal`, server "
            f"{'.'.join(map(str, SERVER_MIN))} or newer) on PATH; "
            "(3) install Go 1.26 or newer with access to a Go module proxy and repeat"
        ),
    )


def _file_name() -> str:
    return f"temporal-{pinned().version}"


def _folders(env: Mapping[str, str]) -> list[Path]:
    """Where programs are kept: beside the data, and for all clones of this user."""
    folders = [Path(env.get("HOLDFAST_VAR") or "var") / "bin"]
    if cache := env.get("XDG_CACHE_HOME"):
        folders.append(Path(cache) / "holdfast" / "bin")
    elif home := env.get("HOME"):
        folders.append(Path(home) / ".cache" / "holdfast" / "bin")
    return folders


def _writable_folder(env: Mapping[str, str]) -> Path:
    """The user's cache if it can be written, so that the next clone need not build again."""
    refused = []
    for folder in reversed(_folders(env)):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            refused.append(str(e))
            continue
        if os.access(folder, os.W_OK):
            return folder.absolute()
        refused.append(f"{folder} cannot be written")
    raise _missing(refused)


@contextmanager
def _one_at_a_time(folder: Path, say: Say) -> Iterator[bool]:
    """Hold the folder's lock; yields whether another process had it first."""
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            waited = False
        except BlockingIOError:
            say("another process is getting Temporal; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
            waited = True
        yield waited


def main() -> int:
    """Find (or get) Temporal and tell what was found; used by `make setup`."""
    os.chdir(ROOT)

    def say(line: str) -> None:
        sys.stdout.write(f"  temporal: {line}\n")
        sys.stdout.flush()

    try:
        found = find_temporal(os.environ, say)
    except EngineError as e:
        sys.stderr.write(f"{e}\nWhat to do: {e.next_step}\n")
        return 1
    if isinstance(found, ExistingServer):
        say(f"the server at {found.address} is used ({ADDRESS})")
    else:
        say(f"{found.version}, server {found.server}, {found.origin}: {found.path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
