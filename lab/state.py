"""What a lab is, on disk: one folder a lab, one folder a host, small JSON files.

`lab.json` (mode 0600: it holds the power controllers' password) is written once, by `up`. What
changes lies apart, one writer at a time under the host's lock, so that a power controller and a
command line never overwrite each other's news.
"""

import fcntl
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

from pydantic import Field

from domain.base import Frozen
from domain.errors import Invalid, NotFound, Unavailable
from lab.processes import ProcessId

NAME_PATTERN = r"^[a-z0-9]{1,8}$"
"""Interface names hold 15 characters: `hf-`, the lab's name, `-`, the host's number."""

HOSTS_MAX = 200
LOCK_DEADLINE_S = 20.0


class HostPlan(Frozen):
    """One host of the lab: who it is, never how it fares."""

    name: str
    number: int
    uuid: UUID
    address: str
    bmc_port: int
    redfish_port: int = 0  # 0: the lab was made before there were such controllers

    @property
    def uri(self) -> str:
        """Its libvirt URI."""
        return f"qemu+tcp://{self.address}/system"


class LabState(Frozen):
    """What `up` decided once."""

    name: str = Field(pattern=NAME_PATTERN)
    k: int = Field(ge=0, le=255)
    bmc_username: str
    bmc_password: str = Field(repr=False)
    hosts: tuple[HostPlan, ...]


class Paths:
    """Where everything of one lab lies."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def state(self) -> Path:
        """The lab's own file."""
        return self.root / "lab.json"

    @property
    def shared(self) -> Path:
        """Shared storage: the same path on every host."""
        return self.root / "shared"

    def host(self, name: str) -> Path:
        """The folder of one host."""
        return self.root / "hosts" / name


def paths_of(var: Path, name: str) -> Paths:
    """The folder of a lab by name; raises Invalid for a name that cannot name an interface."""
    if not re.match(NAME_PATTERN, name):
        raise Invalid(
            "LAB_NAME_INVALID",
            f"{name!r} cannot name a lab",
            next_step="use 1 to 8 small letters and digits",
        )
    return Paths(var.resolve() / "lab" / name)


def write_private(path: Path, text: str) -> None:
    """Replace a file in one step; only its owner may read it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    draft.replace(path)


def load(paths: Paths) -> LabState | None:
    """The lab's state, or None when there is no lab."""
    try:
        return LabState.model_validate_json(paths.state.read_text())
    except FileNotFoundError:
        return None


def host_named(state: LabState, name: str) -> HostPlan:
    """One host; raises NotFound naming those there are."""
    for host in state.hosts:
        if host.name == name:
            return host
    known = ", ".join(host.name for host in state.hosts)
    raise NotFound("LAB_HOST_UNKNOWN", f"lab {state.name} has no host {name!r}; it has {known}")


def read_process(path: Path) -> ProcessId | None:
    """A process named in a file, or None."""
    try:
        return ProcessId.model_validate_json(path.read_text())
    except FileNotFoundError:
        return None


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold one host (or the whole lab) for a change; raises Unavailable when it stays taken.

    The lock belongs to the open file, so it goes with its holder however that one ends.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        end = time.monotonic() + LOCK_DEADLINE_S
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= end:
                    raise Unavailable(
                        "LAB_BUSY",
                        f"another command has held {folder.name} for {LOCK_DEADLINE_S:g} s",
                        next_step="wait for it to end, then ask again",
                    ) from None
                time.sleep(0.02)
        yield
