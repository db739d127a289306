"""The parts around a supervised child: its bond to the parent, its log, and our own exit."""

import asyncio
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from worker.capped_log import CappedLog, tail
from worker.child import EXIT_ORPHAN, bound_to_parent
from worker.temporal_get import ROOT

pytestmark = pytest.mark.unit

WAIT_S = 30.0


def python(code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=WAIT_S
    )


def test_the_program_keeps_its_arguments_its_id_and_its_exit_code() -> None:
    command = bound_to_parent(["/bin/sh", "-c", 'echo "$$ $1"; exit 7', "sh", "a b"])
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        said, _ = child.communicate(timeout=WAIT_S)
    assert said == f"{child.pid} a b\n"
    assert child.returncode == 7


def test_the_program_is_not_started_when_the_parent_has_gone_already() -> None:
    command = bound_to_parent(["/bin/echo", "started"])
    command[command.index("/bin/echo") - 1] = "1"  # not the parent of this child
    done = subprocess.run(command, capture_output=True, check=False, timeout=WAIT_S)
    assert (done.returncode, done.stdout) == (EXIT_ORPHAN, b"")


async def test_the_child_dies_with_the_thread_that_started_it() -> None:
    started: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        # The pipe shows that the shim has become the program before the thread ends.
        command = bound_to_parent(["/bin/sh", "-c", "echo up; exec sleep 600"])
        child = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        started.append(child)

    thread = threading.Thread(target=start)
    thread.start()
    await asyncio.to_thread(thread.join, WAIT_S)
    with started[0] as child:
        assert await asyncio.to_thread(child.wait, WAIT_S) == -9


def test_a_log_is_turned_over_at_its_cap_and_loses_only_the_oldest_part(tmp_path: Path) -> None:
    path = tmp_path / "child.log"
    log = CappedLog(path, cap_bytes=1000)
    lines = [f"line {n:04d}" for n in range(1000)]
    script = "import sys\nfor l in sys.stdin: print(l, end='', flush=True)"
    child = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=log.write_end, text=True
    )
    log.close_write_end()
    child.communicate("\n".join(lines) + "\n", timeout=WAIT_S)
    log.join(WAIT_S)
    older = path.with_name("child.log.1")
    assert sorted(tmp_path.iterdir()) == [path, older]
    kept = older.read_text() + path.read_text()
    assert "\n".join(lines).endswith(kept.strip())
    assert tail(path.with_name("none"), 3) == ""


def test_the_tail_of_a_log_is_its_last_lines(tmp_path: Path) -> None:
    path = tmp_path / "child.log"
    path.write_text("one\ntwo\nthree\n")
    assert tail(path, 2) == "two | three"


def test_leaving_flushes_keeps_the_code_and_skips_the_interpreters_teardown() -> None:
    code = (
        "import atexit, sys\n"
        "from worker.exit import exit_process\n"
        "atexit.register(print, 'teardown')\n"
        "sys.stdout.write('said')\n"
        "exit_process(7)\n"
    )
    done = python(code)
    assert (done.returncode, done.stdout) == (7, "said")


def test_leaving_a_loop_lets_other_tasks_clean_up_but_waits_for_none_for_ever() -> None:
    code = (
        "import asyncio\n"
        "from worker.exit import leave\n"
        "async def tidy():\n"
        "    try:\n"
        "        await asyncio.Event().wait()\n"
        "    finally:\n"
        "        print('tidied')\n"
        "async def stubborn():\n"
        "    while True:\n"
        "        try:\n"
        "            await asyncio.Event().wait()\n"
        "        except asyncio.CancelledError:\n"
        "            print('no')\n"
        "async def main():\n"
        "    tasks = [asyncio.create_task(tidy()), asyncio.create_task(stubborn())]\n"
        "    await asyncio.sleep(0)\n"
        "    await leave(5, within_s=0.2)\n"
        "asyncio.run(main())\n"
    )
    done = python(code)
    assert done.returncode == 5
    assert sorted(done.stdout.split()) == ["no", "tidied"]
