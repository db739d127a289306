"""One virtual host: its power, its libvirtd, its power controller's mood, and its domains.

Invariants  Processes, the boot mark and whatever libvirtd held die with the boot; definitions stay
            on the disk. A connection is bound to one boot and one life of libvirtd. What is planned
            (the end of booting, a late cut) is bound to the boot that it was planned in.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol
from uuid import NAMESPACE_DNS, UUID, uuid5

from domain.foreign import ForeignGuest
from domain.readings import ALIVE_STATES, Domain, DomainState, Knock, Migration, StateReason
from simulator.world.happenings import Happenings


class Bmc(StrEnum):
    """How a power controller behaves."""

    OK = "ok"
    DEAD = "dead"  # answers nothing
    DEAD_WITH_HOST = "dead_with_host"  # shares the host's supply, and is dead while that is lost
    HANGING = "hanging"  # would answer only after every deadline
    LYING = "lying"  # reads off and cuts nothing
    SLOW = "slow"  # cuts a few readings after it was told to
    SLOW_S = "slow_s"  # cuts `cut_s` seconds after it was told to
    WRONG_PASSWORD = "wrong_password"  # refuses everything
    ALREADY_OFF_ERROR = "already_off_error"  # off on a host that is off is an error


class Libvirtd(StrEnum):
    """How a host's libvirtd is."""

    ALIVE = "alive"
    HUNG = "hung"  # the kernel still takes connections, the guests run
    DOWN = "down"  # the port is refused, the guests run


class Sshd(StrEnum):
    """How a host's sshd is."""

    OK = "ok"
    DOWN = "down"  # the port is refused
    FAILING = "failing"  # it lets the key in, and the command fails


@dataclass
class VirtualDomain:
    """One domain on one host; `running` None means only defined."""

    name: str
    memory_mib: int
    generation: int | None
    running: int | None = None  # generation of the process
    autostart: bool = False
    state: DomainState = DomainState.SHUTOFF
    reason: StateReason = StateReason.UNKNOWN
    claim: UUID | None = None  # the import that marked it
    unsupported: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    by_hand: bool = False  # whether a person started the process, past the engine
    process: int = 0  # counts its processes
    hung: bool = False  # the guest in it does nothing any more
    held: bool = False  # a migration keeps its process paused, for the other host

    @property
    def alive(self) -> bool:
        """Whether a process of it exists."""
        return self.state in ALIVE_STATES

    def seen(self, vm_id: UUID) -> Domain:
        """As libvirt tells it: an active domain shows its live metadata."""
        return Domain(
            vm_id=vm_id,
            name=self.name,
            state=self.state,
            reason=self.reason,
            generation=self.running if self.alive else self.generation,
            autostart=self.autostart,
            held=self.held,
        )

    def described(self, guest_id: UUID) -> ForeignGuest:
        """As an import reads it."""
        return ForeignGuest(
            guest_id=guest_id,
            name=self.name,
            state=self.state,
            memory_mib=self.memory_mib,
            vcpus=1,
            virt_type="kvm",
            autostart=self.autostart,
            generation=self.generation,
            claim=self.claim,
            unsupported=self.unsupported,
            lost=self.lost,
        )

    def begin(self, *, by_hand: bool = False) -> None:
        """Its process begins."""
        self.state, self.running = DomainState.RUNNING, self.generation
        self.reason = StateReason.UNKNOWN
        self.by_hand, self.process, self.held = by_hand, self.process + 1, False
        self.hung = False

    def hold(self, generation: int | None) -> None:
        """Its process is there and paused, for the other host of a migration."""
        self.state, self.running, self.held = DomainState.PAUSED, generation, True

    def end(self, reason: StateReason = StateReason.UNKNOWN) -> None:
        """Its process is gone."""
        self.state, self.running, self.by_hand = DomainState.SHUTOFF, None, False
        self.reason = reason
        self.held = False


class Job(Protocol):
    """libvirt at work on a guest that is to leave."""

    @property
    def seen(self) -> Migration:
        """How far it is."""
        ...

    def abort(self) -> None:
        """Give it up."""
        ...


