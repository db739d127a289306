"""`holdfast up`: the whole engine on one machine, every process supervised.

Starts Temporal (or uses the one that is named), brings the database's schema up to date, then runs
api, worker, fencing, monitor and relay as child processes. A child that dies is started again; all
of them die with this process.
"""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import httpx2
import structlog

from api.auth import read_or_create_token, token_file
from domain.errors import EngineError, Unavailable
from store.migrate import upgrade
from worker.child import bound_to_parent
from worker.exit import exit_process
from worker.logs import set_up_logs
from worker.settings import Settings
from worker.temporal_server import Endpoint, running_temporal

log = structlog.get_logger()

ROLES = ("api", "worker", "fencing", "monitor", "relay")
READY_S = 60.0
RESTART_S = 0.5
STOP_S = 12.0

Say = Callable[[str], None]
Command = Callable[[str], list[str]]


def process_command(role: str) -> list[str]:
    """The argument vector of one process of the engine."""
    return [sys.executable, "-m", "cli.processes", role]


class Engine:
    """A running engine: its children, its addresses. `command` gives each process's arguments."""

    def __init__(
        self,
        settings: Settings,
        endpoint: Endpoint,
        say: Say,
        command: Command = process_command,
    ) -> None:
        self._command = command
        self.settings = settings
        self.endpoint = endpoint
        self.url = f"http://{settings.api_host}:{settings.api_port}"
        self.pids: dict[str, int] = {}
        self._say = say
        self._stopping = False
        self._children: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Start every process and wait until the API answers."""
        (self.settings.var / "api.url").write_text(self.url + "\n")
        self._children = [asyncio.create_task(self._keep(role)) for role in ROLES]
        await self._until_ready()

    async def stop(self) -> None:
        """Ask every process to end, and wait for them."""
        self._stopping = True
        for pid in self.pids.values():
            _signal(pid, signal.SIGTERM)
        _done, late = await asyncio.wait(self._children, timeout=STOP_S)
        for pid in self.pids.values():
            _signal(pid, signal.SIGKILL)
        if late:
            await asyncio.wait(late)

    async def _keep(self, role: str) -> None:
        while not self._stopping:
            process = await self._spawn(role)
            self.pids[role] = process.pid
            code = await process.wait()
            del self.pids[role]
            if not self._stopping:
                log.warning("process ended and is started again", role=role, code=code)
                await asyncio.sleep(RESTART_S)

    async def _spawn(self, role: str) -> asyncio.subprocess.Process:
        command = self._command(role)
        folder = self.settings.var / "log"
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f"{role}.log").open("ab") as output:
            return await asyncio.create_subprocess_exec(
                *bound_to_parent(command),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=os.environ | self.settings.as_env(),
            )

    async def _until_ready(self) -> None:
        end = asyncio.get_running_loop().time() + READY_S
        async with httpx2.AsyncClient() as client:
            while asyncio.get_running_loop().time() < end:
                if await _is_ready(client, self.url):
                    return
                await asyncio.sleep(0.1)
        raise Unavailable(
            "ENGINE_DID_NOT_START",
            f"the API did not answer within {READY_S:.0f} s",
            next_step=f"see {self.settings.var / 'log'}",
        )


async def _is_ready(client: httpx2.AsyncClient, url: str) -> bool:
    try:
        return (await client.get(f"{url}/readyz", timeout=2)).status_code == 200
    except httpx2.HTTPError:
        return False


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


@asynccontextmanager
async def running_engine(
    settings: Settings, say: Say, command: Command = process_command
) -> AsyncIterator[Engine]:
    """A running engine with everything it needs; ended in order on the way out."""
    settings.var.mkdir(parents=True, exist_ok=True)
    read_or_create_token(token_file(settings.var))
    env = dict(os.environ)
    if settings.temporal_address:
        env["HOLDFAST_TEMPORAL_ADDRESS"] = settings.temporal_address
    async with running_temporal(
        settings.var, env, say, ui_port=settings.ui_port or None
    ) as endpoint:
        say(f"Temporal answers at {endpoint.address}")
        await upgrade(settings.database)
        settings = settings.model_copy(update={"temporal_address": endpoint.address})
        if settings.api_port == 0:
            settings = settings.model_copy(update={"api_port": _free_port(settings.api_host)})
        engine = Engine(settings, endpoint, say, command)
        try:
            await engine.start()
            yield engine
        finally:
            await engine.stop()


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def run_up() -> None:
    """Run the engine until Ctrl-C; ends the process."""
    set_up_logs("info", "up")
    try:
        code = asyncio.run(_up(Settings.from_env(os.environ)))
    except EngineError as error:
        print(f"error: {error.detail} ({error.code})", file=sys.stderr)
        if error.next_step:
            print(f"  next: {error.next_step}", file=sys.stderr)
        code = 1
    exit_process(code)


async def _up(settings: Settings) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with running_engine(settings, print) as engine:
        print(addresses(engine))
        print("Ctrl-C ends it.", flush=True)
        await stop.wait()
        print("ending …", flush=True)
    return 0


def addresses(engine: Engine) -> str:
    """Where to look at a running engine."""
    lines = [
        f"API          {engine.url}/api/v1",
        f"API docs     {engine.url}/api/v1/docs",
        f"token        {token_file(engine.settings.var)}",
    ]
    if engine.endpoint.ui_url:
        lines.append(f"Temporal UI  {engine.endpoint.ui_url}")
    return "\n".join(lines)
