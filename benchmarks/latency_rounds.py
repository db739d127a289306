"""What is measured for the table of latencies: the engine's own drivers against hosts of the lab.

Each call is timed where the engine makes it, as its caller waits for it: threads, processes and
agents of the drivers are part of it. What follows from a call (a guest that ends, a host that
boots) is timed from the call's beginning until the first reading that shows it.
"""

import asyncio
import os
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID, uuid4

import libvirt
from pydantic import SecretStr

from activities.waiting import until
from domain.errors import Conflict, NoAnswer
from domain.inventory import Disk, FenceDevice, GuestSpec, PowerReading, VirtType
from domain.readings import AgentState, DomainState, Knock
from domain.ssh_access import SshAccess
from drivers.fence_agents import FenceAgents
from drivers.libvirt_hypervisor import LibvirtHypervisor
from drivers.libvirt_session import LibvirtSession
from drivers.ssh import PRIVATE_KEY, OpenSsh
from lab.inventory import BmcAccess, HostInventory
from lab.lab import Lab

DEADLINE_S = 30.0
"""One call. Higher than anything that is worth a row: a call that fails ends the benchmark."""

PATIENCE_S = 90.0
EVERY_S = 0.01
"""How often is looked whether something has followed from a call: the error of those rows."""

MEMORY_MIB = 96
DISK_BYTES = 4 * 1024 * 1024
SLOW_MIB_S, FAST_MIB_S = 1, 1000
FOREIGN = """<domain type='qemu'><name>{name}</name><uuid>{id}</uuid><memory unit='MiB'>1</memory>
<os><type arch='x86_64'>hvm</type></os></domain>"""

Key = tuple[str, str]
"""An action and its protocol; no protocol where there is but one."""


class Watch:
    """Seconds of every call, by action and protocol."""

    def __init__(self) -> None:
        self.took_s: defaultdict[Key, list[float]] = defaultdict(list)
        self.load = 0.0  # of the machine, over a minute, at its highest

    @contextmanager
    def on(self, *actions: str, over: str = "") -> Iterator[None]:
        """Time the block; one that raises is not counted."""
        began = time.perf_counter()
        yield
        took_s = time.perf_counter() - began
        for action in actions:
            self.took_s[action, over].append(took_s)

    def note_load(self) -> None:
        """Remember how much else the machine has to do."""
        self.load = max(self.load, round(os.getloadavg()[0], 2))


