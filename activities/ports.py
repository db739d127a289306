"""What steps need from the outside world, as narrow Protocols.

`drivers` implements the ones that touch machines, by shape: it never imports this file, and steps
never import it, so a workflow file can import the activity classes themselves and neither libvirt
nor SQLAlchemy enters the sandbox.
"""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol
from uuid import UUID

from domain.foreign import ForeignGuest
from domain.inventory import FenceDevice, GuestSpec, PowerReading
from domain.orders import HostRef
from domain.readings import AgentState, Domain, HostReading, Knock, Migration
from domain.storage_lease import LeaseReading


class HypervisorSession(Protocol):
    """One open connection to one host. It never reconnects: the connection is the token.

    Every call has the session's deadline. NoAnswer: nothing was sent or nothing was changed.
    OutcomeUnknown: a mutating call was sent and not answered. Refused: libvirt said no. Mutating
    calls name VM and generation, touch only domains that carry our metadata, and raise Superseded
    (`GENERATION_STALE`) where the host holds a newer generation. Only `adopt` and `disown` touch a
    foreign domain, and of it only that metadata.
    """

    async def domains(self) -> tuple[Domain, ...]:
        """Every domain of the host, running or only defined, ours or not."""
        ...

    async def lookup(self, vm_id: UUID) -> Domain | None:
        """One domain, or None when the host does not know it."""
        ...

    async def define(self, spec: GuestSpec, generation: int) -> None:
        """Define (or redefine an inactive) domain; idempotent; refuses a foreign one."""
        ...

    async def create(self, vm_id: UUID, generation: int) -> None:
        """Start the defined domain; already running with this generation is success."""
        ...

    async def shutdown(self, vm_id: UUID, generation: int) -> None:
        """Ask the guest to end (ACPI); not running is success."""
        ...

    async def ask_agent(self, vm_id: UUID) -> AgentState:
        """What its guest agent gives to a ping, within seconds of its own. Reads only.

        Those come on top of the session's deadline: a hung agent costs five.
        """
        ...

    async def resume(self, vm_id: UUID, generation: int) -> None:
        """Let a paused domain go on; not paused, or not running, is success."""
        ...

    async def destroy(self, vm_id: UUID, generation: int) -> None:
        """End the domain now; not running is success. Touches older generations too."""
        ...

    async def undefine(self, vm_id: UUID, generation: int) -> None:
        """Forget an inactive domain; unknown is success. Touches older generations too."""
        ...

    async def migrate(
        self,
        vm_id: UUID,
        generation: int,
        target_uri: str,
        target_generation: int,
        within_s: float,
    ) -> None:
        """Move a running domain to another host, live; returns once libvirt says that it is there.

        It has `within_s` seconds. The copy on the target carries `target_generation`. Whoever
        asked may be gone: libvirt goes on by itself, so the answer is no proof of anything.
        """
        ...

    async def renew_mark(self, vm_id: UUID, generation: int, new_generation: int) -> None:
        """Mark a domain that lives with `generation` as one of a newer run; idempotent, read back.

        In what runs and in what is defined; what runs undefined is defined as it is. The guest is
        not touched. Refuses where another generation lives, or none.
        """
        ...

    async def migration(self, vm_id: UUID) -> Migration | None:
        """How far libvirt is with moving a domain away from here, or None when it is not at it."""
        ...

    async def abort_migration(self, vm_id: UUID, generation: int) -> None:
        """Ask libvirt to give up moving a domain away; none under way is success."""
        ...

    async def refuse_arrival(self, vm_id: UUID, generation: int) -> None:
        """Let this host take no copy of a VM that another host sends; idempotent.

        Until the VM is undefined or defined here. Refuses where the VM runs here.
        """
        ...

    async def list_foreign(self) -> tuple[ForeignGuest, ...]:
        """Every domain without our mark, by name; reads only."""
        ...

    async def describe_foreign(self, guest: UUID | str) -> ForeignGuest | None:
        """One domain by UUID or name, marked or not; None when the host does not know it."""
        ...

    async def adopt(self, guest_id: UUID, generation: int, claim: UUID) -> None:
        """Mark a foreign guest as ours, in the name of one import; idempotent, read back.

        The guest itself is not touched. NotFound; GUEST_CLAIMED when another import or engine
        marked it; GUEST_AUTOSTART.
        """
        ...

    async def disown(self, guest_id: UUID, claim: UUID) -> None:
        """Take the mark of one import away, nobody else's; idempotent, unknown is success."""
        ...

    async def boot_mark(self) -> int | None:
        """The epoch that this boot of the host was marked with."""
        ...

    async def set_boot_mark(self, epoch: int) -> None:
        """Mark this boot with an epoch, replacing an older mark; idempotent."""
        ...


class Hypervisor(Protocol):
    """Hosts reached by libvirt URI."""

    def session(
        self, uri: str, deadline_s: float
    ) -> AbstractAsyncContextManager[HypervisorSession]:
        """Open a fresh connection; NoAnswer when the host does not take it in time."""
        ...

    async def poll(self, uri: str, deadline_s: float) -> HostReading:
        """Read a host over a kept connection; a hung one is dropped and replaced next time."""
        ...

    async def knock(self, uri: str, deadline_s: float) -> Knock:
        """Find out whether any life is left at the host's door, asking libvirt for nothing.

        Listens for the whole of `deadline_s` seconds before it says SILENT. NoAnswer
        (`KNOCK_NOT_POSSIBLE`) when the door could not be tried, which says nothing about the host.
        """
        ...

    async def machine(self, uri: str, deadline_s: float) -> UUID | None:
        """The UUID of the machine that a host is, as its firmware has it; NoAnswer.

        None when the host has none to tell.
        """
        ...


Claim = Callable[[], Awaitable[None]]
"""Asks for the right to do something now; what it raises stops that."""


class PowerSwitch(Protocol):
    """Power controllers. `off` and `on` say only that the command was taken: read back.

    `claim` is made once everything else is ready, as the last thing before the command.
    """

    async def read(self, device: FenceDevice) -> PowerReading:
        """Ask for the power state; never raises for a silent or failing device."""
        ...

    async def off(self, device: FenceDevice, claim: Claim | None = None) -> None:
        """Send power off; NoAnswer when the agent failed or did not end in time."""
        ...

    async def on(self, device: FenceDevice, claim: Claim | None = None) -> None:
        """Send power on; NoAnswer as for `off`."""
        ...

    async def machine(self, device: FenceDevice) -> tuple[UUID, ...]:
        """The UUID of the machine that a device manages, in each byte order that it may be in.

        Empty when the device cannot tell, or does not answer; never raises for it.
        """
        ...


class StorageLeases(Protocol):
    """Leases that hosts hold on shared storage. No driver fits it yet: who would ask is given None.

    A driver says `watchdog_s` of a record only where the host attests a watchdog that resets the
    machine whatever its kernel does, that nothing can stop once armed, and that counts on while the
    machine is suspended.
    """

    @property
    def storage(self) -> str:
        """The name of the storage that holds them, at most 64 characters."""
        ...

    async def read(self, host: HostRef) -> LeaseReading | None:
        """Read the lease of a host once, past every cache; None: the storage holds none of it.

        Never raises for a storage that does not answer: that is a reading without a record. Its
        times are taken from the observer's monotonic clock just before and just after the read.
        """
        ...
