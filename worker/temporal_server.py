"""Run Temporal's dev server as a supervised child, or use one that runs already.

Invariants  One server process at a time a supervisor; it restarts on the same ports and the same
            database file, so clients reconnect and nothing accepted is lost. It listens on
            loopback only, and it dies with the thread that started it (`worker.child`): enter
            `DevServer` from a thread that lives as long as the server should.
Races       The server may die while it is being asked: only a live process that answers counts as
            up. Ports are picked below the range the kernel gives to outgoing connections, so
            a client that reconnects during a restart cannot take the server's port.
Limits      A server in trouble is restarted after 0.2 s, 0.4 s, ... at most every 30 s, without
            end: the engine accepts work while Temporal is down.
"""

import asyncio
import contextlib
import logging
import os
import random
import signal
import socket
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import Client, WorkflowFailureError
from temporalio.service import RPCError

from domain.errors import Conflict, Unavailable
from worker.capped_log import CappedLog, tail
from worker.child import bound_to_parent
from worker.temporal_find import ExistingServer, find_temporal
from worker.temporal_get import Say
from worker.warmup import warm_up

log = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
NAMESPACE = "default"
PORTS = range(20000, 32000)

ANSWER_WITHIN_S = 60.0
"""How long a started server may take to answer; 0.3 s on an idle machine.

Higher: a server that will never answer is noticed later. Lower: a busy machine gives up in vain.
"""
ASK_EVERY_S = 0.05
CHECK_EVERY_S = 5.0
CHECK_WITHIN = timedelta(seconds=5)
SILENT_LIMIT_S = 45.0
"""How long a live server may fail its checks before it is killed and restarted.

Higher: a hung server holds all work longer. Lower: a starved machine restarts a healthy one.
"""
STOP_WITHIN_S = 10.0
RESTART_FIRST_S, RESTART_MAX_S = 0.2, 30.0
STEADY_S = 60.0

DYNAMIC_CONFIG: Mapping[str, str] = {
    # As shipped, its single shard is read 20 times a second: every step waits on a 50 ms grid.
    "history.transferProcessorMaxPollRPS": "500",
    "history.timerProcessorMaxPollRPS": "500",
    # As shipped, short timers and retry back-offs fire up to 1 s late.
    "history.timerProcessorMaxTimeShift": '"50ms"',
    # Priority orders tasks inside one partition only.
    "matching.numTaskqueueReadPartitions": "1",
    "matching.numTaskqueueWritePartitions": "1",
    "matching.enableFairness": "true",
    # Without it, a task can be handed to a worker that is shutting down.
    "frontend.enableCancelWorkerPollsOnShutdown": "true",
    "system.enableActivityEagerExecution": "true",
}
SQLITE_PRAGMAS: Mapping[str, str] = {
    # As shipped, every commit waits for the disk and a one-step workflow takes five times as long.
    "journal_mode": "WAL",
    "synchronous": "1",
}


@dataclass(frozen=True)
class DevServerOptions:
    """What to run and where; ports that are None are picked once and kept over restarts."""

    program: Path
    database: Path
    log: Path
    port: int | None = None
    ui_port: int | None = None
    # Name -> Temporal's type; the server takes them only when it creates the database file.
    search_attributes: Mapping[str, str] = field(default_factory=dict)


