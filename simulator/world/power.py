"""Power controllers as one machine of the engine reaches them.

Invariants  A controller's answer to a command says nothing: only a later reading does. Reading
            never raises: no answer, a wrong password and an error all read `unknown`.
"""

import asyncio
from collections.abc import Callable
from typing import TypeVar
from uuid import UUID

from activities.ports import Claim
from domain.errors import EngineError, NoAnswer
from domain.inventory import FenceDevice, PowerReading
from simulator.world.centre import DataCentre
from simulator.world.host import Bmc, VirtualHost
from simulator.world.hypervisor import FIRST_MACHINE
from simulator.world.latency import Call
from simulator.world.network import Net
from simulator.world.wire import Line

T = TypeVar("T")

SLOW_READINGS = 3
"""How often a slow controller still reads on after it took the command."""


class VirtualPower:
    """Implements `PowerSwitch`; a device is named `bmc-<host>`, more than one `bmc-<host>-<n>`.

    The outlets that feed a host are `pdu-<host>-<n>`.
    """

    def __init__(self, centre: DataCentre, machine: str = FIRST_MACHINE) -> None:
        self._centre = centre
        self._machine = machine

    async def read(self, device: FenceDevice) -> PowerReading:
        """What the controller says."""
        controller = self._controller(device)
        try:
            answer = await self._call(Call.BMC_READ, controller, controller.read)
        except NoAnswer:
            answer = PowerReading.UNKNOWN
        controller.tell("bmc.read", answer=answer)
        return answer

    async def off(self, device: FenceDevice, claim: Claim | None = None) -> None:
        """Take the command."""
        if claim is not None:
            await claim()
        controller = self._controller(device)
        await self._call(Call.BMC_OFF, controller, controller.off)

    async def on(self, device: FenceDevice, claim: Claim | None = None) -> None:
        """Take the command."""
        if claim is not None:
            await claim()
        controller = self._controller(device)
        await self._call(Call.BMC_ON, controller, controller.on)

    async def machine(self, device: FenceDevice) -> tuple[UUID, ...]:
        """The machine that the controller manages; an outlet manages none."""
        controller = self._controller(device)
        try:
            return await self._call(Call.BMC_READ, controller, controller.machine)
        except NoAnswer:
            return ()

    def _controller(self, device: FenceDevice) -> "_Controller":
        host = self._centre.host_of(device)
        kind = _Outlet if device.name in host.outlets else _Controller
        return kind(self._centre, host, device, self._machine)

    async def _call(self, call: Call, controller: "_Controller", act: Callable[[], T]) -> T:
        await self._centre.ahead_of(call)
        device, network = controller.device, self._centre.networks[Net.BMC]
        if controller.mode is Bmc.HANGING and self._centre.latency is None:
            await asyncio.sleep(device.deadline_s)
        line = Line(self._centre, network, self._machine, device.name, controller, controller.lost)
        return await line.call(call, device.deadline_s, act)


class _Controller:
    """One device of a host, asked by one machine."""

    slowness = 1.0

    def __init__(
        self, centre: DataCentre, host: VirtualHost, device: FenceDevice, machine: str
    ) -> None:
        self.device = device
        self._centre = centre
        self._host = host
        self._machine = machine

    @property
    def mode(self) -> Bmc:
        """How it behaves now."""
        return self._host.bmc_of(self.device.name)

    @property
    def awake(self) -> bool:
        """Whether it answers at all."""
        if self.mode is Bmc.DEAD_WITH_HOST:
            return self._host.supplied
        return self.mode not in (Bmc.DEAD, Bmc.HANGING)

    def take(self, work: Callable[[], None]) -> None:
        """What comes in while it is dead is lost."""
        if self.awake:
            work()

    def read(self) -> PowerReading:
        """What it says about its host."""
        self._let_in()
        host = self._host
        if self.mode is Bmc.LYING:
            if host.powered:
                host.lied_in_silence = not self._centre.hears(self._machine, host)
                self.tell("bmc.lied", in_silence=host.lied_in_silence)
            return PowerReading.OFF
        if host.cut_in is not None:
            host.cut_in -= 1
            if host.cut_in <= 0:
                host.switch_off(self.device.name)
        return PowerReading.ON if host.powered else PowerReading.OFF

    def machine(self) -> tuple[UUID, ...]:
        """The machine that it manages."""
        self._let_in()
        return (self._host.managed or self._host.machine,)

    def off(self) -> None:
        """Take the command, and cut now, later or never."""
        self._let_in()
        host, mode = self._host, self.mode
        if mode is Bmc.ALREADY_OFF_ERROR and not host.powered:
            raise self._failed("chassis power is already off")
        self._centre.powered_off.append(host.name)
        self.tell("bmc.command", action="off")
        if mode is Bmc.SLOW:
            host.cut_in = SLOW_READINGS
        elif mode is Bmc.SLOW_S:
            host.switch_off_later(self.device.name)
        elif mode is not Bmc.LYING:
            host.switch_off(self.device.name)

    def on(self) -> None:
        """Take the command."""
        self._let_in()
        self.tell("bmc.command", action="on")
        if self._host.supplied or not self._host.outlets:
            self._host.get_power()

    def tell(self, kind: str, **facts: object) -> None:
        """An event at this device."""
        self._centre.happenings.tell(
            kind, device=self.device.name, host=self._host.name, machine=self._machine, **facts
        )

    def lost(self, _unknown: bool) -> EngineError:
        """No answer; that a command may have been taken shows only in a reading."""
        detail = f"{self.device.name} does not answer"
        return NoAnswer("BMC_NO_ANSWER", detail, device=self.device.name)

    def _let_in(self) -> None:
        if self.mode is Bmc.WRONG_PASSWORD:
            raise self._failed("unable to establish a session: wrong password")

    def _failed(self, why: str) -> NoAnswer:
        return NoAnswer("FENCE_AGENT_FAILED", f"{self.device.name}: {why}", device=self.device.name)


class _Outlet(_Controller):
    """One outlet that feeds a host: it reads on while it carries current, whatever the host does.

    Its controller is without current itself when the supply before it is gone.
    """

    @property
    def awake(self) -> bool:
        """Whether it answers at all."""
        fed = self._host.supplied or not any(self._host.outlets.values())
        return fed and self.mode not in (Bmc.DEAD, Bmc.HANGING)

    def read(self) -> PowerReading:
        """What it says about itself."""
        self._let_in()
        on = self._host.outlets[self.device.name]
        return PowerReading.ON if on else PowerReading.OFF

    def machine(self) -> tuple[UUID, ...]:
        """An outlet does not know what it feeds."""
        self._let_in()
        return ()

    def off(self) -> None:
        """Take the command, and cut now."""
        self._let_in()
        self._centre.powered_off.append(self._host.name)
        self.tell("bmc.command", action="off")
        self._host.switch_outlet(self.device.name, on=False)

    def on(self) -> None:
        """Take the command."""
        self._let_in()
        self.tell("bmc.command", action="on")
        self._host.switch_outlet(self.device.name, on=True)
