"""The engine in the simulation: its real parts, joined into processes that can die.

As `cli/processes.py` joins them for a machine: each process has its own connection to the database,
its own drivers as seen from its machine, its own backend. Only what lies outside is virtual. A
process that was killed is started again a moment later, as `holdfast up` does.
"""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Protocol

from activities.ports import Hypervisor, PowerSwitch
from activities.readiness import Doors
from activities.soft_steps import Ssh
from domain.context import ActionContext
from engine.actions.base import Action, Params
from engine.backend import Backend, Receipt
from engine.delivery import Delivery
from engine.queries.base import Query
from engine.records.fence_checks import FenceCheckRecords
from engine.records.operations import StepRecords
from engine.registry import all_actions, all_queries
from simulator.idle import QuietDelivery, QuietRecords, quiet_duties
from simulator.loop import CURRENT, Process, VirtualLoop, nobody
from simulator.no_secrets import NoSecrets
from simulator.sql import Board
from simulator.temporal.client import VirtualWorkflows
from simulator.temporal.server import Server
from simulator.temporal.worker import VirtualWorker
from simulator.tried import TellsTries
from store.database import Database
from store.inline_sqlite import URL
from worker.duties import relay_duties
from worker.fence_watch import FenceWatch
from worker.interceptors import StepInterceptor
from worker.monitor import Monitor
from worker.owners import Identity
from worker.parts import (
    FENCING_SLOTS,
    WORKFLOW_SLOTS,
    WORKFLOWS,
    Parts,
    fencing_steps,
    ordinary_steps,
)
from worker.relay import relay
from workflows import options

BOARD = Board()
"""What every simulated process's database goes through; one simulation at a time is plugged in."""

ROLES = ("api", "worker", "fencing", "monitor", "relay")
RESTART_S = 0.5
"""How long until a dead process is back, as under `holdfast up`."""

RETENTION_DAYS = 30


class ProcessDied(BaseException):
    """Raised into code of a process that is dead, where it would touch the database."""


class Outside(Protocol):
    """The world as one machine of the engine sees it."""

    def hypervisor(self, machine: str) -> Hypervisor:
        """Hosts, over the management network."""
        ...

    def power(self, machine: str) -> PowerSwitch:
        """Power controllers, over their network."""
        ...

    def doors(self) -> Doors:
        """Services in guests."""
        ...

    def ssh(self, machine: str) -> Ssh:
        """The sshd of hosts, over the management network."""
        ...

    def reaches(self, machine: str, service: str) -> bool:
        """Whether `database` or `temporal` is heard from there."""
        ...


@dataclass(frozen=True)
class Release:
    """Workflow code of one release of the engine."""

    number: int
    workflows: tuple[type, ...]


TODAY = Release(0, WORKFLOWS)


@dataclass
class Running:
    """One process and what it is made of."""

    role: str
    process: Process
    database: Database
    backend: Backend
    workflows: VirtualWorkflows
    parts: Parts
    worker: VirtualWorker | None = None