@dataclass
class VirtualHost:
    """One host with its power controllers."""

    name: str
    memory_mib: int = 1024
    cpus: int = 4
    rack: str = "rack-1"
    boot_s: float = 0.0  # from power on until libvirtd answers
    cut_s: float = 5.0  # what a controller that is SLOW_S needs
    slowness: float = 1.0  # of a loaded host: each call takes this many times as long
    powered: bool = True
    supplied: bool = True  # whether current comes in at all
    booting: bool = False
    reachable: bool = True  # its own link to the management network
    libvirtd: Libvirtd = Libvirtd.ALIVE
    sshd: Sshd = Sshd.OK
    boot: int = 1
    life: int = 1  # of libvirtd, over all boots
    mark: int | None = None
    bmc: Bmc = Bmc.OK
    bmcs: dict[str, Bmc] = field(default_factory=dict)  # of single devices, where they differ
    outlets: dict[str, bool] = field(default_factory=dict)  # that feed it, by device, if they count
    cut_in: int | None = None  # readings until a slow controller's cut takes effect
    lied_in_silence: bool = False  # in this boot: read off while it ran, and no knock could tell
    domains: dict[UUID, VirtualDomain] = field(default_factory=dict)
    moves: dict[UUID, "Job"] = field(default_factory=dict, repr=False)  # guests that leave
    happenings: Happenings = field(default_factory=Happenings, repr=False)
    held: list[Callable[[], None]] = field(default_factory=list, repr=False)
    managed: UUID | None = None  # the machine that its BMC manages, where that is another one

    @property
    def machine(self) -> UUID:
        """The UUID in its firmware."""
        return uuid5(NAMESPACE_DNS, self.name)

    @property
    def uri(self) -> str:
        """Where the engine finds it."""
        return f"qemu+tcp://{self.name}/system"

    @property
    def frozen(self) -> bool:
        """Whether libvirtd hangs."""
        return self.libvirtd is Libvirtd.HUNG

    @frozen.setter
    def frozen(self, frozen: bool) -> None:
        self.set_libvirtd(Libvirtd.HUNG if frozen else Libvirtd.ALIVE)

    @property
    def up(self) -> bool:
        """Whether its kernel answers whoever reaches it."""
        return self.powered and not self.booting

    @property
    def answers(self) -> bool:
        """Whether anyone outside hears its libvirtd."""
        return self.up and self.reachable and self.libvirtd is Libvirtd.ALIVE

    @property
    def awake(self) -> bool:
        """Whether something comes back from a call to libvirt, be it a refused port."""
        return self.up and self.reachable and self.libvirtd is not Libvirtd.HUNG

    @property
    def door(self) -> Knock:
        """What its door gives to whoever reaches it."""
        if not (self.up and self.reachable):
            return Knock.SILENT
        signs = {Libvirtd.HUNG: Knock.OPEN, Libvirtd.DOWN: Knock.REFUSED}
        return signs.get(self.libvirtd, Knock.ANSWERS)

    @property
    def connection(self) -> tuple[int, int]:
        """What a connection is bound to: the boot, and the life of libvirtd."""
        return self.boot, self.life

    @property
    def memory_free_mib(self) -> int:
        """What its guests leave."""
        taken = sum(domain.memory_mib for domain in self.domains.values() if domain.alive)
        return max(0, self.memory_mib - taken)

    def bmc_of(self, device: str) -> Bmc:
        """How the controller of this name behaves; one of an outlet has no part in `bmc`."""
        return self.bmcs.get(device, Bmc.OK if device in self.outlets else self.bmc)

    def take(self, work: Callable[[], None]) -> None:
        """Carry a call out that has come in: now, once libvirtd goes on, or never."""
        if self.awake:
            work()
        elif self.up and self.reachable:
            self.held.append(work)

    def lose_power(self) -> None:
        """The supply is cut, past its controllers."""
        self.supplied = False
        self._stop(by="supply")

    def switch_off(self, by: str) -> None:
        """A controller cuts the power; the supply stays."""
        self._stop(by=by)

    def switch_outlet(self, device: str, *, on: bool) -> None:
        """One of its outlets; it is without current once all of them are off."""
        self.outlets[device] = on
        if on:
            self.supplied = True
            self._get_power()
        elif not any(self.outlets.values()):
            self.supplied = False
            self._stop(by=device)

    def get_power(self) -> None:
        """A new boot; nothing runs. Nobody needs to have asked for it."""
        self.outlets = dict.fromkeys(self.outlets, True)
        self.supplied = True
        self._get_power()

    def _get_power(self) -> None:
        if not self.powered:
            self.powered = True
            self._boot()

    def reboot(self) -> None:
        """By itself: processes and boot mark are gone, the power never was."""
        if self.powered:
            self._lose_processes("host rebooted")
            self.happenings.tell("host.rebooted", host=self.name, boot=self.boot + 1)
            self._boot()

    def switch_off_later(self, by: str) -> None:
        """Cut the power of this boot after `cut_s` seconds."""
        boot = self.boot

        def cut() -> None:
            if self.powered and self.boot == boot:
                self.switch_off(by)

        self.happenings.later(self.cut_s, cut)

    def set_libvirtd(self, state: Libvirtd) -> None:
        """Hang, stop or go on; after a stop every connection is gone. The guests run on."""
        if state is self.libvirtd:
            return
        stopped = Libvirtd.DOWN in (state, self.libvirtd)
        self.libvirtd = state
        held, self.held = self.held, []
        if stopped:
            self.life += 1
            for domain in self.domains.values():
                if not domain.alive:
                    domain.reason = StateReason.UNKNOWN  # a new libvirtd has forgotten why
        self.happenings.tell("host.libvirtd", host=self.name, state=state)
        if state is Libvirtd.ALIVE and not stopped:
            for work in held:
                work()

    def end(self, vm_id: UUID, why: str, reason: StateReason = StateReason.UNKNOWN) -> None:
        """The process of a guest is gone, for libvirt's reason; nothing where there is none."""
        found = self.domains.get(vm_id)
        if found is None or not found.alive:
            return
        generation = found.running
        found.end(reason)
        self.happenings.tell(
            "guest.ended",
            vm=found.name,
            vm_id=vm_id,
            host=self.name,
            generation=generation,
            why=why,
        )

    def fail_io(self, vm_id: UUID) -> None:
        """A disk fails a running guest, and QEMU pauses it."""
        found = self.domains.get(vm_id)
        if found is not None and found.state is DomainState.RUNNING:
            found.state, found.reason = DomainState.PAUSED, StateReason.IO_ERROR
            self.happenings.tell("guest.paused", vm=found.name, vm_id=vm_id, host=self.name)

    def hang(self, vm_id: UUID) -> None:
        """The guest does nothing any more; its process runs on, and its agent's channel is open."""
        found = self.domains.get(vm_id)
        if found is not None and found.state is DomainState.RUNNING:
            found.hung = True
            self.happenings.tell("guest.hung", vm=found.name, vm_id=vm_id, host=self.name)

    def _stop(self, by: str) -> None:
        powered, self.powered = self.powered, False
        if powered:
            self.happenings.tell("host.power_lost", host=self.name, boot=self.boot, by=by)
        self._lose_processes("host lost power")

    def _lose_processes(self, why: str) -> None:
        self.mark, self.cut_in, self.booting = None, None, False
        self.libvirtd, self.lied_in_silence = Libvirtd.ALIVE, False
        self.held.clear()
        for vm_id in tuple(self.domains):
            self.end(vm_id, why)

    def _boot(self) -> None:
        self.boot += 1
        boot = self.boot
        self.happenings.tell("host.power_on", host=self.name, boot=boot)

        def ready() -> None:
            if self.powered and self.boot == boot:
                self.booting = False
                self.happenings.tell("host.ready", host=self.name, boot=boot)

        if self.boot_s <= 0:
            ready()
        else:
            self.booting = True
            self.happenings.later(self.boot_s, ready)
