"""Nothing of an agent outlives its deadline, its caller or the engine."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from drivers.fence_process import GATE, run_contained

pytestmark = pytest.mark.unit

Until = Callable[[Callable[[], object]], Awaitable[None]]
ENV = {"PATH": os.defpath}
REPOSITORY = Path(__file__).parents[3]
ENGINE = """
import asyncio, sys
from drivers.fence_process import run_contained
asyncio.run(run_contained(["sh", sys.argv[1]], "", {"PATH": "/usr/bin:/bin"}, 600.0))
"""


@pytest.fixture
def agent(tmp_path: Path) -> Path:
    """An agent whose grandchild, in a session of its own, writes for as long as it lives."""
    path = tmp_path / "agent"
    path.write_text(
        f"setsid sh -c 'while :; do echo x >> {tmp_path}/beats; sleep 0.05; done' &\nsleep 600\n"
    )
    return path


def beats(agent: Path) -> int:
    path = agent.with_name("beats")
    return path.stat().st_size if path.exists() else 0


def alive(agent: Path) -> list[str]:
    """Command lines that name the agent's folder: the agent and everything it started."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(agent.parent) in line and int(entry.parent.name) != os.getpid():
            found.append(line)
    return found


async def test_at_its_deadline_an_agent_is_killed_with_all_its_descendants(
    agent: Path, until: Until
) -> None:
    for deadline_s in (1.0, 10.0, 60.0):  # a busy machine may not have begun it in the first
        ended = await run_contained(["sh", str(agent)], "", ENV, deadline_s)
        assert ended.exit_code is None
        if beats(agent):
            break
    assert beats(agent) > 0
    await until(lambda: not alive(agent))


async def test_cancelling_the_caller_kills_agent_and_descendants(agent: Path, until: Until) -> None:
    call = asyncio.create_task(run_contained(["sh", str(agent)], "", ENV, 600.0))
    await until(lambda: beats(agent))
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await until(lambda: not alive(agent))


async def test_killing_the_engine_kills_agent_and_descendants(agent: Path, until: Until) -> None:
    engine = await asyncio.create_subprocess_exec(
        sys.executable, "-c", ENGINE, str(agent), cwd=REPOSITORY
    )
    try:
        await until(lambda: beats(agent))
        assert len(alive(agent)) >= 3
    finally:
        engine.send_signal(signal.SIGKILL)
        await engine.wait()
    await until(lambda: not alive(agent))


def test_an_agent_whose_engine_died_before_the_word_go_is_never_started(
    tmp_path: Path,
) -> None:
    mark = tmp_path / "started"
    gate = subprocess.run([*GATE, "touch", str(mark)], input=b"", capture_output=True, check=False)
    assert (gate.returncode, gate.stdout, mark.exists()) == (1, b"ready\n", False)


async def test_output_and_exit_code_come_back_and_stdin_is_whole() -> None:
    ended = await run_contained(["sh", "-c", "cat; echo late >&2; exit 7"], "a=1\nb=2\n", ENV, 20.0)
    assert (ended.exit_code, ended.stdout, ended.stderr) == (7, "a=1\nb=2\n", "late\n")


async def test_an_agent_that_prints_without_end_keeps_only_the_beginning() -> None:
    ended = await run_contained(["sh", "-c", "yes | head -c 1000000"], "", ENV, 20.0)
    assert (ended.exit_code, len(ended.stdout)) == (0, 64 * 1024)


async def test_an_agent_that_closes_its_input_is_no_error() -> None:
    ended = await run_contained(["sh", "-c", "exec <&-; exit 3"], "x" * 1_000_000, ENV, 20.0)
    assert ended.exit_code == 3
