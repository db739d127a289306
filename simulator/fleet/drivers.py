"""The fleet as the engine's processes reach it: the ports of the activities, over the socket.

Each poll, knock and power command has a connection of its own, and so has each session, for as
long as it lasts. What has no answer says what a real driver would say: nothing was sent (NoAnswer),
or a change was and its outcome is not known (OutcomeUnknown). A power controller that is not heard
reads `unknown`.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar
from uuid import UUID

import structlog

from activities.ports import Claim, Hypervisor, HypervisorSession, PowerSwitch
from domain.errors import EngineError, Invalid, NoAnswer, OutcomeUnknown, Unavailable
from domain.foreign import ForeignGuest
from domain.inventory import FenceDevice, GuestSpec, PowerReading
from domain.readings import AgentState, Domain, HostReading, Knock, Migration
from drivers.fence_metadata import AgentParameters
from simulator.fleet.control import Control, Copies, FleetStatus, Mode
from simulator.fleet.wire import (
    LINE_MAX,
    Asked,
    codec,
    read_answered,
    read_line,
    rebuilt,
    written,
)
from simulator.world.latency import CHANGING

P = ParamSpec("P")
T = TypeVar("T")

AGENT = "fence_sim"
"""What the power controllers of a fleet are called among fence agents; it has no options."""

LATE_S = 2.0
"""How long after a call's own deadline the fleet's answer is given up. Higher: a fleet that is
stopped holds steps longer. Lower: a busy machine loses answers that were under way."""

CONTROL_S = 10.0
log = structlog.get_logger(__name__)


class _Line:
    """One connection to the fleet. After a call without an answer it is of no use any more."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._turn = asyncio.Lock()
        self._broken = False

    async def ask(
        self,
        within_s: float,
        method: Callable[Concatenate[Any, P], Awaitable[T]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Call the method of a port at the far end; what it raises there is raised here."""
        answer: T = await self.call(within_s, method, *args)
        return answer

    async def call(self, within_s: float, method: Callable[..., Any], *args: Any) -> Any:
        """The same for a method whose answer is no value, which is opened and not awaited."""
        port, _dot, call = method.__qualname__.rpartition(".")
        how = codec(method)
        asked = Asked(port=port, call=call, args=how.write_args(args))
        async with self._turn:
            line = await self._exchange(asked, within_s)
        answered = read_answered(line)
        if answered.error is not None:
            raise rebuilt(answered.error)
        return how.read_answer(answered.value)

    async def _exchange(self, asked: Asked, within_s: float) -> bytes:
        if self._broken:
            raise silent("the connection to the fleet is gone")
        # Until the answer is here: a later call must not take it for its own.
        self._broken = True
        try:
            async with asyncio.timeout(within_s + LATE_S):
                self._writer.write(written(asked))
                await self._writer.drain()
                line = await read_line(self._reader)
        except (TimeoutError, ConnectionError):
            line = None
        if line is None:
            raise _lost(asked.call)
        self._broken = False
        return line


def silent(why: str) -> NoAnswer:
    """Nothing was sent."""
    return NoAnswer("HOST_NO_ANSWER", why, next_step="is the fleet's process running?")


def _lost(call: str) -> Unavailable:
    detail = f"{call} was sent to the fleet and its answer was lost"
    if call in CHANGING:
        return OutcomeUnknown("HYPERVISOR_ANSWER_LOST", detail)
    return NoAnswer("HOST_NO_ANSWER", detail)


@asynccontextmanager
async def connected(path: Path) -> AsyncIterator[_Line]:
    """A connection to the fleet; NoAnswer when nobody listens."""
    try:
        reader, writer = await asyncio.open_unix_connection(path, limit=LINE_MAX)
    except OSError as error:
        raise silent(f"no fleet listens at {path}: {error.strerror}") from None
    try:
        yield _Line(reader, writer)
    finally:
        writer.close()


class FarSession:
    """Implements `HypervisorSession`."""

    def __init__(self, line: _Line, deadline_s: float) -> None:
        self._line = line
        self._deadline_s = deadline_s

    async def domains(self) -> tuple[Domain, ...]:
        """Every domain of the host."""
        return await self._ask(HypervisorSession.domains)

    async def lookup(self, vm_id: UUID) -> Domain | None:
        """One domain, or None."""
        return await self._ask(HypervisorSession.lookup, vm_id)

    async def define(self, spec: GuestSpec, generation: int) -> None:
        """Define, or redefine while inactive."""
        await self._ask(HypervisorSession.define, spec, generation)

    async def create(self, vm_id: UUID, generation: int) -> None:
        """Start the defined domain."""
        await self._ask(HypervisorSession.create, vm_id, generation)

    async def shutdown(self, vm_id: UUID, generation: int) -> None:
        """Press the guest's power button."""
        await self._ask(HypervisorSession.shutdown, vm_id, generation)

    async def resume(self, vm_id: UUID, generation: int) -> None:
        """Let a paused domain go on."""
        await self._ask(HypervisorSession.resume, vm_id, generation)

    async def ask_agent(self, vm_id: UUID) -> AgentState:
        """What its guest agent gives to a ping."""
        return await self._ask(HypervisorSession.ask_agent, vm_id)

    async def destroy(self, vm_id: UUID, generation: int) -> None:
        """End the domain now."""
        await self._ask(HypervisorSession.destroy, vm_id, generation)

    async def undefine(self, vm_id: UUID, generation: int) -> None:
        """Forget an inactive domain."""
        await self._ask(HypervisorSession.undefine, vm_id, generation)

    async def migrate(
        self,
        vm_id: UUID,
        generation: int,
        target_uri: str,
        target_generation: int,
        within_s: float,
    ) -> None:
        """Move a running domain; it has `within_s` seconds."""
        moved = (vm_id, generation, target_uri, target_generation, within_s)
        await self._line.ask(within_s, HypervisorSession.migrate, *moved)

    async def renew_mark(self, vm_id: UUID, generation: int, new_generation: int) -> None:
        """Mark what lives as one of a newer run."""
        await self._ask(HypervisorSession.renew_mark, vm_id, generation, new_generation)

    async def migration(self, vm_id: UUID) -> Migration | None:
        """How far that is."""
        return await self._ask(HypervisorSession.migration, vm_id)

    async def abort_migration(self, vm_id: UUID, generation: int) -> None:
        """Give it up."""
        await self._ask(HypervisorSession.abort_migration, vm_id, generation)

    async def refuse_arrival(self, vm_id: UUID, generation: int) -> None:
        """Take no copy of it."""
        await self._ask(HypervisorSession.refuse_arrival, vm_id, generation)

    async def list_foreign(self) -> tuple[ForeignGuest, ...]:
        """Every domain without our mark."""
        return await self._ask(HypervisorSession.list_foreign)

    async def describe_foreign(self, guest: UUID | str) -> ForeignGuest | None:
        """One domain by UUID or name."""
        return await self._ask(HypervisorSession.describe_foreign, guest)

    async def adopt(self, guest_id: UUID, generation: int, claim: UUID) -> None:
        """Mark a guest."""
        await self._ask(HypervisorSession.adopt, guest_id, generation, claim)

    async def disown(self, guest_id: UUID, claim: UUID) -> None:
        """Take the mark of one import away."""
        await self._ask(HypervisorSession.disown, guest_id, claim)

    async def boot_mark(self) -> int | None:
        """The epoch that this boot was marked with."""
        return await self._ask(HypervisorSession.boot_mark)

    async def set_boot_mark(self, epoch: int) -> None:
        """Mark this boot."""
        await self._ask(HypervisorSession.set_boot_mark, epoch)

    async def _ask(
        self,
        method: Callable[Concatenate[Any, P], Awaitable[T]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        return await self._line.ask(self._deadline_s, method, *args, **kwargs)


class FarHypervisor:
    """Implements `Hypervisor`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def session(
        self, uri: str, deadline_s: float
    ) -> AbstractAsyncContextManager[HypervisorSession]:
        """A connection to the host's present boot."""
        return self._session(uri, deadline_s)

    @asynccontextmanager
    async def _session(self, uri: str, deadline_s: float) -> AsyncIterator[HypervisorSession]:
        async with connected(self._path) as line:
            await line.call(deadline_s, Hypervisor.session, uri, deadline_s)
            yield FarSession(line, deadline_s)

    async def poll(self, uri: str, deadline_s: float) -> HostReading:
        """Read the host."""
        async with connected(self._path) as line:
            return await line.ask(deadline_s, Hypervisor.poll, uri, deadline_s)

    async def knock(self, uri: str, deadline_s: float) -> Knock:
        """What comes back from the host's door; NoAnswer when the fleet itself is away."""
        try:
            async with connected(self._path) as line:
                return await line.ask(deadline_s, Hypervisor.knock, uri, deadline_s)
        except EngineError as error:
            # A fleet that is away says nothing about a host.
            raise NoAnswer("KNOCK_NOT_POSSIBLE", error.detail) from None

    async def machine(self, uri: str, deadline_s: float) -> UUID | None:
        """The UUID in the host's firmware."""
        async with connected(self._path) as line:
            return await line.ask(deadline_s, Hypervisor.machine, uri, deadline_s)


class FarPower:
    """Implements `PowerSwitch`, and knows the one fence agent that a fleet has."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def read(self, device: FenceDevice) -> PowerReading:
        """What the controller says; never raises."""
        try:
            async with connected(self._path) as line:
                return await line.ask(device.deadline_s, PowerSwitch.read, device)
        except EngineError as error:
            log.warning("fence device cannot be read", device=device.name, why=error.detail)
            return PowerReading.UNKNOWN

    async def off(self, device: FenceDevice, claim: Claim | None = None) -> None:
        """Take the command; NoAnswer when that is not known, as with real agents."""
        await self._switch(PowerSwitch.off, device, claim)

    async def on(self, device: FenceDevice, claim: Claim | None = None) -> None:
        """Take the command; NoAnswer when that is not known, as with real agents."""
        await self._switch(PowerSwitch.on, device, claim)

    async def machine(self, device: FenceDevice) -> tuple[UUID, ...]:
        """The machine that it manages; never raises."""
        try:
            async with connected(self._path) as line:
                return await line.ask(device.deadline_s, PowerSwitch.machine, device)
        except EngineError as error:
            log.warning("fence device tells no machine", device=device.name, why=error.detail)
            return ()

    async def agent_parameters(self, agent: str) -> AgentParameters:
        """Invalid (`FENCE_AGENT_UNKNOWN`) for every agent but the fleet's own."""
        if agent != AGENT:
            raise Invalid(
                "FENCE_AGENT_UNKNOWN",
                f"this engine works on a fleet without hardware, where {agent!r} reaches nothing",
                next_step=f"use {AGENT}, which needs no options, and name the device bmc-HOST",
                agent=agent,
            )
        nothing = frozenset[str]()
        return AgentParameters(agent=AGENT, names=nothing, required=nothing, actions=nothing)

    async def _switch(
        self,
        method: Callable[[Any, FenceDevice], Awaitable[None]],
        device: FenceDevice,
        claim: Claim | None,
    ) -> None:
        try:
            async with connected(self._path) as line:
                if claim is not None:
                    await claim()
                await line.ask(device.deadline_s, method, device)
        except OutcomeUnknown as error:
            raise NoAnswer("BMC_NO_ANSWER", error.detail, device=device.name) from None


class FarControl:
    """Implements `Control`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def status(self) -> FleetStatus:
        """Every host."""
        return await self._ask(Control.status)

    async def copies(self) -> tuple[Copies, ...]:
        """Every VM."""
        return await self._ask(Control.copies)

    async def is_built(self) -> bool:
        """Whether the inventory was completed once."""
        return await self._ask(Control.is_built)

    async def set_built(self) -> None:
        """Remember it."""
        await self._ask(Control.set_built)

    async def crash(self, host: str) -> None:
        """Cut its power."""
        await self._ask(Control.crash, host)

    async def power_on(self, host: str) -> None:
        """Switch it on."""
        await self._ask(Control.power_on, host)

    async def isolate(self, host: str) -> None:
        """Pull its cable."""
        await self._ask(Control.isolate, host)

    async def heal(self, host: str) -> None:
        """Undo `isolate` and `hang`."""
        await self._ask(Control.heal, host)

    async def hang(self, host: str) -> None:
        """Freeze its libvirtd."""
        await self._ask(Control.hang, host)

    async def unhang(self, host: str) -> None:
        """Let it go on."""
        await self._ask(Control.unhang, host)

    async def bmc(self, host: str, mode: Mode) -> None:
        """Change its power controller."""
        await self._ask(Control.bmc, host, mode)

    async def _ask(
        self,
        method: Callable[Concatenate[Any, P], Awaitable[T]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        try:
            async with connected(self._path) as line:
                return await line.ask(CONTROL_S, method, *args, **kwargs)
        except NoAnswer as error:
            raise NoAnswer(
                "FLEET_NO_ANSWER",
                f"the fleet does not answer at {self._path}",
                next_step=f"start it: HOLDFAST_VAR={self._path.parent} holdfast up --fleet …",
            ) from error
