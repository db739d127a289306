"""`holdfast up --fleet` as a person uses it: real processes, a host that dies, VMs that return."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cli.claims import usable_port
from domain.errors import Unavailable
from lab.processes import until
from simulator.fleet.place import SOCKET
from worker.temporal_find import ExistingServer, Program, find_temporal

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
READY_S, RECOVERY_S, CALL_S = 240.0, 180.0, 120.0
FLEET = "sim:hosts=3,vms=4"


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """A folder, a port and a Temporal that nobody else uses; nothing is downloaded or built."""
    try:
        found = find_temporal(os.environ, print, getters=())
    except Unavailable as missing:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"run `make setup` first: {missing.detail}")
    given = {name: value for name, value in os.environ.items() if "HOLDFAST_" not in name}
    given |= {"HOLDFAST_VAR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    given["HOLDFAST_API_PORT"] = str(usable_port("127.0.0.1", 0))
    if isinstance(found, ExistingServer):
        return given | {"HOLDFAST_TEMPORAL_ADDRESS": found.address}
    return given | {"PATH": _as_temporal(found, tmp_path) + os.pathsep + given["PATH"]}


def _as_temporal(found: Program, folder: Path) -> str:
    (folder / "bin").mkdir()
    (folder / "bin" / "temporal").symlink_to(found.path)
    return str(folder / "bin")


class Fleet:
    """The engine of a folder, asked by the command line alone."""

    def __init__(self, env: dict[str, str]) -> None:
        self._env = env

    def run(self, *words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "cli.main", *words],
            env=self._env,
            cwd=self._env["HOLDFAST_VAR"],
            capture_output=True,
            text=True,
            timeout=CALL_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def hosts(self) -> dict[str, Any]:
        return {
            host["name"]: host
            for host in json.loads(self.run("lab", "status", "-o", "json"))["hosts"]
        }

    def guests(self) -> list[str]:
        return sorted(name for host in self.hosts().values() for name in host["guests"])


@contextmanager
def up(env: dict[str, str]) -> Iterator[Fleet]:
    """A running engine with its fleet; ended by SIGTERM, and then it must have ended well."""
    output = Path(env["HOLDFAST_VAR"]) / "up.out"
    with output.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "cli.main", "up", "--fleet", FLEET],
            env=env,
            cwd=env["HOLDFAST_VAR"],
            stdout=file,
            stderr=file,
        )
    try:
        until(_said(output, process), READY_S, "the fleet stands")
        assert "error" not in output.read_text()
        yield Fleet(env)
        process.terminate()
        assert process.wait(CALL_S) == 0
    finally:
        process.kill()
        process.wait()


def _said(output: Path, process: subprocess.Popen[bytes]) -> Callable[[], bool]:
    def said() -> bool:
        assert process.poll() is None, output.read_text()
        return "Ctrl-C ends it" in output.read_text()

    return said


@pytest.mark.timeout(900)
def test_vms_of_a_crashed_host_run_again_once_each_and_are_found_after_a_restart(
    env: dict[str, str],
) -> None:
    every = [f"vm-{number}" for number in range(1, 5)]
    with up(env) as fleet:
        assert fleet.guests() == every
        victim = next(name for name, host in fleet.hosts().items() if host["guests"])
        fleet.run("lab", "crash", victim)
        assert fleet.guests() != every
        until(lambda: fleet.guests() == every, RECOVERY_S, "every VM runs again, once")
        assert fleet.hosts()[victim]["power"] is False
    left = env["HOLDFAST_VAR"]
    assert not (Path(left) / SOCKET).exists()
    with up(env) as fleet:
        assert fleet.guests() == every
        assert fleet.hosts()[victim]["guests"] == []
