"""A data centre in one process, and its hypervisor and power switch in another.

Worker processes that are to be killed reach the test's data centre over a socket, as the processes
of `holdfast up --fleet` reach a fleet: a call that was received is carried out even when its caller
is dead by then, as real hosts do, and a session lasts as long as its connection.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from simulator.fleet.drivers import FarHypervisor, FarPower
from simulator.fleet.server import Desk
from simulator.fleet.server import served as served_at
from simulator.fleet.ssh import FarSsh
from tests.fakes import DataCentre

__all__ = ["FarHypervisor", "FarPower", "FarSsh", "served"]


@asynccontextmanager
async def served(centre: DataCentre, socket: Path) -> AsyncIterator[None]:
    """Let other processes reach a data centre at a socket."""
    async with served_at(centre, socket, Desk(centre, socket.parent)):
        yield
