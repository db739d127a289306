"""The engine's processes, each joined from its parts here: api, worker, fencing, monitor, relay.

Every one of them may be killed at any moment and started again. Each may run more than once. A
monitor has a name that stays its own over restarts; a second process of that name is refused.
Where there is a fleet without hardware (`simulator.fleet`), they reach it in place of libvirt and
fence agents; neither needs to be installed then.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING
from uuid import UUID

import structlog
import uvicorn
from pydantic import SecretStr

from api.app import create_app
from api.auth import TokenAuth, read_or_create_token, token_file
from api.people import People, people_file
from domain.errors import EngineError
from domain.permissions import Role
from drivers.fence_agents import FenceAgents
from drivers.fence_metadata import check_complete, check_options
from drivers.secrets import SecretBox
from drivers.ssh import OpenSsh
from drivers.tcp_doors import TcpDoors
from engine.backend import Backend
from engine.delivery import Delivery
from engine.records.fence_checks import FenceCheckRecords
from engine.records.watching import WatchRecords
from engine.registry import all_actions, all_queries
from engine.roles import Roles
from simulator.fleet.drivers import FarHypervisor, FarPower
from simulator.fleet.place import socket_of
from simulator.fleet.ssh import FarSsh
from store import inventory, soft_steps
from store.database import Database
from worker.duties import relay_duties
from worker.exit import exit_process, leave
from worker.fence_watch import FenceWatch
from worker.logs import set_up_logs
from worker.memory import settle
from worker.monitor import Monitor
from worker.owners import this_process
from worker.parts import Parts, fencing_worker, operations_worker
from worker.relay import relay
from worker.settings import Settings
from worker.temporal_client import TemporalWorkflows, connect
from worker.tracing import set_up_traces, tracing_interceptor

if TYPE_CHECKING:
    from activities.ports import Hypervisor
    from activities.soft_steps import Ssh

log = structlog.get_logger()

API_GRACE_S = 5

NAMED_AFTER = 45
"""The part of a machine's name that its monitors are named after: names end at 64 characters."""


class Process:
    """What every role is made of: settings, database, drivers, backend."""

    def __init__(self, settings: Settings, number: str = "") -> None:
        self.settings = settings
        self.number = number  # of several of one role on this machine
        self.database = Database(settings.database)
        self.box = SecretBox.open_or_create(settings.var / "secret.key")
        self.power = self._power()

    def _power(self) -> FenceAgents | FarPower:
        if self.settings.fleet:
            return FarPower(socket_of(self.settings.var))
        return FenceAgents(self._secrets)

    def hypervisor(self) -> "Hypervisor":
        """Hosts, real ones unless there is a fleet."""
        if self.settings.fleet:
            return FarHypervisor(socket_of(self.settings.var))
        # Where there is a fleet, libvirt need not be installed.
        from drivers.libvirt_hypervisor import LibvirtHypervisor

        return LibvirtHypervisor()

    async def parts(self) -> Parts:
        """What a worker's steps stand on."""
        found = (await self.backend(), self.hypervisor(), self.power, TcpDoors(), self.ssh())
        return Parts(self.database, *found)

    def ssh(self) -> "Ssh":
        """Hosts over SSH, real ones unless there is a fleet."""
        if self.settings.fleet:
            return FarSsh(socket_of(self.settings.var))
        return OpenSsh(self._ssh_secrets)

    async def _ssh_secrets(self, host_id: UUID) -> dict[str, SecretStr]:
        row = await self.database.read(lambda c: soft_steps.access_of(c, host_id))
        return {} if row is None else self.box.open(row["secrets"])

    async def _secrets(self, device_id: UUID) -> dict[str, SecretStr]:
        row = await self.database.read(lambda c: inventory.get(c, "fence_device", device_id))
        return {} if row is None else self.box.open(row["secrets"])

    async def check(self, agent: str, options: dict[str, str], secrets: dict[str, str]) -> None:
        """Invalid when a fence agent does not exist, or an option does not fit it or is missing."""
        parameters = await self.power.agent_parameters(agent)
        check_options(parameters, options, secrets)
        check_complete(parameters, options)

    async def workflows(self) -> TemporalWorkflows:
        """Temporal as the engine sees it; it is reached at the first use."""
        client = await connect(
            self.settings.temporal_address, traces=self.settings.traces, lazy=True
        )
        return TemporalWorkflows(client)

    async def delivery(self) -> Delivery:
        """What starts workflows."""
        return Delivery(self.database, await self.workflows())

    async def backend(self) -> Backend:
        """The one door."""
        actions = all_actions(self.box, self)
        return Backend(
            self.database,
            actions,
            all_queries(actions),
            await self.delivery(),
            roles=self._roles(),
        )

    def _roles(self) -> Roles:
        """Whoever was removed, and every name that was never given, may look and no more."""
        return Roles(People(people_file(self.settings.var)), Role.VIEWER)


