"""The power controller of one host: a real IPMI 2.0 peer, one process a host.

It runs in the machine's own namespace on a loopback port, on its own supply: it answers while its
host is dead and says `off`. `python -m lab.bmc FOLDER HOST` starts it; the password is read from
the lab's private file, so no command line shows it. Faults are read from `bmc.mode` each time:

ok       tells the truth.
lying    takes `off`, says off from then on, and leaves the host running.
hanging  opens sessions, but never answers a question about power.
dead     (not ours to play: the process is stopped, see `lab.bmc_control`)

Invariants  off reads as off only when all of the host's processes are gone.
"""

import sys
from pathlib import Path
from typing import Any

from pyghmi.ipmi.bmc import Bmc

from domain.errors import EngineError, NotFound
from lab import processes
from lab.bmc_control import BmcMode, mode_of, record_file
from lab.hosts import Host
from lab.state import LabState, Paths, host_named, load, write_private

CHASSIS = 0x00
"""IPMI network function of all power commands."""

NOT_IN_THIS_STATE = 0xD5
"""IPMI completion code: the command cannot be carried out as things are."""

CUT_WAIT_S = 0.7
"""Off is answered once the host is gone or after this; ipmitool repeats itself after a second."""


class HostBmc(Bmc):  # type: ignore[misc]  # pyghmi has no types
    """pyghmi's controller, mapped to one host."""

    def __init__(self, state: LabState, host: Host) -> None:
        accounts = {state.bmc_username: state.bmc_password}
        super().__init__(
            accounts, port=host.plan.bmc_port, bmcuuid=host.plan.uuid, address="127.0.0.1"
        )
        self._host = host
        self._claims_off = False

    def _mode(self) -> BmcMode:
        mode = mode_of(self._host.folder)
        if mode is not BmcMode.LYING:
            self._claims_off = False
        return mode

    def handle_raw_request(self, request: dict[str, Any], session: Any) -> None:
        """Answer one request, or keep silent where the fault says so."""
        if request["netfn"] == CHASSIS and self._mode() is BmcMode.HANGING:
            return
        super().handle_raw_request(request, session)

    def get_system_guid(self) -> Any:
        """The host's own UUID, as the firmware of a real machine gives it to both."""
        return self._host.plan.uuid

    def get_power_state(self) -> int:
        """1 while any process of the host lives."""
        if self._mode() is BmcMode.LYING and self._claims_off:
            return 0
        return int(self._host.is_on())

    def power_off(self) -> int:
        """Cut the power; a host that is off already is success."""
        if self._mode() is BmcMode.LYING:
            self._claims_off = True
            return 0
        return _completion("off", lambda: self._host.cut(CUT_WAIT_S))

    def power_on(self) -> int:
        """Give power; the host boots after the answer."""
        self._claims_off = False
        return _completion("on", self._host.power_on)

    def power_reset(self) -> int:
        """Off and on in one command, as a person at the front panel does it."""
        return self.power_off() or self.power_on()

    power_cycle = power_reset


def _completion(what: str, action: Any) -> int:
    try:
        action()
    except EngineError as error:
        sys.stderr.write(f"power {what}: {error}\n")
        return NOT_IN_THIS_STATE
    return 0


def serve(paths: Paths, name: str) -> None:
    """Answer for one host until the process is ended."""
    state = load(paths)
    if state is None:
        raise NotFound("LAB_ABSENT", f"no lab lies in {paths.root}")
    host = Host(state, paths, host_named(state, name))
    bmc = HostBmc(state, host)
    me = processes.identify(processes.own_pid())
    if me is None:
        raise NotFound("LAB_NO_PROC", "/proc does not show this process")
    write_private(record_file(host.folder), me.model_dump_json())
    bmc.listen()


if __name__ == "__main__":
    serve(Paths(Path(sys.argv[1])), sys.argv[2])