class SimulatedEngine:
    """See the module. `outside` is the world as its machines see it."""

    def __init__(self, loop: VirtualLoop, server: Server, outside: Outside) -> None:
        self._loop = loop
        self._server = server
        self._outside = outside
        self.running: dict[str, Running] = {}
        self.machines: dict[str, tuple[str, ...]] = {}  # and the roles that each has
        self.dark: set[str] = set()  # machines without power
        self.still: set[str] = set()  # machines that stand still
        self.releases: dict[str, Release] = {}  # of machines that were upgraded
        self._begun = 0  # processes so far
        self.database_up = True
        self.before_statement: Callable[[Process, str], None] = lambda _process, _sql: None
        self.retired: list[Running] = []

    def start(self, machine: str = "engine-1", roles: tuple[str, ...] = ROLES) -> None:
        """Start processes on one machine; `name` of each is its role and machine."""
        known = self.machines.get(machine, ())
        self.machines[machine] = (*known, *(role for role in roles if role not in known))
        for role in roles:
            self._spawn(role, machine)

    def lose_machine(self, machine: str) -> None:
        """Every process of a machine dies at once, and nothing starts them again."""
        self.dark.add(machine)
        self.still.discard(machine)
        for role in self.machines.get(machine, ()):
            self.kill(f"{role}@{machine}")

    def regain_machine(self, machine: str) -> None:
        """A machine boots, and its processes start."""
        if machine in self.dark:
            self.dark.remove(machine)
            self.start(machine, self.machines.get(machine, ()))

    def freeze_machine(self, machine: str) -> None:
        """Every process of a machine stands still, also what would start one that was killed."""
        self.still.add(machine)
        for made in self.running.values():
            if made.process.machine == machine:
                made.process.freeze()

    def thaw_machine(self, machine: str) -> None:
        """They go on, late, and those that were killed meanwhile start."""
        self.still.discard(machine)
        for made in tuple(self.running.values()):
            if made.process.machine == machine and made.process.frozen:
                made.process.thaw(self._loop)
        for role in self.machines.get(machine, ()):
            self._spawn(role, machine)

    def kill(self, name: str, *, again_after_s: float = RESTART_S) -> None:
        """SIGKILL one process; its supervisor starts it again."""
        found = self.running.pop(name, None)
        if found is None:
            return
        found.process.kill()
        # Transactions run to their end at once, so one that is open now is that process's own.
        BOARD.abandon()
        self.retired.append(found)
        if found.worker is not None:
            found.worker.bury()
        machine = found.process.machine
        self._loop.call_later(again_after_s, self._spawn, found.role, machine, context=nobody())

    async def act(self, params: Params, context: ActionContext) -> Receipt:
        """Run an action through the one door, in the API's process."""
        api = next(each for each in self.running.values() if each.role == "api")
        work = api.backend.run_action(params, context)
        receipt: Receipt = await self._loop.spawn(api.process, work)
        return receipt

    def _spawn(self, role: str, machine: str) -> None:
        name = f"{role}@{machine}"
        if name in self.running or machine in self.dark | self.still:
            return
        self._begun += 1
        process = Process(name, machine, self._begun)
        made = self._make(role, process)
        self.running[name] = made
        self._loop.spawn(process, self._main(made))

    def _make(self, role: str, process: Process) -> Running:
        database = Database(URL, BOARD.engine)
        machine = process.machine
        reaches = partial(self._outside.reaches, machine, "temporal")
        workflows = VirtualWorkflows(self._server, reaches)
        actions, queries = _all_requests()
        delivery = Delivery(database, workflows)
        backend = Backend(database, actions, queries, delivery)
        hypervisor, power = self._outside.hypervisor(machine), self._outside.power(machine)
        doors, ssh = self._outside.doors(), self._outside.ssh(machine)
        parts = Parts(database, backend, hypervisor, power, doors, ssh)
        return Running(role, process, database, backend, workflows, parts)

    async def _main(self, made: Running) -> None:
        await MAINS[made.role](self, made)

    def gate(self, statement: str) -> None:
        """Stands before each statement: the dead run none, and the database may be away."""
        process = CURRENT.get()
        if process is None or self._loop.over:
            return
        if process.dead:
            raise ProcessDied(process.name)
        reached = self._outside.reaches(process.machine, "database")
        if not (self.database_up and reached):
            raise sqlite3.OperationalError("unable to open database file")
        self.before_statement(process, statement)

    async def _api(self, made: Running) -> None:
        await asyncio.Event().wait()

    async def _work(self, made: Running) -> None:
        release = self.releases.get(made.process.machine, TODAY)
        self._poll(made, options.OPERATIONS, ordinary_steps(made.parts), release, 32)

    async def _fence(self, made: Running) -> None:
        self._poll(made, options.FENCING, fencing_steps(made.parts), Release(0, ()), FENCING_SLOTS)

    def _poll(
        self, made: Running, queue: str, steps: list[Any], release: Release, slots: int
    ) -> None:
        made.worker = VirtualWorker(
            self._server,
            made.process,
            queue,
            workflows=release.workflows,
            release=release.number,
            activities=steps,
            interceptors=[
                StepInterceptor(StepRecords(made.database)),
                TellsTries(self._server.trace, made.process.title),
            ],
            workflow_slots=WORKFLOW_SLOTS,
            activity_slots=slots,
            reaches=partial(self._outside.reaches, made.process.machine, "temporal"),
        )
        made.worker.start()

    async def _watch(self, made: Running) -> None:
        name = f"{made.process.machine}-monitor"
        records, parts = QuietRecords(BOARD, made.database), made.parts
        who = Identity(made.process.machine, made.process.title, is_dead=_always)
        monitor = Monitor(name, records, made.backend, parts.hypervisor, parts.power, who=who)
        checks = FenceCheckRecords(made.database)
        fences = FenceWatch(checks, parts.power, parts.hypervisor)
        async with asyncio.TaskGroup() as group:
            group.create_task(monitor.run())
            group.create_task(fences.run())

    async def _relay(self, made: Running) -> None:
        duties = relay_duties(made.database, made.backend, made.workflows, RETENTION_DAYS)
        delivery = QuietDelivery(BOARD, made.database, made.workflows)
        await relay(delivery, made.database, tuple(quiet_duties(BOARD, duties)))


@cache
def _all_requests() -> tuple[tuple[Action[Any, Any], ...], tuple[Query[Any, Any], ...]]:
    """All actions and queries. They keep nothing, so every process can have the same ones."""
    secrets = NoSecrets()
    actions = all_actions(secrets, secrets)
    return actions, all_queries(actions)


def _always(_mark: str) -> bool:
    """Whoever had a name before is dead: a machine has one monitor at a time."""
    return True


MAINS: dict[str, Callable[[SimulatedEngine, Running], Awaitable[None]]] = {
    "api": SimulatedEngine._api,
    "worker": SimulatedEngine._work,
    "fencing": SimulatedEngine._fence,
    "monitor": SimulatedEngine._watch,
    "relay": SimulatedEngine._relay,
}
