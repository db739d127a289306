"""The fleet's process: a data centre in real time behind a socket that only its owner may use.

Invariants  A call that was received is carried out even when its caller is dead by then, as on real
            hosts. A session lasts as long as its connection, which may be used for one call at a
            time. Garbage costs its sender the connection, and nobody else anything.
When it dies its world dies with it. The supervisor starts it again, and for the engine the site has
            lost its power: every host boots, and runs nothing.
"""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

import structlog

from activities.ports import Hypervisor, HypervisorSession, PowerSwitch
from activities.soft_steps import Ssh
from domain.errors import EngineError, Invalid, NoAnswer, Unavailable
from domain.inventory import FenceDevice, PowerReading
from simulator.fleet.control import Control, Hands
from simulator.fleet.place import socket_of
from simulator.fleet.saved import FleetFile, read_file, restore, save
from simulator.fleet.spec import FleetSpec
from simulator.fleet.wire import (
    LINE_MAX,
    Answered,
    Asked,
    codec,
    failed,
    not_understood,
    read_asked,
    read_line,
    written,
)
from simulator.world.centre import DataCentre
from simulator.world.hypervisor import VirtualHypervisor
from simulator.world.latency import Latency
from simulator.world.power import VirtualPower
from simulator.world.ssh import VirtualSsh

log = structlog.get_logger()

BOOT_S = 8.0
"""From power on until a host's libvirtd answers. Higher: one waits for it. Lower: hosts come back
before anybody has seen that they were away."""

PORTS: Mapping[str, type] = {
    port.__name__: port for port in (Hypervisor, HypervisorSession, PowerSwitch, Ssh, Control)
}


def made(spec: FleetSpec, latency: Latency | None, boot_s: float = BOOT_S) -> DataCentre:
    """A data centre of this kind, every host up and empty."""
    centre = DataCentre(latency=latency)
    for number, name in enumerate(spec.host_names, start=1):
        centre.add(name, spec.memory_mib, cpus=64, rack=spec.rack_of(number), boot_s=boot_s)
    return centre


async def run_fleet(spec: FleetSpec, var: Path) -> None:
    """Serve the fleet of a folder until cancelled, and save it then."""
    found = read_file(var)
    if found is not None and found.spec != spec:
        raise Invalid("FLEET_DIFFERS", f"the fleet of {var} is {found.spec}, not {spec}")
    centre = made(spec, Latency(Random()))
    if found is not None and found.world is not None:
        restore(found.world, centre)
    elif found is not None:
        log.warning("the fleet was not stopped cleanly: every host has lost its power")
    file = _File(var, FleetFile(spec=spec, built=found is not None and found.built))
    file.change(world=None)
    try:
        async with served(centre, socket_of(var), Desk(centre, var, file)):
            await asyncio.Event().wait()
    finally:
        file.change(world=save(centre))


class _File:
    """The fleet's file and what it holds."""

    def __init__(self, var: Path, content: FleetFile) -> None:
        self._var = var
        self.content = content

    def change(self, **fields: Any) -> None:
        """Write it with these fields."""
        self.content = self.content.model_copy(update=fields)
        self.content.write(self._var)


class Desk(Hands):
    """Implements `Control`: the faults, and what is remembered in the folder."""

    def __init__(self, centre: DataCentre, var: Path, file: _File | None = None) -> None:
        super().__init__(centre, str(var.absolute()))
        self._file = file

    async def is_built(self) -> bool:
        """As the file says."""
        return self._file is not None and self._file.content.built

    async def set_built(self) -> None:
        """Into the file, now."""
        if self._file is not None:
            self._file.change(built=True)


