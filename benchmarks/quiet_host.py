"""A host that does nothing at once, and a power controller that never answers."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

from activities.ports import Claim
from domain.errors import NoAnswer
from domain.foreign import ForeignGuest
from domain.inventory import FenceDevice, GuestSpec, PowerReading
from domain.readings import AgentState, Domain, HostReading, Knock, Migration
from domain.ssh_access import SshAccess


class QuietSession:
    """Fits `HypervisorSession`: every call succeeds, and no domain is ever there."""

    async def domains(self) -> tuple[Domain, ...]:
        """No domain."""
        return ()

    async def lookup(self, vm_id: UUID) -> Domain | None:
        """Not there."""
        return None

    async def define(self, spec: GuestSpec, generation: int) -> None:
        """Done."""

    async def create(self, vm_id: UUID, generation: int) -> None:
        """Done."""

    async def shutdown(self, vm_id: UUID, generation: int) -> None:
        """Done."""

    async def destroy(self, vm_id: UUID, generation: int) -> None:
        """Done."""

    async def resume(self, vm_id: UUID, generation: int) -> None:
        """Done."""

    async def undefine(self, vm_id: UUID, generation: int) -> None:
        """Done."""

    async def migrate(
        self,
        vm_id: UUID,
        generation: int,
        target_uri: str,
        target_generation: int,
        within_s: float,
    ) -> None:
        """Done at once."""

    async def ask_agent(self, vm_id: UUID) -> AgentState:
        """It answers."""
        return AgentState.ANSWERS

    async def migration(self, vm_id: UUID) -> Migration | None:
        """None is under way."""
        return None

    async def abort_migration(self, vm_id: UUID, generation: int) -> None:
        """Nothing to give up."""

    async def refuse_arrival(self, vm_id: UUID, generation: int) -> None:
        """Done at once."""

    async def renew_mark(self, vm_id: UUID, generation: int, new_generation: int) -> None:
        """Done."""

    async def list_foreign(self) -> tuple[ForeignGuest, ...]:
        """None."""
        return ()

    async def describe_foreign(self, guest: UUID | str) -> ForeignGuest | None:
        """Not there."""
        return None

    async def adopt(self, guest_id: UUID, generation: int, claim: UUID) -> None:
        """Done."""

    async def disown(self, guest_id: UUID, claim: UUID) -> None:
        """Done."""

    async def boot_mark(self) -> int | None:
        """Never marked."""
        return None

    async def set_boot_mark(self, epoch: int) -> None:
        """Done."""


class QuietHypervisor:
    """Fits `Hypervisor`."""

    @asynccontextmanager
    async def session(self, uri: str, deadline_s: float) -> AsyncIterator[QuietSession]:
        """Open at once."""
        yield QuietSession()

    async def poll(self, uri: str, deadline_s: float) -> HostReading:
        """Nobody polls it."""
        raise NoAnswer("HOST_SILENT", f"{uri} is not polled here")

    async def knock(self, uri: str, deadline_s: float) -> Knock:
        """It lives."""
        return Knock.ANSWERS

    async def machine(self, uri: str, deadline_s: float) -> UUID | None:
        """It does not tell."""
        return None


class SilentPower:
    """Fits `PowerSwitch`."""

    async def read(self, device: FenceDevice) -> PowerReading:
        """No answer."""
        return PowerReading.UNKNOWN

    async def off(self, device: FenceDevice, claim: Claim | None = None) -> None:
        """No answer."""
        raise NoAnswer("FENCE_AGENT_FAILED", f"{device.name} does not answer")

    async def on(self, device: FenceDevice, claim: Claim | None = None) -> None:
        """No answer."""
        raise NoAnswer("FENCE_AGENT_FAILED", f"{device.name} does not answer")

    async def machine(self, device: FenceDevice) -> tuple[UUID, ...]:
        """No answer."""
        return ()


class SilentSsh:
    """Fits `Ssh`."""

    async def restart_libvirtd(self, access: SshAccess, deadline_s: float) -> None:
        """No answer."""
        raise NoAnswer("SSH_NO_ANSWER", f"{access.address} does not answer")
