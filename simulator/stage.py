"""The stage of a simulation: loop, database, world, Temporal, engine, all of one seed.

`Setup` says what stands there. It is built by the engine's own actions once, and copied for each
seed: the database as a whole, the data centre by value.
"""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from copy import deepcopy
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import UUID

from domain.base import Frozen
from domain.context import ActionContext
from domain.profiles import Profile
from domain.readiness import ReadyRule
from engine.actions.affinity import CreateAffinityGroup
from engine.actions.base import Params
from engine.actions.clusters import ArmCluster, CreateCluster
from engine.actions.fence_devices import AddFenceDevice
from engine.actions.host_config import AddHost
from engine.actions.vm_config import CreateVm
from engine.actions.vms import StartVm
from simulator.engine import BOARD, Outside, SimulatedEngine
from simulator.entropy import Entropy, ruled_by
from simulator.loop import VirtualLoop
from simulator.rows import Rows
from simulator.temporal.server import Server
from simulator.world.centre import DataCentre
from simulator.world.doors import VirtualDoors
from simulator.world.happenings import Happenings
from simulator.world.host import VirtualHost
from simulator.world.hypervisor import VirtualHypervisor
from simulator.world.latency import Latency
from simulator.world.network import Net
from simulator.world.power import VirtualPower
from store.inline_sqlite import SharedMemory
from store.migrate import upgrade

PERSON = ActionContext(principal="operator", correlation_id="simulation")
LIMIT_S = 600.0
"""Virtual seconds after which building a stage has failed."""

DATABASE, TEMPORAL = "database", "temporal"

HOPS = {
    "client": (0.002, 0.01),
    "task": (0.002, 0.008),
    "step": (0.002, 0.008),
    "report": (0.001, 0.006),
    "child": (0.002, 0.01),
    "retry": (0.0, 0.05),
}
"""Seconds of each hop through Temporal, as measured on the tuned dev server (docs/lab.md)."""


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


class HostSetup(Frozen):
    """One host in service."""

    name: str
    memory_mib: int = 1024
    cpus: int = 4
    rack: str = "rack-1"
    fence_devices: int = 1
    outlets: int = 0  # that feed it, and are its second fence level


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


class Seen(Outside):
    """The data centre from the engine's machines."""

    def __init__(self, centre: DataCentre) -> None:
        self._centre = centre

    def hypervisor(self, machine: str) -> VirtualHypervisor:
        """Hosts, over the management network."""
        return VirtualHypervisor(self._centre, machine)

    def power(self, machine: str) -> VirtualPower:
        """Power controllers, over their network."""
        return VirtualPower(self._centre, machine)

    def doors(self) -> VirtualDoors:
        """Services in guests."""
        return VirtualDoors(self._centre)

    def reaches(self, machine: str, service: str) -> bool:
        """Database and Temporal are endpoints of the management network."""
        return self._centre.networks[Net.MANAGEMENT].answers(machine, service)


class Stage:
    """One simulation's parts; see the module."""

    def __init__(self, seed: int, setup: Setup, memory: SharedMemory, *, at_s: float = 0.0) -> None:
        self.entropy = Entropy(seed)
        self.setup = setup
        self.memory = memory
        self.loop = VirtualLoop(at_s)
        self.events: list[tuple[float, str, dict[str, Any]]] = []
        self.defects: list[BaseException] = []
        hops = self.entropy.stream("hops")
        latency = Latency(self.entropy.stream("world"))
        self.centre = DataCentre(latency=latency, random=self.entropy.stream("centre"))
        self.centre.happenings.observers.append(self._note)
        self.server = Server(
            self.loop,
            self.entropy.stream("temporal"),
            lambda what: hops.uniform(*HOPS[what]),
            self.trace,
        )
        self.server.on_defect = self.defects.append
        self.engine = SimulatedEngine(self.loop, self.server, Seen(self.centre))
        self.rows = Rows(memory)

    def trace(self, kind: str, subject: str, **facts: Any) -> None:
        """Keep an event with its time."""
        self.events.append((self.loop.time(), kind, {"subject": subject, **facts}))

    def _note(self, kind: str, facts: dict[str, Any]) -> None:
        self.events.append((self.loop.time(), kind, facts))

    async def act(self, params: Params) -> UUID:
        """What a person asks for; the operation."""
        return (await self.engine.act(params, PERSON)).operation_id

    async def done(self, params: Params) -> dict[str, Any]:
        """What a person asks for, once it has ended."""
        operation_id = await self.act(params)
        await self.until(lambda: self.rows.ended(operation_id), f"{params!r:.80} never ended")
        return self.rows.operation(operation_id)

    async def until(self, holds: Callable[[], bool], else_: str, limit_s: float = LIMIT_S) -> None:
        """Wait in virtual time; TimeoutError after too long."""
        end_s = self.loop.time() + limit_s
        while not holds():
            if self.loop.time() >= end_s:
                raise TimeoutError(else_)
            await asyncio.sleep(0.05)


