"""What stands in a simulated data centre before anything happens."""

from domain.base import Frozen
from domain.failback import FAILBACK_AFTER_S
from domain.inventory import OnHang
from domain.make_room import MakeRoom
from domain.profiles import STARTS_PER_HOST, Profile
from domain.readiness import ReadyRule

SOON_S = 15
"""After which VMs go home in seeds that have homes. Higher: fewer go before the seed is over."""


class VmSetup(Frozen):
    """One VM to be there, started on `host` or not at all."""

    name: str
    host: str | None = None
    memory_mib: int = 128
    vcpus: int = 1
    protected: bool = True
    priority: int = 50
    after: tuple[str, ...] = ()
    ready: ReadyRule | None = None
    max_restart: int = 3
    max_relocate: int = 3
    on_hang: OnHang = OnHang.OFF
    goes_home: bool = False  # by itself, to the host where it was started


class HostSetup(Frozen):
    """One host in service."""

    name: str
    memory_mib: int = 1024
    cpus: int = 4
    rack: str = "rack-1"
    fence_devices: int = 1
    outlets: int = 0  # that feed it, and are its second fence level
    ssh: bool = False  # whether the engine may restart its libvirtd over SSH


class GroupSetup(Frozen):
    """An affinity group, by the names of its members."""

    name: str
    together: bool
    hard: bool
    vms: tuple[str, ...]
    hosts: tuple[str, ...] = ()


class FenceLimits(Frozen):
    """How many hosts may be fenced in a window, as a cluster has it."""

    fences_max: int = 1
    fences_percent: int | None = None
    rack_fences_max: int | None = None
    rack_fences_percent: int | None = None


class Setup(Frozen):
    """What stands in the data centre before anything happens."""

    hosts: tuple[HostSetup, ...]
    vms: tuple[VmSetup, ...] = ()
    groups: tuple[GroupSetup, ...] = ()
    profile: Profile = Profile.BALANCED
    armed: bool = True
    limits: FenceLimits = FenceLimits()
    make_room: MakeRoom = MakeRoom.OFF
    failback_after_s: int = FAILBACK_AFTER_S
    vcpu_overcommit: float | None = None  # no limit
    memory_overcommit: float = 1.0
    starts_per_host: int = STARTS_PER_HOST

    def with_ssh(self) -> "Setup":
        """The same with SSH access to every host."""
        hosts = tuple(host.model_copy(update={"ssh": True}) for host in self.hosts)
        return self.model_copy(update={"hosts": hosts})

    def listened_to(self) -> "Setup":
        """The same with guests that are started again when they hang."""
        vms = tuple(vm.model_copy(update={"on_hang": OnHang.RESTART}) for vm in self.vms)
        return self.model_copy(update={"vms": vms})

    def with_homes(self) -> "Setup":
        """The same with VMs that go back to where they were started, soon after it is up again."""
        vms = tuple(vm.model_copy(update={"goes_home": vm.host is not None}) for vm in self.vms)
        return self.model_copy(update={"vms": vms, "failback_after_s": SOON_S})

    @staticmethod
    def small(hosts: int = 3, vms: int = 4, profile: Profile = Profile.BALANCED) -> "Setup":
        """Hosts `h1` …, and protected VMs `vm1` … spread over them."""
        names = [f"h{number + 1}" for number in range(hosts)]
        return Setup(
            hosts=tuple(
                HostSetup(name=name, rack=f"r{1 + index % 2}") for index, name in enumerate(names)
            ),
            vms=tuple(
                VmSetup(name=f"vm{number + 1}", host=names[number % hosts]) for number in range(vms)
            ),
            profile=profile,
        )


CROWDED = Setup(
    hosts=tuple(HostSetup(name=f"h{number}", rack=f"r{1 + number % 2}") for number in (1, 2, 3)),
    vms=tuple(
        VmSetup(
            name=f"vm{number}",
            host=f"h{1 + number % 3}",
            memory_mib=300,
            priority=10 * number,
            protected=number not in (1, 2),
        )
        for number in range(1, 10)
    ),
    profile=Profile.FAST,
    make_room=MakeRoom.SHUTDOWN,
)
"""Hosts that have no room for a VM of another: the loss of one costs the least important ones."""