async def seen(what: str, condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for what follows from a call; NoAnswer when it does not."""
    if not await until(condition, every_s=EVERY_S, within_s=PATIENCE_S):
        raise NoAnswer("BENCHMARK_STUCK", f"{what}: not within {PATIENCE_S:g} s")


class LibvirtRounds:
    """Everything that the engine asks of a libvirtd, on two hosts, with a guest of its own."""

    def __init__(self, lab: Lab, watch: Watch) -> None:
        inventory = lab.inventory()
        self._here, self._there = inventory.hosts[:2]
        self._watch = watch
        self._hypervisor = LibvirtHypervisor()
        disk = Path(inventory.shared) / "latency.img"
        with disk.open("wb") as file:
            file.truncate(DISK_BYTES)
        self._spec = GuestSpec(
            vm_id=uuid4(),
            name="latency",
            memory_mib=MEMORY_MIB,
            vcpus=1,
            virt_type=VirtType.QEMU,
            disks=(Disk(path=str(disk)),),
            boot=inventory.guest,
            agent=True,
        )
        self._foreign = uuid4()
        self._epoch = 0

    async def __aenter__(self) -> "LibvirtRounds":
        xml = FOREIGN.format(name="stranger", id=self._foreign)
        await asyncio.to_thread(_define, self._here.uri, xml)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._hypervisor.close()

    async def round(self, number: int) -> None:
        """One life of the guest: defined, started, moved there, moved back, shut down."""
        generation = 10 * number + 1
        await self._from_outside()
        began = self._hypervisor.session(self._here.uri, DEADLINE_S)
        with self._watch.on("open"):
            session = await began.__aenter__()
        try:
            await self._reads(session)
            await self._marks(session)
            await self._begins(session, generation)
            await self._pauses(session, generation)
            moved = await self._moves(session, generation)
            await self._ends(session, moved)
            await self._destroys(session, moved)
        finally:
            await began.__aexit__(None, None, None)

    async def _from_outside(self) -> None:
        with self._watch.on("poll"):
            await self._hypervisor.poll(self._here.uri, DEADLINE_S)
        with self._watch.on("knock"):
            knock = await self._hypervisor.knock(self._here.uri, DEADLINE_S)
        if knock is Knock.SILENT:
            raise NoAnswer("BENCHMARK_STUCK", f"nobody opens at {self._here.uri}")

    async def _reads(self, session: LibvirtSession) -> None:
        watch, vm_id = self._watch, self._spec.vm_id
        with watch.on("domains"):
            await session.domains()
        with watch.on("lookup"):
            await session.lookup(vm_id)
        with watch.on("list_foreign"):
            await session.list_foreign()
        with watch.on("describe_foreign"):
            await session.describe_foreign(self._foreign)

    async def _marks(self, session: LibvirtSession) -> None:
        watch, claim = self._watch, uuid4()
        self._epoch += 1
        with watch.on("set_boot_mark"):
            await session.set_boot_mark(self._epoch)
        with watch.on("boot_mark"):
            await session.boot_mark()
        with watch.on("adopt"):
            await session.adopt(self._foreign, 1, claim)
        with watch.on("disown"):
            await session.disown(self._foreign, claim)

    async def _begins(self, session: LibvirtSession, generation: int) -> None:
        watch, vm_id = self._watch, self._spec.vm_id
        with watch.on("refuse_arrival"):
            await session.refuse_arrival(vm_id, generation)
        with watch.on("undefine"):
            await session.undefine(vm_id, generation)
        with watch.on("define"):
            await session.define(self._spec, generation)
        with watch.on("create"):
            await session.create(vm_id, generation)

        async def answers() -> bool:
            return await session.ask_agent(vm_id) is AgentState.ANSWERS

        await seen("the guest's agent answers", answers)
        with watch.on("agent_ping"):
            await session.ask_agent(vm_id)

    async def _pauses(self, session: LibvirtSession, generation: int) -> None:
        vm_id = self._spec.vm_id
        await asyncio.to_thread(_with_domain, self._here.uri, vm_id, lambda d: d.suspend())
        with self._watch.on("resume"):
            await session.resume(vm_id, generation)

    async def _moves(self, session: LibvirtSession, generation: int) -> int:
        """Given up once, then there and back; the generation with which it runs at last."""
        vm_id, here, there = self._spec.vm_id, self._here, self._there
        await asyncio.to_thread(_set_speed, here.uri, vm_id, SLOW_MIB_S)
        await self._gives_up(session, generation)
        await asyncio.to_thread(_set_speed, here.uri, vm_id, FAST_MIB_S)
        with self._watch.on("move"):
            await session.migrate(vm_id, generation, there.uri, generation + 1, PATIENCE_S)
        async with self._hypervisor.session(there.uri, DEADLINE_S) as far:
            await asyncio.to_thread(_set_speed, there.uri, vm_id, FAST_MIB_S)
            with self._watch.on("move"):
                await far.migrate(vm_id, generation + 1, here.uri, generation + 2, PATIENCE_S)
        with self._watch.on("renew_mark"):
            await session.renew_mark(vm_id, generation + 2, generation + 3)
        return generation + 3

    async def _gives_up(self, session: LibvirtSession, generation: int) -> None:
        vm_id, there = self._spec.vm_id, self._there
        async with self._hypervisor.session(self._here.uri, DEADLINE_S) as beside:
            moving = asyncio.create_task(
                session.migrate(vm_id, generation, there.uri, generation + 1, PATIENCE_S)
            )

            async def under_way() -> bool:
                return moving.done() or await beside.migration(vm_id) is not None

            await seen("the guest is on its way", under_way)
            with self._watch.on("migration"):
                await beside.migration(vm_id)
            with self._watch.on("abort_migration"):
                await beside.abort_migration(vm_id, generation)
            try:
                await moving
            except Conflict:
                return
            raise NoAnswer("BENCHMARK_STUCK", "a migration that was given up has come to its end")

    async def _ends(self, session: LibvirtSession, generation: int) -> None:
        vm_id = self._spec.vm_id

        async def off() -> bool:
            found = await session.lookup(vm_id)
            return found is not None and found.state is DomainState.SHUTOFF

        with self._watch.on("guest_stop"):
            with self._watch.on("shutdown"):
                await session.shutdown(vm_id, generation)
            await seen("the guest has shut itself down", off)

    async def _destroys(self, session: LibvirtSession, generation: int) -> None:
        vm_id = self._spec.vm_id
        await session.create(vm_id, generation)
        with self._watch.on("destroy"):
            await session.destroy(vm_id, generation)
        await session.undefine(vm_id, generation)


class PowerRounds:
    """A host whose power is cut and given again, over one protocol; and how long it boots."""

    def __init__(self, host: HostInventory, access: BmcAccess, over: str, watch: Watch) -> None:
        self._host, self._over, self._watch = host, over, watch
        self._device = FenceDevice(
            id=uuid4(),
            host_id=uuid4(),
            name=f"{over}-{host.name}",
            agent=access.agent,
            options=access.options,
            deadline_s=DEADLINE_S,
        )
        self._secret = {"password": SecretStr(access.password)}
        self._power = FenceAgents(self._secrets)

    async def _secrets(self, _device: UUID) -> Mapping[str, SecretStr]:
        return self._secret

    async def round(self, _number: int) -> None:
        """Read, off, read back, on, until libvirt answers."""
        await self._power.check(self._device)  # an agent's metadata are read once in its life
        await self._reads(PowerReading.ON)
        with self._watch.on("bmc_off", over=self._over):
            await self._power.off(self._device)
        await self._reads(PowerReading.OFF)
        with self._watch.on("host_boot", over=self._over):
            with self._watch.on("bmc_on", over=self._over):
                await self._power.on(self._device)
            await answers(self._host.uri)

    async def _reads(self, wanted: PowerReading) -> None:
        with self._watch.on("bmc_read", over=self._over):
            found = await self._power.read(self._device)
        if found is not wanted:
            raise NoAnswer("BENCHMARK_STUCK", f"{self._device.name} reads {found}, not {wanted}")


class SshRounds:
    """A libvirtd that is restarted over SSH, and how long until it answers again."""

    def __init__(self, host: HostInventory, watch: Watch) -> None:
        self._host, self._watch = host, watch
        self._key = {PRIVATE_KEY: SecretStr(Path(host.ssh.key_file).read_text())}
        self._ssh = OpenSsh(self._secrets)
        self._access = SshAccess(
            host_id=uuid4(),
            address=host.address,
            user=host.ssh.user,
            port=host.ssh.port,
            host_key=host.ssh.host_key,
        )

    async def _secrets(self, _host: UUID) -> Mapping[str, SecretStr]:
        return self._key

    async def round(self, _number: int) -> None:
        """One restart."""
        with self._watch.on("libvirtd_start"):
            with self._watch.on("ssh_restart"):
                await self._ssh.restart_libvirtd(self._access, DEADLINE_S)
            await answers(self._host.uri)


async def answers(uri: str) -> None:
    """Wait until a host's libvirt opens a connection."""
    hypervisor = LibvirtHypervisor()

    async def opens() -> bool:
        try:
            async with hypervisor.session(uri, DEADLINE_S) as session:
                await session.boot_mark()
        except NoAnswer:
            return False
        return True

    await seen(f"{uri} answers", opens)


def _define(uri: str, xml: str) -> None:
    connection = libvirt.open(uri)
    try:
        connection.defineXML(xml)
    finally:
        connection.close()


def _set_speed(uri: str, vm_id: UUID, mib_s: int) -> None:
    _with_domain(uri, vm_id, lambda domain: domain.migrateSetMaxSpeed(mib_s))


def _with_domain(uri: str, vm_id: UUID, act: Callable[[libvirt.virDomain], object]) -> None:
    connection = libvirt.open(uri)
    try:
        act(connection.lookupByUUIDString(str(vm_id)))
    finally:
        connection.close()