@contextmanager
def on_stage(stage: Stage) -> Iterator[Callable[[Awaitable[Any]], Any]]:
    """Run coroutines on a stage; whatever still runs at the end is cleared away."""
    asyncio.set_event_loop(stage.loop)
    BOARD.plug_in(stage.memory, stage.engine.gate)
    try:
        with ruled_by(stage.entropy, stage.loop):
            yield stage.loop.run_until_complete
    finally:
        for running in (*stage.engine.running.values(), *stage.engine.retired):
            if running.worker is not None:
                running.worker.evict_all()
        stage.loop.clear()
        BOARD.pull_out()
        asyncio.set_event_loop(None)


@lru_cache(maxsize=1)
def migrated() -> sqlite3.Connection:
    """An empty database with today's schema, made once."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "template.db"
        asyncio.run(upgrade(f"sqlite+aiosqlite:///{path}"))
        kept = sqlite3.connect(":memory:", check_same_thread=False)
        with closing(sqlite3.connect(path)) as made:
            made.backup(kept)
        return kept


@lru_cache(maxsize=32)
def built(setup: Setup) -> "Copy":
    """A stage of this setup once everything is in service, made once."""
    stage = Stage(0, setup, SharedMemory(migrated()))
    with on_stage(stage) as run:
        run(_started_and_built(stage))
        if stage.defects:
            raise stage.defects[0]
        return Copy(stage)


def set_stage(seed: int, setup: Setup) -> Stage:
    """A stage on which everything stands and no process of the engine runs yet.

    As after a restart of the whole engine: `stage.engine.start()` brings it up.
    """
    return built(setup).stage(seed)


class Copy:
    """What a built stage is made of: its rows, its hosts, its time."""

    def __init__(self, made: Stage) -> None:
        self._setup = made.setup
        self._memory = SharedMemory(made.memory.raw)
        self._at_s = made.loop.time()
        self._hosts = _detached(made.centre)

    def stage(self, seed: int) -> Stage:
        """A new stage like it."""
        stage = Stage(seed, self._setup, SharedMemory(self._memory.raw), at_s=self._at_s)
        for name, host in deepcopy(self._hosts).items():
            host.happenings = stage.centre.happenings
            stage.centre.hosts[name] = host
            for vm_id, domain in host.domains.items():
                stage.centre.copies_max[vm_id] = int(domain.alive)
        return stage


def _detached(centre: DataCentre) -> dict[str, VirtualHost]:
    """Hosts by value, which tell nobody."""
    silent = Happenings()
    return {name: replace(host, happenings=silent) for name, host in centre.hosts.items()}


async def _started_and_built(stage: Stage) -> None:
    stage.engine.start()
    await build(stage)


async def build(stage: Stage) -> None:
    """Bring what the setup names into service, by the engine's own actions."""
    for host in stage.setup.hosts:
        stage.centre.add(host.name, host.memory_mib, cpus=host.cpus, rack=host.rack)
    cluster = await stage.done(_cluster_of(stage.setup))
    for host in stage.setup.hosts:
        await _add_host(stage, host, cluster["target_id"])
    vms: dict[str, UUID] = {}
    for vm in stage.setup.vms:
        vms[vm.name] = await _add_vm(stage, vm, cluster["target_id"], vms)
    for group in stage.setup.groups:
        await stage.done(
            CreateAffinityGroup(
                cluster_id=cluster["target_id"],
                name=group.name,
                together=group.together,
                hard=group.hard,
                vm_ids=tuple(vms[name] for name in group.vms),
                host_ids=tuple(stage.rows.find("host", name)["id"] for name in group.hosts),
            )
        )
    if not stage.setup.armed:
        await stage.done(ArmCluster(cluster_id=cluster["target_id"], armed=False))


def _cluster_of(setup: Setup) -> CreateCluster:
    return CreateCluster(name="c1", profile=setup.profile, **setup.limits.model_dump())


async def _add_host(stage: Stage, host: HostSetup, cluster_id: UUID) -> None:
    uri = stage.centre.hosts[host.name].uri
    added = await stage.done(
        AddHost(cluster_id=cluster_id, name=host.name, uri=uri, rack=host.rack)
    )
    for number in range(host.fence_devices):
        name = f"bmc-{host.name}" if host.fence_devices == 1 else f"bmc-{host.name}-{number + 1}"
        await stage.done(AddFenceDevice(host_id=added["target_id"], name=name, agent="fence_sim"))
    for number in range(host.outlets):
        name = f"pdu-{host.name}-{number + 1}"
        stage.centre.hosts[host.name].outlets[name] = True
        outlet = AddFenceDevice(host_id=added["target_id"], name=name, agent="fence_sim", level=2)
        await stage.done(outlet)


async def _add_vm(stage: Stage, vm: VmSetup, cluster_id: UUID, known: dict[str, UUID]) -> UUID:
    wanted = CreateVm(
        cluster_id=cluster_id,
        name=vm.name,
        memory_mib=vm.memory_mib,
        vcpus=vm.vcpus,
        protected=vm.protected,
        priority=vm.priority,
        depends_on=tuple(known[name] for name in vm.after),
        ready=vm.ready,
        max_restart=vm.max_restart,
        max_relocate=vm.max_relocate,
    )
    created = await stage.done(wanted)
    vm_id: UUID = created["target_id"]
    if vm.host is not None:
        host = stage.rows.find("host", vm.host)
        started = await stage.done(StartVm(vm_id=vm_id, host_id=host["id"]))
        assert started["state"] == "succeeded", started["problem"]
    return vm_id