@asynccontextmanager
async def served(centre: DataCentre, path: Path, control: Control) -> AsyncIterator[None]:
    """Let other processes of the same user reach a data centre at a socket."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with AsyncExitStack() as stack:
            stack.callback(writer.close)
            await _Connection(centre, control, stack).serve(reader, writer)

    listening = _private_socket(path)
    server = await asyncio.start_unix_server(serve, sock=listening, limit=LINE_MAX)
    try:
        yield
    finally:
        server.close()
        _remove(path)


def _private_socket(path: Path) -> socket.socket:
    """Mode 0600 from its first moment on; what a dead fleet left there is replaced."""
    _remove(path)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listening.bind(str(path))
    except BaseException:
        listening.close()
        raise
    finally:
        os.umask(before)
    return listening


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


class _Connection:
    """Answers the calls of one connection, one after the other."""

    def __init__(self, centre: DataCentre, control: Control, stack: AsyncExitStack) -> None:
        self._hypervisor = VirtualHypervisor(centre)
        self._ports: dict[str, object] = {
            Hypervisor.__name__: self._hypervisor,
            PowerSwitch.__name__: _KnownDevices(centre),
            Ssh.__name__: VirtualSsh(centre),
            Control.__name__: control,
        }
        self._stack = stack

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Until the far end is gone or sends garbage."""
        understood = True
        while understood:
            try:
                line = await read_line(reader)
                if line is None:
                    return
                answer = await self._answer(read_asked(line))
            except Invalid as error:
                answer, understood = Answered(error=failed(error)), False
            if writer.is_closing():
                return
            writer.write(written(answer))
            try:
                await writer.drain()
            except ConnectionError:
                return

    async def _answer(self, asked: Asked) -> Answered:
        try:
            return Answered(value=await self._do(asked))
        except EngineError as error:
            return Answered(error=failed(error))
        except Exception:
            # The world goes on for everybody else; what became of this call nobody knows.
            log.exception("a call failed", port=asked.port, call=asked.call)
            why = f"the fleet failed at {asked.call}; its log says more"
            return Answered(error=failed(Unavailable("FLEET_DEFECT", why)))

    async def _do(self, asked: Asked) -> Any:
        method = method_of(asked)
        how = codec(method)
        args = how.read_args(asked.args)
        if method is Hypervisor.session:
            session = await self._stack.enter_async_context(self._hypervisor.session(*args))
            self._ports[HypervisorSession.__name__] = session
            return how.write_answer(None)
        target = self._ports.get(asked.port)
        if target is None:
            raise not_understood("no session is open")
        return how.write_answer(await getattr(target, asked.call)(*args))


def method_of(asked: Asked) -> Any:
    """The method that a call names; Invalid when there is none."""
    port = PORTS.get(asked.port)
    method = None if port is None or asked.call.startswith("_") else vars(port).get(asked.call)
    if not callable(method):
        raise not_understood(f"there is no {asked.port}.{asked.call}")
    return method


class _KnownDevices:
    """Implements `PowerSwitch`; a device that belongs to no host of the fleet is silent."""

    def __init__(self, centre: DataCentre) -> None:
        self._centre = centre
        self._power = VirtualPower(centre)

    async def read(self, device: FenceDevice) -> PowerReading:
        """What the controller says."""
        if not self._is_known(device):
            return PowerReading.UNKNOWN
        return await self._power.read(device)

    async def off(self, device: FenceDevice, _claim: None = None) -> None:
        """Take the command."""
        self._require(device)
        await self._power.off(device)

    async def on(self, device: FenceDevice, _claim: None = None) -> None:
        """Take the command."""
        self._require(device)
        await self._power.on(device)

    async def machine(self, device: FenceDevice) -> tuple[UUID, ...]:
        """The machine that it manages."""
        return await self._power.machine(device) if self._is_known(device) else ()

    def _is_known(self, device: FenceDevice) -> bool:
        try:
            self._centre.host_of(device)
        except KeyError:
            return False
        return True

    def _require(self, device: FenceDevice) -> None:
        if not self._is_known(device):
            raise NoAnswer(
                "BMC_NO_ANSWER",
                f"{device.name} is no power controller of this fleet",
                next_step="name it bmc-HOST, or bmc-HOST-2 for a second one",
                device=device.name,
            )
