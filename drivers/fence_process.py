"""Run one fence agent so that nothing of it outlives this process or its deadline.

An agent that goes on after its engine died could cut the power of a host that was started again in
the meantime. So each runs in a process-ID namespace whose first process it is: when that dies the
kernel kills everything under it. The kernel kills it when its parent dies (PR_SET_PDEATHSIG), also
by SIGKILL. On deadline or cancellation the whole group is killed and waited for.

Invariants  The agent is not started before both death signals are set: a shell in its place first
            says that it is there, and waits for a word that only a living engine sends.
            Options travel on stdin, never in argv or the environment.
            A claim is made once it waits for that word, on nobody's deadline: between the right to
            cut power and the cut lies one write, and no loading, starting or importing.
Races       The death signal is bound to the thread that started the agent, which is the one that
            runs the event loop.
Limits      Where namespaces are not permitted the agent still dies with the engine, but its own
            children may not; this is logged once.
"""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import structlog

OUTPUT_MAX = 64 * 1024
"""Bytes kept of each output stream; the rest is read and dropped."""

KILL_WAIT_S = 2.0
"""How long a killed agent may take to go. Only one stuck in the kernel needs longer."""

DIE_WITH_PARENT = ("setpriv", "--pdeathsig", "KILL")
NAMESPACES = (
    ("unshare", "--pid", "--fork", "--kill-child"),
    ("unshare", "--user", "--map-current-user", "--pid", "--fork", "--kill-child"),
)
"""Tried in this order; the second works for a user without privileges on many systems."""

GATE = ("sh", "-c", 'echo ready; IFS= read -r word && [ "$word" = go ] && exec "$@"', "agent")

T = TypeVar("T")
Claim = Callable[[], Awaitable[None]]
"""Asks for the right to do something now; what it raises stops that."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Ended:
    """How an agent ended. `exit_code` None: it did not, and was killed at the deadline."""

    exit_code: int | None
    stdout: str
    stderr: str


async def run_contained(
    command: Sequence[str],
    stdin: str,
    env: Mapping[str, str],
    deadline_s: float,
    claim: Claim | None = None,
) -> Ended:
    """Run `command` with `stdin` for at most `deadline_s` seconds; nothing of it is left after.

    `claim` is awaited just before; what it raises comes from here, and the command was not run.
    Cancellation kills it too. OSError when the tools that contain it are not installed.
    """
    process = await asyncio.create_subprocess_exec(
        *DIE_WITH_PARENT,
        *await _namespace(),
        *GATE,
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=dict(env),
        cwd="/",
        start_new_session=True,
    )
    stdout, stderr = bytearray(), bytearray()
    clock = asyncio.get_running_loop().time
    exit_code, began = None, clock()
    try:
        ready = await _within(deadline_s, _is_ready(process))
        left_s = deadline_s - (clock() - began)
        if ready and claim is not None:
            await claim()  # how long that takes is not the command's time
        if ready is not None:
            said = f"go\n{stdin}" if ready else ""
            exit_code = await _within(left_s, _converse(process, said, stdout, stderr))
        if exit_code is None:
            log.debug("fence agent killed at its deadline", command=command[0], seconds=deadline_s)
    finally:
        if exit_code is None:
            await _kill(process)
    return Ended(exit_code, stdout.decode(errors="replace"), stderr.decode(errors="replace"))


async def _within(seconds: float, work: Coroutine[Any, Any, T]) -> T | None:
    try:
        async with asyncio.timeout(seconds):
            return await work
    except TimeoutError:
        return None


async def _is_ready(process: asyncio.subprocess.Process) -> bool:
    assert process.stdout
    return await process.stdout.readline() == b"ready\n"


async def _converse(
    process: asyncio.subprocess.Process, stdin: str, stdout: bytearray, stderr: bytearray
) -> int:
    assert process.stdin
    assert process.stdout
    assert process.stderr
    with suppress(BrokenPipeError, ConnectionResetError):  # It may end without reading.
        process.stdin.write(stdin.encode())
        await process.stdin.drain()
    process.stdin.close()
    await asyncio.gather(_collect(process.stdout, stdout), _collect(process.stderr, stderr))
    return await process.wait()


async def _collect(stream: asyncio.StreamReader, kept: bytearray) -> None:
    while chunk := await stream.read(4096):
        kept += chunk[: OUTPUT_MAX - len(kept)]


async def _kill(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    assert process.stdout
    try:
        async with asyncio.timeout(KILL_WAIT_S):
            # The end of its output says that the last process that held it has gone as well.
            await _collect(process.stdout, bytearray())
            await process.wait()
    except TimeoutError:
        log.error("killed fence agent has not gone", pid=process.pid, seconds=KILL_WAIT_S)


_namespace_found: tuple[str, ...] | None = None


async def _namespace() -> tuple[str, ...]:
    """The first way to make a namespace that works here; looked for once in a process."""
    global _namespace_found
    if _namespace_found is None:
        for candidate in NAMESPACES:
            if await _works(candidate):
                _namespace_found = candidate
                return candidate
        log.warning("fence agents run without a namespace, their children may outlive them")
        _namespace_found = ()
    return _namespace_found


async def _works(namespace: tuple[str, ...]) -> bool:
    probe = await asyncio.create_subprocess_exec(
        *DIE_WITH_PARENT,
        *namespace,
        "true",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    return await probe.wait() == 0
