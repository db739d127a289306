"""The virtual data centre under the names that tests use, and what only tests need of it.

A hook in `DataCentre.before` runs just before a call of that name; a `Gate` is one that waits.
"""

import asyncio

from domain.errors import NoAnswer, OutcomeUnknown
from simulator.world.centre import DataCentre, Hook
from simulator.world.doors import VirtualDoors as FakeDoors
from simulator.world.host import Bmc, Sshd
from simulator.world.host import VirtualDomain as FakeDomain
from simulator.world.host import VirtualHost as FakeHost
from simulator.world.hypervisor import VirtualHypervisor as FakeHypervisor
from simulator.world.hypervisor import VirtualSession as FakeSession
from simulator.world.power import SLOW_READINGS
from simulator.world.power import VirtualPower as FakePower
from simulator.world.ssh import VirtualSsh as FakeSsh

__all__ = [
    "SLOW_READINGS",
    "Bmc",
    "DataCentre",
    "FakeDomain",
    "FakeDoors",
    "FakeHost",
    "FakeHypervisor",
    "FakePower",
    "FakeSession",
    "FakeSsh",
    "Gate",
    "Hook",
    "Sshd",
    "lost_answer",
    "lost_once",
]


class Gate:
    """Holds whoever comes to it until it is opened, and tells that someone came."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self._opened = asyncio.Event()

    @property
    def is_open(self) -> bool:
        """Whether everybody is let through."""
        return self._opened.is_set()

    async def __call__(self) -> None:
        """Wait at the gate."""
        self.reached.set()
        await self._opened.wait()

    def open(self) -> None:
        """Let everybody through from now on."""
        self._opened.set()


def lost_once() -> Hook:
    """The first call that comes to it is lost on the way."""
    lost = False

    async def hook() -> None:
        nonlocal lost
        if not lost:
            lost = True
            raise NoAnswer("HOST_NO_ANSWER", "a packet was lost")

    return hook


def lost_answer(host: str) -> OutcomeUnknown:
    """What a driver raises for a call that was sent and never answered."""
    return OutcomeUnknown("ANSWER_LOST", f"{host} did not say how the call ended")