class DevServer:
    """`async with DevServer(options) as server:` — answers on entry, and is gone after exit.

    Entering raises Conflict (`TEMPORAL_PORT_TAKEN`) or Unavailable (`TEMPORAL_DID_NOT_START`).
    """

    def __init__(self, options: DevServerOptions) -> None:
        self._options = options
        self.port = _port(options.port)
        self.ui_port = _port(options.ui_port, other_than=self.port)
        self.restarts = 0
        self._process: asyncio.subprocess.Process | None = None
        self._output: CappedLog | None = None
        self._supervisor: asyncio.Task[None] | None = None

    @property
    def address(self) -> str:
        """Where clients connect."""
        return f"{LOOPBACK}:{self.port}"

    @property
    def ui_url(self) -> str:
        """Where a browser looks."""
        return f"http://{LOOPBACK}:{self.ui_port}"

    @property
    def pid(self) -> int | None:
        """The running server's process id, or None while there is none."""
        process = self._process
        return None if process is None or process.returncode is not None else process.pid

    async def __aenter__(self) -> Self:
        try:
            client = await self._start()
            await warm_up(client)
        except (WorkflowFailureError, RPCError) as e:
            await self._stop()
            raise self._did_not_start(f"its first workflow failed: {e}") from e
        except BaseException:
            await self._stop()
            raise
        self._supervisor = asyncio.create_task(self._supervise(client), name="temporal dev server")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.wait([self._supervisor])
        await self._stop()

    def command(self) -> list[str]:
        """The server's argument vector; the same at every restart."""
        options = self._options
        command = [str(options.program), "server", "start-dev", "--ip", LOOPBACK]
        command += ["--port", str(self.port), "--ui-port", str(self.ui_port)]
        command += ["--ui-disable-news-fetch", "--log-level", "warn", "--log-format", "pretty"]
        command += ["--db-filename", str(options.database.absolute())]
        for key, value in SQLITE_PRAGMAS.items():
            command += ["--sqlite-pragma", f"{key}={value}"]
        for key, value in DYNAMIC_CONFIG.items():
            command += ["--dynamic-config-value", f"{key}={value}"]
        for key, value in options.search_attributes.items():
            command += ["--search-attribute", f"{key}={value}"]
        return command

    async def _start(self) -> Client:
        """Launch the process and wait until it answers."""
        for folder in (self._options.database.parent, self._options.log.parent):
            folder.mkdir(parents=True, exist_ok=True)
        self._output = CappedLog(self._options.log)
        try:
            self._process = await asyncio.create_subprocess_exec(
                *bound_to_parent(self.command()),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=self._output.write_end,
                stderr=self._output.write_end,
                env=_environment(),
                # Ctrl-C in a terminal is for us; the server is stopped after its clients.
                start_new_session=True,
            )
        finally:
            self._output.close_write_end()
        return await self._answering(self._process)

    async def _answering(self, process: asyncio.subprocess.Process) -> Client:
        deadline = time.monotonic() + ANSWER_WITHIN_S
        while time.monotonic() < deadline:
            if process.returncode is not None:
                raise self._did_not_start(f"it ended with code {process.returncode}")
            client = await _ask(self.address)
            if client is not None and process.returncode is None:
                return client
            await asyncio.sleep(ASK_EVERY_S)
        raise self._did_not_start(f"no answer within {ANSWER_WITHIN_S:.0f} s")

    def _did_not_start(self, why: str) -> Unavailable:
        if self._output is not None and self.pid is None:
            self._output.join(within_s=1.0)
        return Unavailable(
            "TEMPORAL_DID_NOT_START",
            f"the Temporal dev server at {self.address} did not start: {why}; "
            f"last words: {tail(self._options.log, lines=3) or 'none'}",
            next_step=f"read {self._options.log}; if it complains of the database, move "
            f"{self._options.database} away and start again",
        )

    async def _supervise(self, client: Client) -> None:
        """Restart the server whenever it has ended or fallen silent, for ever."""
        delay_s = RESTART_FIRST_S
        while True:
            up_since = time.monotonic()
            why = await self._until_down(client)
            up_s = time.monotonic() - up_since
            if up_s > STEADY_S:
                delay_s = RESTART_FIRST_S
            facts = {"why": why, "up_s": round(up_s, 1), "again_in_s": round(delay_s, 1)}
            log.warning("temporal server is down, starting it again", extra=facts)
            await self._stop()
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, RESTART_MAX_S)
            try:
                client = await self._start()
            except (Unavailable, OSError) as e:
                log.error("temporal server did not start", extra={"why": str(e)})
                await self._stop()
                continue
            self.restarts += 1
            log.warning("temporal server answers again", extra={"address": self.address})

    async def _until_down(self, client: Client) -> str:
        process = self._process
        if process is None:
            return "it did not start"
        heard = time.monotonic()
        while time.monotonic() - heard < SILENT_LIMIT_S:
            with contextlib.suppress(TimeoutError):
                code = await asyncio.wait_for(process.wait(), CHECK_EVERY_S)
                return f"it ended with code {code}"
            with contextlib.suppress(RPCError):
                await client.service_client.check_health(timeout=CHECK_WITHIN)
                heard = time.monotonic()
        return f"it is silent for {SILENT_LIMIT_S:.0f} s"

    async def _stop(self) -> None:
        """End the process: asked first, then forced. Harmless when there is none."""
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(process.wait(), STOP_WITHIN_S)
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        output, self._output = self._output, None
        if output is not None:
            await asyncio.to_thread(output.join, 1.0)


