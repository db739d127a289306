"""`holdfast up`: the whole engine on one machine, every process supervised.

Starts Temporal (or uses the one that is named), brings the database's schema up to date, then runs
api, worker, fencing, monitors and relay as child processes. A child that dies is started again; all
of them die with this process. One engine a folder: a second one is refused before it starts
anything. What a process says goes to `log/<role>.log` and, when that is full, `log/<role>.log.1`.

With `--fleet` one more process holds a fleet without hardware (`cli.fleet`). It is the first to
start and the last to end, so that no other sees its hosts fall silent.
"""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import httpx2
import structlog

from api.auth import read_or_create_token, token_file
from cli import fleet
from cli.claims import only_engine, usable_port
from domain.errors import EngineError, Unavailable
from store.migrate import upgrade
from worker.capped_log import CappedLog
from worker.child import bound_to_parent
from worker.exit import exit_process
from worker.logs import set_up_logs
from worker.settings import Settings
from worker.temporal_server import Endpoint, running_temporal

log = structlog.get_logger()

FLEET = "fleet"
ROLES = ("api", "worker", "fencing", "monitor", "relay")
READY_S = 120.0
"""Until the API answers; 5 s on an idle machine. Lower: a busy machine gives up in vain."""

RESTART_S = 0.5
STOP_S = 12.0

Say = Callable[[str], None]
Command = Callable[[str], list[str]]


def process_command(role: str) -> list[str]:
    """The argument vector of one process of the engine, or of the fleet without hardware."""
    if role == FLEET:
        return [sys.executable, "-m", "simulator.fleet"]
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
        more = (f"monitor-{number}" for number in range(2, settings.monitors + 1))
        self.roles = (*ROLES, *more)
        self._children: dict[str, asyncio.Task[None]] = {}

    async def start(self) -> None:
        """Start every process and wait until the API answers."""
        (self.settings.var / "api.url").write_text(self.url + "\n")
        if self.settings.fleet:
            self._begin(FLEET)
            await fleet.until_it_answers(self.settings.var, READY_S)
        for role in self.roles:
            self._begin(role)
        await self._until_ready()

    async def stop(self) -> None:
        """Ask every process to end, and wait for them."""
        self._stopping = True
        await self._end(self.roles)
        await self._end((FLEET,))

    def _begin(self, role: str) -> None:
        self._children[role] = asyncio.create_task(self._keep(role))

    async def _end(self, roles: tuple[str, ...]) -> None:
        children = [self._children[role] for role in roles if role in self._children]
        if not children:
            return
        self._signal(roles, signal.SIGTERM)
        _done, late = await asyncio.wait(children, timeout=STOP_S)
        self._signal(roles, signal.SIGKILL)
        if late:
            await asyncio.wait(late)

    def _signal(self, roles: tuple[str, ...], number: signal.Signals) -> None:
        for role in roles:
            if role in self.pids:
                with suppress(ProcessLookupError):
                    os.kill(self.pids[role], number)

    async def _keep(self, role: str) -> None:
        while not self._stopping:
            try:
                process = await self._spawn(role)
            except (OSError, RuntimeError) as error:
                # Too many files, threads or processes, no memory, no log folder: all may pass.
                log.error("process not started", role=role, why=str(error))
            else:
                self.pids[role] = process.pid
                code = await process.wait()
                del self.pids[role]
                if not self._stopping:
                    log.warning("process ended and is started again", role=role, code=code)
            if not self._stopping:
                await asyncio.sleep(RESTART_S)

    async def _spawn(self, role: str) -> asyncio.subprocess.Process:
        """Start one process; OSError or RuntimeError when the machine does not allow it now."""
        command = self._command(role)
        path = self.settings.var / "log" / f"{role}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        # A log that cannot be written shows here, where it is tried again, and not in its thread.
        path.touch()
        output = CappedLog(path)
        try:
            return await asyncio.create_subprocess_exec(
                *bound_to_parent(command),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output.write_end,
                stderr=output.write_end,
                env=os.environ | self.settings.as_env(),
            )
        finally:
            output.close_write_end()

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


@asynccontextmanager
async def running_engine(
    settings: Settings, say: Say, command: Command = process_command
) -> AsyncIterator[Engine]:
    """A running engine with everything it needs; ended in order on the way out.

    Conflict when the folder has an engine already or its API's port is taken; nothing was started.
    """
    with only_engine(settings.var):
        async with engine_in_its_folder(settings, say, command) as engine:
            yield engine


@asynccontextmanager
async def engine_in_its_folder(
    settings: Settings, say: Say, command: Command = process_command
) -> AsyncIterator[Engine]:
    """As `running_engine`, for a caller that holds `only_engine` already."""
    fleet.check_folder(settings)
    port = usable_port(settings.api_host, settings.api_port)
    settings = settings.model_copy(update={"api_port": port})
    read_or_create_token(token_file(settings.var))
    # The settings decide, also when they name no server and the environment does.
    env = os.environ | {"HOLDFAST_TEMPORAL_ADDRESS": settings.temporal_address}
    async with running_temporal(
        settings.var, env, say, ui_port=settings.ui_port or None
    ) as endpoint:
        say(f"Temporal answers at {endpoint.address}")
        await upgrade(settings.database)
        await fleet.refuse_real_hosts(settings)
        settings = settings.model_copy(update={"temporal_address": endpoint.address})
        engine = Engine(settings, endpoint, say, command)
        try:
            await engine.start()
            yield engine
        finally:
            await engine.stop()


def run_up(of_fleet: str = "", monitors: int | None = None) -> None:
    """Run the engine until Ctrl-C; ends the process."""
    try:
        settings = Settings.from_env(os.environ)
        if of_fleet:
            settings = settings.model_copy(update={"fleet": of_fleet})
        if monitors is not None:
            settings = settings.model_copy(update={"monitors": monitors})
        set_up_logs(settings.log_level, "up")
        code = asyncio.run(_up(settings))
    except EngineError as error:
        _tell(error)
        code = 1
    exit_process(code)


def _tell(error: EngineError) -> None:
    print(f"error: {error.detail} ({error.code})", file=sys.stderr)
    if error.next_step:
        print(f"  next: {error.next_step}", file=sys.stderr)


async def _up(settings: Settings) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with running_engine(settings, print) as engine:
        if settings.fleet and not await _built(engine, stop):
            return 0
        print(addresses(engine))
        print("Ctrl-C ends it.", flush=True)
        await stop.wait()
        print("ending …", flush=True)
    return 0


async def _built(engine: Engine, stop: asyncio.Event) -> bool:
    """Complete the fleet; False when that was interrupted, and the next start goes on with it."""
    building = asyncio.ensure_future(fleet.build(engine.url, engine.settings, print))
    stopped = asyncio.ensure_future(stop.wait())
    await asyncio.wait({building, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if building.done():
        try:
            building.result()
        except EngineError as error:
            _tell(error)  # and keep running, so that one can look at what went wrong
        return True
    building.cancel()
    with suppress(asyncio.CancelledError):
        await building
    return False


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
