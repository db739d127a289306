"""The stage of a simulation: loop, database, world, Temporal, engine, all of one seed.

What stands there (`simulator.setup`) is built by the engine's own actions once, and copied for each
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

from pydantic import SecretStr

from domain.context import ActionContext
from domain.failback import Failback
from domain.hung_guests import HANG_AFTER_MIN_S
from engine.actions.affinity import CreateAffinityGroup
from engine.actions.base import Params
from engine.actions.clusters import ArmCluster, CreateCluster
from engine.actions.fence_devices import AddFenceDevice
from engine.actions.host_config import AddHost, EditHost
from engine.actions.ssh_access import Access
from engine.actions.vm_config import CreateVm
from engine.actions.vms import StartVm
from simulator.engine import BOARD, Outside, SimulatedEngine
from simulator.entropy import Entropy, ruled_by
from simulator.loop import VirtualLoop
from simulator.rows import Rows
from simulator.setup import HostSetup, Setup, VmSetup
from simulator.temporal.server import Server
from simulator.world.centre import DataCentre
from simulator.world.doors import VirtualDoors
from simulator.world.happenings import Happenings
from simulator.world.host import VirtualHost
from simulator.world.hypervisor import VirtualHypervisor
from simulator.world.latency import Latency
from simulator.world.network import Net
from simulator.world.power import VirtualPower
from simulator.world.ssh import VirtualSsh
from store.inline_sqlite import SharedMemory
from store.migrate import upgrade

PERSON = ActionContext(principal="operator", correlation_id="simulation")
LIMIT_S = 600.0
"""Virtual seconds after which building a stage has failed."""

SSH = Access(
    user="holdfast",
    host_key="ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f",
    private_key=SecretStr("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
)
"""Access to virtual hosts, which look at no key."""

DATABASE, TEMPORAL = "database", "temporal"

HOPS = {
    "client": (0.002, 0.01),
    "task": (0.002, 0.008),
    "step": (0.002, 0.008),
    "report": (0.001, 0.006),
    "child": (0.002, 0.01),
    "retry": (0.0, 0.05),
}
"""Seconds of each hop through Temporal; of the order of a dev server's, not measured one by one."""


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

    def ssh(self, machine: str) -> VirtualSsh:
        """The sshd of hosts, over the management network."""
        return VirtualSsh(self._centre, machine)

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
    same = ("profile", "make_room", "failback_after_s", "starts_per_host")
    ratios = ("vcpu_overcommit", "memory_overcommit")
    own = {name: getattr(setup, name) for name in (*same, *ratios)} | setup.limits.model_dump()
    return CreateCluster(name="c1", **own)


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
    if host.ssh:
        await stage.done(EditHost(host_id=added["target_id"], ssh=SSH))


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
        on_hang=vm.on_hang,
        hang_after_s=HANG_AFTER_MIN_S,
        **_home_of(stage, vm),
    )
    created = await stage.done(wanted)
    vm_id: UUID = created["target_id"]
    if vm.host is not None:
        host = stage.rows.find("host", vm.host)
        started = await stage.done(StartVm(vm_id=vm_id, host_id=host["id"]))
        assert started["state"] == "succeeded", started["problem"]
    return vm_id


def _home_of(stage: Stage, vm: VmSetup) -> dict[str, Any]:
    if not vm.goes_home or vm.host is None:
        return {}
    return {"home_id": stage.rows.find("host", vm.host)["id"], "failback": Failback.AUTO}
