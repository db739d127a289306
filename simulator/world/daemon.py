"""What the libvirtd of one host does when a call has reached it; nothing here waits.

The rules are those of `drivers.libvirt_domains`: a domain without a generation is never touched, a
newer one is never overtaken, what is done already is success.
"""

from uuid import UUID

from domain.autostart import counts
from domain.errors import Conflict, NotFound, Superseded
from domain.foreign import ForeignGuest, autostarts, refuse_claimed
from domain.inventory import GuestSpec
from domain.readings import (
    AgentState,
    Domain,
    DomainState,
    GuestStats,
    HostReading,
    Migration,
    StateReason,
)
from simulator.world.centre import DataCentre
from simulator.world.host import VirtualDomain, VirtualHost
from simulator.world.moving import Move, why_not
from simulator.world.storage import StorageState

ANSWER_S = 0.001
"""What a poll says that it took, where nothing takes time."""


class Daemon:
    """The libvirtd of one host."""

    def __init__(self, centre: DataCentre, host: VirtualHost) -> None:
        self._centre = centre
        self._host = host

    def reading(self) -> HostReading:
        """One poll: running domains only, as the driver reads them."""
        host = self._host
        seen = [(domain, domain.seen(vm_id)) for vm_id, domain in host.domains.items()]
        return HostReading(
            guests=tuple(
                GuestStats(
                    vm_id=d.vm_id,
                    name=d.name,
                    state=d.state,
                    reason=d.reason,
                    memory_kib=found.memory_mib * 1024,
                )
                for found, d in seen
                if found.alive
            ),
            boot_mark=host.mark,
            memory_total_mib=host.memory_mib,
            memory_free_mib=host.memory_free_mib,
            cpus=host.cpus,
            took_s=ANSWER_S,
            autostart=tuple(
                sorted(
                    d.name
                    for _, d in seen
                    if counts(autostart=d.autostart, generation=d.generation)
                )
            ),
        )

    def domains(self) -> tuple[Domain, ...]:
        """Every domain of the host."""
        return tuple(domain.seen(vm_id) for vm_id, domain in self._host.domains.items())

    def lookup(self, vm_id: UUID) -> Domain | None:
        """One domain, or None."""
        found = self._host.domains.get(vm_id)
        return None if found is None else found.seen(vm_id)

    def ask_agent(self, vm_id: UUID) -> AgentState:
        """Nobody has the channel open in a guest that is not up yet; one that hangs has."""
        found = self._host.domains.get(vm_id)
        if found is None or not found.alive or vm_id in self._centre.not_ready:
            return AgentState.ABSENT
        well = found.state is DomainState.RUNNING and not found.hung
        return AgentState.ANSWERS if well else AgentState.SILENT

    def define(self, spec: GuestSpec, generation: int) -> None:
        """Define, or redefine while inactive."""
        found = self._touchable(spec.vm_id, generation)
        if found is not None and found.alive:
            _same_generation(found, generation)
            return
        self._host.domains[spec.vm_id] = VirtualDomain(spec.name, spec.memory_mib, generation)
        self._tell("guest.defined", spec.vm_id, spec.name, generation=generation)

    def create(self, vm_id: UUID, generation: int) -> None:
        """Start the defined domain."""
        found = self._touchable(vm_id, generation)
        if found is None or found.generation != generation:
            raise Conflict("DOMAIN_NOT_DEFINED", f"{vm_id} is not defined with {generation}")
        if found.alive:
            _same_generation(found, generation)
            return
        self._refuse_start(vm_id, found.name)
        self._centre.run(self._host, vm_id, found)
        if vm_id in self._centre.short_lived:
            self._host.end(vm_id, "ended at once", StateReason.CRASHED)

    def shutdown(self, vm_id: UUID, generation: int) -> None:
        """Press the guest's power button; with latency the guest takes its time."""
        found = self._touchable(vm_id, generation)
        if found is None or not found.alive or found.hung or vm_id in self._centre.deaf:
            return
        process, latency = found.process, self._centre.latency

        def stop() -> None:
            # What was redefined or begun anew meanwhile has never felt the button.
            if self._host.domains.get(vm_id) is found and found.process == process:
                self._host.end(vm_id, "shut down", StateReason.SHUTDOWN)

        if latency is None:
            stop()
        else:
            self._centre.happenings.later(latency.guest_stop_s() * self._host.slowness, stop)

    def resume(self, vm_id: UUID, generation: int) -> None:
        """Let a paused domain go on, which pauses at once again where its disks do not serve it."""
        found = self._touchable(vm_id, generation)
        if found is None or found.state is not DomainState.PAUSED:
            return
        _same_generation(found, generation)
        if self._centre.storage_of(self._host) is StorageState.OK:
            found.state, found.reason = DomainState.RUNNING, StateReason.UNKNOWN
            self._tell("guest.resumed", vm_id, found.name, generation=generation)

    def destroy(self, vm_id: UUID, generation: int) -> None:
        """End the domain now."""
        found = self._touchable(vm_id, generation)
        if found is not None and found.alive and vm_id in self._centre.unending:
            detail = f"{found.name}: its process was killed and is still there"
            raise Conflict("HYPERVISOR_REFUSED", detail, host=self._host.name)
        if found is not None:
            self._host.end(vm_id, "destroyed", StateReason.DESTROYED)

    def undefine(self, vm_id: UUID, generation: int) -> None:
        """Forget an inactive domain."""
        found = self._touchable(vm_id, generation)
        if found is None:
            return
        if found.alive:
            raise Conflict("DOMAIN_RUNNING", f"{found.name} runs")
        del self._host.domains[vm_id]
        self._tell("guest.undefined", vm_id, found.name, by_hand=False)

    def migrate(self, vm_id: UUID, generation: int, target_uri: str, target: int) -> Move:
        """Begin to move a running domain to another host."""
        found = self._touchable(vm_id, generation)
        if found is None or not found.alive or found.held:
            raise Conflict("DOMAIN_NOT_RUNNING", f"{vm_id} does not run on {self._host.name}")
        _same_generation(found, generation)
        self._refuse_start(vm_id, found.name)
        there = self._centre.host_at(target_uri)
        why = "another job is active" if vm_id in self._host.moves else ""
        if there is None or there is self._host:
            why = f"{target_uri} is no other host"
        elif not why:
            why = why_not(self._centre, self._host, there, vm_id)
        if why or there is None:
            raise Conflict("HYPERVISOR_REFUSED", f"{found.name} was not moved: {why}")
        latency = self._centre.latency
        takes_s = 0.0 if latency is None else latency.move_s()
        move = Move(self._centre, self._host, there, vm_id, target, takes_s)
        move.begin()
        return move

    def migration(self, vm_id: UUID) -> Migration | None:
        """How far a job that moves a domain is."""
        move = self._host.moves.get(vm_id)
        return None if move is None else move.seen

    def abort_migration(self, vm_id: UUID, generation: int) -> None:
        """Give it up; none is success."""
        if self._touchable(vm_id, generation) is not None and vm_id in self._host.moves:
            self._host.moves[vm_id].abort()

    def refuse_arrival(self, vm_id: UUID, generation: int) -> None:
        """Keep the UUID taken under another name."""
        self.undefine(vm_id, generation)
        bar = VirtualDomain(f"not-here-{vm_id}", 1, generation)
        self._host.domains[vm_id] = bar
        self._tell("guest.barred", vm_id, bar.name, generation=generation)

    def renew_mark(self, vm_id: UUID, generation: int, new_generation: int) -> None:
        """Mark what lives as one of a newer run, in what runs and in what is defined."""
        found = self._touchable(vm_id, new_generation)
        if found is None or not found.alive:
            raise Conflict("DOMAIN_NOT_RUNNING", f"{vm_id} does not run on {self._host.name}")
        if found.running != new_generation:
            _same_generation(found, generation)
        found.generation = found.running = new_generation
        found.claim = None
        self._tell("guest.marked", vm_id, found.name, generation=new_generation)

    def boot_mark(self) -> int | None:
        """The epoch that this boot was marked with."""
        return self._host.mark

    def set_boot_mark(self, epoch: int) -> None:
        """Mark this boot; Superseded below the present mark."""
        host = self._host
        if host.mark is not None and host.mark > epoch:
            detail = f"{host.name} is marked with epoch {host.mark}, {epoch} is older"
            raise Superseded("EPOCH_STALE", detail, epoch=epoch, found=host.mark)
        host.mark = epoch
        self._centre.happenings.tell("host.marked", host=host.name, boot=host.boot, epoch=epoch)

    def list_foreign(self) -> tuple[ForeignGuest, ...]:
        """Every domain without our mark, by name."""
        found = (domain.described(vm_id) for vm_id, domain in self._host.domains.items())
        unmarked = (guest for guest in found if guest.generation is None)
        return tuple(sorted(unmarked, key=lambda guest: guest.name))

    def describe_foreign(self, guest: UUID | str) -> ForeignGuest | None:
        """One domain by UUID or name."""
        known = self._host.domains.items()
        return next((d.described(key) for key, d in known if guest in (key, d.name)), None)

    def adopt(self, guest_id: UUID, generation: int, claim: UUID) -> None:
        """Mark a guest, in what runs and in what is defined."""
        found = self._host.domains.get(guest_id)
        if found is None:
            raise NotFound("GUEST_NOT_FOUND", f"{self._host.name} knows no guest {guest_id}")
        refuse_claimed(found.name, found.generation, found.claim, claim)
        if found.autostart:
            raise autostarts(found.name)
        found.generation, found.claim = generation, claim
        if found.alive:
            found.running = generation
        self._tell("guest.adopted", guest_id, found.name, generation=generation)

    def disown(self, guest_id: UUID, claim: UUID) -> None:
        """Take the mark of one import away."""
        found = self._host.domains.get(guest_id)
        if found is not None and found.claim == claim:
            found.generation = found.running = found.claim = None
            self._tell("guest.disowned", guest_id, found.name)

    def _refuse_start(self, vm_id: UUID, name: str) -> None:
        if self._centre.refusing.get(vm_id, 0) > 0:
            self._centre.refusing[vm_id] -= 1
            raise Conflict("LIBVIRT_REFUSED", f"{name} cannot be started here")
        storage = self._centre.storage_of(self._host)
        if storage is not StorageState.OK:
            detail = f"{name} cannot open its disks on {self._host.name}: storage is {storage}"
            raise Conflict("LIBVIRT_REFUSED", detail, host=self._host.name)

    def _touchable(self, vm_id: UUID, generation: int) -> VirtualDomain | None:
        found = self._host.domains.get(vm_id)
        if found is None:
            return None
        if found.generation is None:
            raise Conflict("DOMAIN_FOREIGN", f"{found.name} is not ours")
        if max(found.generation, found.running or 0) > generation:
            raise Superseded("GENERATION_STALE", f"{found.name} is newer than {generation}")
        return found

    def _tell(self, kind: str, vm_id: UUID, name: str, **facts: object) -> None:
        self._centre.happenings.tell(kind, vm=name, vm_id=vm_id, host=self._host.name, **facts)


def _same_generation(found: VirtualDomain, generation: int) -> None:
    if found.running != generation:
        raise Conflict("DOMAIN_RUNNING_OLDER", f"{found.name} runs with {found.running}")