async def run_api(process: Process) -> None:
    """The REST API."""
    settings = process.settings
    backend = await process.backend()
    people = People(people_file(settings.var))
    auth = TokenAuth(read_or_create_token(token_file(settings.var)), people)
    config = uvicorn.Config(
        create_app(backend, auth),
        host=settings.api_host,
        port=settings.api_port,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=API_GRACE_S,
    )
    settle()
    await uvicorn.Server(config).serve()


async def run_worker(process: Process) -> None:
    """Workflows and ordinary steps."""
    settings = process.settings
    client = await connect(settings.temporal_address)
    worker = operations_worker(
        client,
        await process.parts(),
        steps_at_once=settings.steps_at_once,
        interceptors=tracing_interceptor(settings.traces),
    )
    await worker.run()


async def run_fencing(process: Process) -> None:
    """Steps that touch power controllers, in a process of their own."""
    settings = process.settings
    client = await connect(settings.temporal_address)
    parts = await process.parts()
    await fencing_worker(client, parts, tracing_interceptor(settings.traces)).run()


async def run_monitor(process: Process) -> None:
    """Watches the hosts."""
    machine = process.settings.machine or os.uname().nodename
    name = process.settings.monitor_name or f"{machine[:NAMED_AFTER]}-monitor"
    if process.number:
        name = f"{name}-{process.number}"
    records = WatchRecords(process.database)
    backend = await process.backend()
    settle()
    hypervisor, power = process.hypervisor(), process.power
    monitor = Monitor(name, records, backend, hypervisor, power, who=this_process(machine))
    fences = FenceWatch(FenceCheckRecords(process.database), power, hypervisor)
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(monitor.run())
            group.create_task(fences.run())
    finally:
        await monitor.leave()


async def run_relay(process: Process) -> None:
    """Left-over starts, numbers of events, waits for locks, vanished workflows, the archive."""
    database, backend = process.database, await process.backend()
    workflows, days = await process.workflows(), process.settings.retention_days
    duties = relay_duties(database, backend, workflows, days)
    await relay(await process.delivery(), database, duties)


ROLES: dict[str, Callable[[Process], Awaitable[None]]] = {
    "api": run_api,
    "worker": run_worker,
    "fencing": run_fencing,
    "monitor": run_monitor,
    "relay": run_relay,
}


def run_role(role: str) -> None:
    """Run one role until it is told to stop; ends the process with 0, or 1 after a failure."""
    try:
        settings = Settings.from_env(os.environ)
    except EngineError as error:
        print(f"error: {error.detail} ({error.code}); {error.next_step}", file=sys.stderr)
        exit_process(1)
    asyncio.run(_run(role, settings))


async def _join(role: str, settings: Settings) -> None:
    """Inside the task, so that settings that no part can use are told like any other failure."""
    kind, _, number = role.partition("-")
    await ROLES[kind](Process(settings, number))


async def _run(role: str, settings: Settings) -> None:
    set_up_logs(settings.log_level, role)
    provider = set_up_traces(settings.traces, role)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    task = asyncio.ensure_future(_join(role, settings))
    stopped = asyncio.ensure_future(stop.wait())
    await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
    code = 0
    if task.done() and (error := task.exception()) is not None:
        code = 1
        error = _cause(error)
        told = (
            {"code": error.code, "next": error.next_step} if isinstance(error, EngineError) else {}
        )
        detail = error.detail if isinstance(error, EngineError) else repr(error)
        log.error("process failed", role=role, why=detail, **told)
    if provider is not None:
        provider.shutdown()
    await leave(code)


def _cause(error: BaseException) -> BaseException:
    """What failed, where one of several tasks did."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


if __name__ == "__main__":
    run_role(sys.argv[1])