@dataclass(frozen=True)
class Endpoint:
    """A Temporal server that answers; `server` is None when someone else runs it."""

    address: str
    ui_url: str | None
    server: DevServer | None


@asynccontextmanager
async def running_temporal(
    var: Path,
    env: Mapping[str, str],
    say: Say,
    *,
    port: int | None = None,
    ui_port: int | None = None,
    search_attributes: Mapping[str, str] | None = None,
) -> AsyncIterator[Endpoint]:
    """A server for the duration of the block: the one `env` names, or a supervised dev server.

    Raises what `find_temporal` and `DevServer` raise, and Unavailable (`TEMPORAL_SILENT`) when the
    named server does not answer. The database file lies in `var` and carries the server's version,
    because a dev server brings no schema of an older one up to date.
    """
    found = await asyncio.to_thread(find_temporal, env, say)
    if isinstance(found, ExistingServer):
        await _require_answer(found.address)
        yield Endpoint(address=found.address, ui_url=None, server=None)
        return
    options = DevServerOptions(
        program=found.path,
        database=var / "temporal" / f"temporal-{found.server}.db",
        log=var / "log" / "temporal.log",
        port=port,
        ui_port=ui_port,
        search_attributes=search_attributes or {},
    )
    async with DevServer(options) as server:
        yield Endpoint(address=server.address, ui_url=server.ui_url, server=server)


async def _require_answer(address: str) -> None:
    deadline = time.monotonic() + ANSWER_WITHIN_S
    while await _ask(address) is None:
        if time.monotonic() > deadline:
            raise Unavailable(
                "TEMPORAL_SILENT",
                f"no Temporal server with a namespace {NAMESPACE!r} answers at {address}",
                next_step="start it, or unset HOLDFAST_TEMPORAL_ADDRESS to have one started",
                address=address,
            )
        await asyncio.sleep(ASK_EVERY_S)


async def _ask(address: str) -> Client | None:
    """A client if the server answers and knows our namespace, else None."""
    try:
        client = await Client.connect(address, namespace=NAMESPACE)
        request = DescribeNamespaceRequest(namespace=NAMESPACE)
        await client.workflow_service.describe_namespace(request, timeout=CHECK_WITHIN)
    except (RPCError, RuntimeError):  # the SDK's word for a connection that was refused
        return None
    return client


def _environment() -> dict[str, str]:
    """What the server needs to know, and none of our secrets."""
    kept = ("PATH", "HOME", "LANG", "TZ", "TMPDIR", "XDG_CONFIG_HOME")
    mine = {name: os.environ[name] for name in kept if name in os.environ}
    return {**mine, "TEMPORAL_VERSION_CHECK_DISABLED": "1"}


def _port(wanted: int | None, other_than: int | None = None) -> int:
    """The wanted port if it is free, or any free one; raises Conflict."""
    if wanted is not None:
        if not _is_free(wanted):
            raise Conflict(
                "TEMPORAL_PORT_TAKEN",
                f"port {wanted} on {LOOPBACK} is taken by another program",
                next_step="stop that program or choose another port",
                port=wanted,
            )
        return wanted
    for port in random.sample(PORTS, k=200):
        if port != other_than and _is_free(port):
            return port
    raise Conflict("TEMPORAL_PORT_TAKEN", f"200 ports tried on {LOOPBACK}, none is free")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # Connections of a server just stopped linger in TIME_WAIT and hinder nobody.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True
