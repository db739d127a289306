"""The fleet of a folder, with the methods of `lab.lab.Lab` that `holdfast lab` calls."""

import asyncio
from pathlib import Path

from domain.errors import Conflict
from simulator.fleet.control import FleetStatus, Mode
from simulator.fleet.drivers import FarControl
from simulator.fleet.place import socket_of


class FleetLab:
    """Asks the fleet's process; NoAnswer (`FLEET_NO_ANSWER`) while that does not run."""

    def __init__(self, var: Path) -> None:
        self._control = FarControl(socket_of(var))

    def down(self) -> None:
        """Never from here: the engine's processes would see every host fall silent."""
        raise Conflict(
            "LAB_IS_FLEET",
            "a fleet ends with its engine",
            next_step="end `holdfast up`; remove its folder to forget the fleet",
        )

    def status(self) -> FleetStatus:
        """How the fleet fares."""
        return asyncio.run(self._control.status())

    def crash(self, host: str) -> None:
        """Cut a host's power."""
        asyncio.run(self._control.crash(host))

    def power_on(self, host: str) -> None:
        """Switch a host on and plug its cable in."""
        asyncio.run(self._control.power_on(host))

    def isolate(self, host: str) -> None:
        """Pull a host's cable."""
        asyncio.run(self._control.isolate(host))

    def heal(self, host: str) -> None:
        """Undo `isolate` and `hang`."""
        asyncio.run(self._control.heal(host))

    def hang(self, host: str) -> None:
        """Freeze a host's libvirtd."""
        asyncio.run(self._control.hang(host))

    def unhang(self, host: str) -> None:
        """Let it go on."""
        asyncio.run(self._control.unhang(host))

    def bmc(self, host: str, mode: str) -> None:
        """Change how a host's power controller behaves."""
        asyncio.run(self._control.bmc(host, Mode(mode)))

    def redfish(self, host: str, mode: str) -> None:
        """No controller here speaks it."""
        raise Conflict(
            "LAB_IS_FLEET",
            f"the controller of {host} speaks no Redfish",
            next_step=f"holdfast lab bmc {host} {mode}",
        )
