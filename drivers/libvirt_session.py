"""One open connection to one host, for a step that changes something there.

Invariants  It never reconnects: the connection is the token that a fenced host's old owner loses.
            After a call without an answer the session is dead; every further call is NoAnswer.
"""

from uuid import UUID

from domain.foreign import ForeignGuest
from domain.inventory import GuestSpec
from domain.readings import AgentState, Domain, Migration
from drivers import libvirt_domains as domains
from drivers import libvirt_foreign as foreign
from drivers import libvirt_marks as marks
from drivers import libvirt_migration as moving
from drivers.boot_mark import read_boot_mark, write_boot_mark
from drivers.libvirt_agent import AGENT_S, ask_agent
from drivers.libvirt_lane import Lane


class LibvirtSession:
    """Fits `HypervisorSession`; every call has `deadline_s` seconds, beside those of an agent."""

    def __init__(self, lane: Lane, deadline_s: float) -> None:
        self._lane = lane
        self._deadline_s = deadline_s

    async def domains(self) -> tuple[Domain, ...]:
        """Every domain of the host, running or only defined, ours or not."""
        return await self._lane.run(
            lambda connection, _ticket: domains.list_domains(connection), self._deadline_s
        )

    async def lookup(self, vm_id: UUID) -> Domain | None:
        """One domain, or None when the host does not know it."""
        return await self._lane.run(
            lambda connection, _ticket: domains.describe(connection, vm_id), self._deadline_s
        )

    async def define(self, spec: GuestSpec, generation: int) -> None:
        """Define or redefine; idempotent. DOMAIN_FOREIGN, DOMAIN_RUNNING_OLDER, superseded."""
        await self._lane.run(
            lambda connection, ticket: domains.define(connection, ticket, spec, generation),
            self._deadline_s,
        )

    async def create(self, vm_id: UUID, generation: int) -> None:
        """Start; idempotent. DOMAIN_NOT_DEFINED, _DEFINED_OLDER, _RUNNING_OLDER, superseded."""
        await self._lane.run(
            lambda connection, ticket: domains.create(connection, ticket, vm_id, generation),
            self._deadline_s,
        )

    async def shutdown(self, vm_id: UUID, generation: int) -> None:
        """Ask the guest to end; idempotent, and no promise that it does."""
        await self._lane.run(
            lambda connection, ticket: domains.shutdown(connection, ticket, vm_id, generation),
            self._deadline_s,
        )

    async def ask_agent(self, vm_id: UUID) -> AgentState:
        """What its guest agent gives to a ping; reads only.

        libvirtd waits for a hung one: that is its answer, and no silence of libvirtd's.
        """
        return await self._lane.run(
            lambda connection, _ticket: ask_agent(connection, vm_id), self._deadline_s + AGENT_S
        )

    async def resume(self, vm_id: UUID, generation: int) -> None:
        """Let a paused domain go on; idempotent."""
        await self._lane.run(
            lambda connection, ticket: domains.resume(connection, ticket, vm_id, generation),
            self._deadline_s,
        )

    async def destroy(self, vm_id: UUID, generation: int) -> None:
        """End the domain and read it back as ended; idempotent."""
        await self._lane.run(
            lambda connection, ticket: domains.destroy(connection, ticket, vm_id, generation),
            self._deadline_s,
        )

    async def undefine(self, vm_id: UUID, generation: int) -> None:
        """Forget an inactive domain and read it back as gone; idempotent. DOMAIN_RUNNING."""
        await self._lane.run(
            lambda connection, ticket: domains.undefine(connection, ticket, vm_id, generation),
            self._deadline_s,
        )

    async def migrate(
        self,
        vm_id: UUID,
        generation: int,
        target_uri: str,
        target_generation: int,
        within_s: float,
    ) -> None:
        """Move it live, peer to peer, within `within_s`; libvirt goes on when this is given up."""
        await self._lane.run(
            lambda connection, ticket: moving.migrate(
                connection, ticket, vm_id, generation, target_uri, target_generation
            ),
            within_s,
        )

    async def renew_mark(self, vm_id: UUID, generation: int, new_generation: int) -> None:
        """Mark what lives as one of a newer run; idempotent. DOMAIN_NOT_RUNNING, superseded."""
        await self._lane.run(
            lambda connection, ticket: marks.renew(
                connection, ticket, vm_id, generation, new_generation
            ),
            self._deadline_s,
        )

    async def migration(self, vm_id: UUID) -> Migration | None:
        """How far libvirt is with moving it away, or None when it is not at it."""
        return await self._lane.run(
            lambda connection, _ticket: moving.migration(connection, vm_id), self._deadline_s
        )

    async def abort_migration(self, vm_id: UUID, generation: int) -> None:
        """Have libvirt give up moving it away; none under way is success."""
        await self._lane.run(
            lambda connection, ticket: moving.abort_migration(
                connection, ticket, vm_id, generation
            ),
            self._deadline_s,
        )

    async def refuse_arrival(self, vm_id: UUID, generation: int) -> None:
        """Let the host take no copy of it that another sends; idempotent."""
        await self._lane.run(
            lambda connection, ticket: moving.refuse_arrival(connection, ticket, vm_id, generation),
            self._deadline_s,
        )

    async def boot_mark(self) -> int | None:
        """The epoch that this boot of the host was marked with."""
        return await self._lane.run(
            lambda connection, _ticket: read_boot_mark(connection), self._deadline_s
        )

    async def set_boot_mark(self, epoch: int) -> None:
        """Mark this boot, replacing an older mark; idempotent. Superseded below the mark."""
        await self._lane.run(
            lambda connection, ticket: write_boot_mark(connection, ticket, epoch),
            self._deadline_s,
        )

    async def list_foreign(self) -> tuple[ForeignGuest, ...]:
        """Every domain without our mark, by name; reads only."""
        return await self._lane.run(
            lambda connection, _ticket: foreign.list_foreign(connection), self._deadline_s
        )

    async def describe_foreign(self, guest: UUID | str) -> ForeignGuest | None:
        """One domain by UUID or name, marked or not; None when the host does not know it."""
        return await self._lane.run(
            lambda connection, _ticket: foreign.describe_foreign(connection, guest),
            self._deadline_s,
        )

    async def adopt(self, guest_id: UUID, generation: int, claim: UUID) -> None:
        """Mark a guest as ours; idempotent. GUEST_NOT_FOUND, GUEST_CLAIMED, GUEST_AUTOSTART."""
        await self._lane.run(
            lambda connection, ticket: foreign.adopt(
                connection, ticket, guest_id, generation, claim
            ),
            self._deadline_s,
        )

    async def disown(self, guest_id: UUID, claim: UUID) -> None:
        """Take the mark of an import away, nobody else's; idempotent."""
        await self._lane.run(
            lambda connection, ticket: foreign.disown(connection, ticket, guest_id, claim),
            self._deadline_s,
        )
