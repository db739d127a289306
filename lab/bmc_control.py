"""Start, end and spoil the power controllers. They themselves are `lab.bmc` and `lab.redfish`.

Invariants  a controller that comes back from `dead` is a new process: the requests that queued up
            while it was stopped die with its socket, as they would in a controller that lost power.
"""

import signal
import sys
from enum import StrEnum
from pathlib import Path

from domain.errors import Unavailable
from lab import processes
from lab.processes import ProcessId
from lab.shell import package_root, spawn_detached
from lab.state import HostPlan, Paths, locked, read_process, write_private

START_DEADLINE_S = 30.0


class Controller(StrEnum):
    """Which of a host's power controllers; its module and its files are called by it."""

    IPMI = "bmc"
    REDFISH = "redfish"

    @property
    def module(self) -> str:
        """What its process runs."""
        return f"lab.{self.value}"


class BmcMode(StrEnum):
    """How a power controller behaves."""

    OK = "ok"  # tells the truth
    DEAD = "dead"  # silent
    LYING = "lying"  # says off and leaves the host running
    HANGING = "hanging"  # opens a session, never answers about power


def record_file(folder: Path, which: Controller = Controller.IPMI) -> Path:
    """Where a controller says which process it is, once it listens."""
    return folder / f"{which}.json"


def _mode_file(folder: Path, which: Controller) -> Path:
    return folder / f"{which}.mode"


def mode_of(folder: Path, which: Controller = Controller.IPMI) -> BmcMode:
    """The mode asked for last; `ok` when none was."""
    try:
        return BmcMode(_mode_file(folder, which).read_text())
    except FileNotFoundError:
        return BmcMode.OK


def process_of(folder: Path, which: Controller = Controller.IPMI) -> ProcessId | None:
    """The living controller of a host, stopped or not."""
    found = read_process(record_file(folder, which))
    return found if processes.alive(found) else None


def was_started(folder: Path, which: Controller) -> bool:
    """Whether a host has been given this controller, be it alive or not."""
    return record_file(folder, which).exists()


def start(paths: Paths, host: HostPlan, which: Controller = Controller.IPMI) -> None:
    """Start a host's controller and wait until it listens; idempotent."""
    folder = paths.host(host.name)
    with locked(folder):
        if process_of(folder, which) is None:
            _start(paths, host, which)


def _start(paths: Paths, host: HostPlan, which: Controller) -> None:
    folder = paths.host(host.name)
    log = folder / f"{which}.log"
    argv = [sys.executable, "-m", which.module, str(paths.root), host.name]
    pid = spawn_detached(argv, log, {"PYTHONPATH": package_root()})

    def listens() -> bool:
        if processes.identify(pid) is None:
            raise Unavailable(
                "LAB_BMC_FAILED",
                f"the power controller of {host.name} ended at once; see {log}",
                next_step=f"if port {_port(host, which)} is taken: `holdfast lab down`, then `up`",
            )
        found = process_of(folder, which)
        return found is not None and found.pid == pid

    processes.until(listens, START_DEADLINE_S, f"the power controller of {host.name} listens")


def _port(host: HostPlan, which: Controller) -> int:
    return host.redfish_port if which is Controller.REDFISH else host.bmc_port


def set_mode(
    paths: Paths, host: HostPlan, mode: BmcMode, which: Controller = Controller.IPMI
) -> None:
    """Change how a controller behaves; idempotent.

    The lock keeps a controller from being stopped while it holds the host itself.
    """
    folder = paths.host(host.name)
    with locked(folder):
        was = mode_of(folder, which)
        write_private(_mode_file(folder, which), mode.value)
        running = process_of(folder, which)
        if mode is BmcMode.DEAD:
            if running is not None:
                processes.send(running, signal.SIGSTOP)
            return
        if was is BmcMode.DEAD:
            processes.end(running)
            running = None
        if running is None:
            _start(paths, host, which)


def find_all(root: Path) -> list[ProcessId]:
    """Every controller process of one lab, known or left over, by its command line."""
    found = []
    commands = {("-m", which.module, str(root)) for which in Controller}
    for pid in processes.pids():
        argv = processes.arguments(pid)
        if argv[1:4] in commands:
            process = processes.identify(pid)
            if process is not None:
                found.append(process)
    return found
