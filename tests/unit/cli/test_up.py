"""`holdfast up`: what it must have to itself, and how it keeps its processes."""

import errno
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

import cli.up
from cli.claims import LOCK_FILE, only_engine, usable_port
from cli.up import Engine, running_engine
from domain.errors import Conflict, Invalid, Unavailable
from lab.processes import until
from worker.settings import Settings
from worker.temporal_server import Endpoint

pytestmark = pytest.mark.unit

ROOT = Path(__file__).resolve().parents[3]
LIMIT_S = 60
NOBODY = Endpoint(address="127.0.0.1:1", ui_url=None, server=None)

ROLE = """
import http.server, os, sys
names = ("HOLDFAST_DATABASE_URL", "HOLDFAST_TEMPORAL_ADDRESS")
print("given", [os.environ[name] for name in names], flush=True)
class Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
port = int(os.environ["HOLDFAST_API_PORT"]) if sys.argv[1] == "api" else 0
http.server.HTTPServer(("127.0.0.1", port), Ready).serve_forever()
"""


def fake_role(role: str) -> list[str]:
    return [sys.executable, "-c", ROLE, role]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(var=tmp_path, api_port=usable_port("127.0.0.1", 0))


@contextmanager
def listener() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield int(server.getsockname()[1])


def left_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


@asynccontextmanager
async def refused(settings: Settings, said: list[str]) -> AsyncIterator[None]:
    """The engine does not start, and the block judges what it left behind."""
    with pytest.raises(Conflict) as conflict:
        async with running_engine(settings, said.append):
            pytest.fail("it started")
    said.append(conflict.value.code)
    assert conflict.value.next_step
    yield


async def test_a_second_engine_in_the_folder_is_refused_before_anything_starts(
    settings: Settings,
) -> None:
    said: list[str] = []
    with only_engine(settings.var):
        async with refused(settings, said):
            assert said == ["ENGINE_RUNNING"]
            assert left_in(settings.var) == [LOCK_FILE]


def test_the_refusal_names_the_process_that_has_the_folder(tmp_path: Path) -> None:
    with (
        only_engine(tmp_path),
        pytest.raises(Conflict, match=str(os.getpid())),
        only_engine(tmp_path),
    ):
        pytest.fail("two engines in one folder")


def test_a_folder_is_free_again_once_its_engine_has_ended(tmp_path: Path) -> None:
    for _turn in range(2):
        with only_engine(tmp_path / "new"):
            assert (tmp_path / "new" / LOCK_FILE).read_text() == f"{os.getpid()}\n"


async def test_a_port_of_another_program_is_named_before_anything_starts(tmp_path: Path) -> None:
    said: list[str] = []
    with listener() as port:
        async with refused(Settings(var=tmp_path, api_port=port), said):
            assert said == ["API_PORT_TAKEN"]
            assert left_in(tmp_path) == [LOCK_FILE]


def test_an_address_that_is_not_ours_is_told_apart_from_a_taken_port() -> None:
    with pytest.raises(Invalid) as wrong:
        usable_port("192.0.2.1", 8420)
    assert wrong.value.code == "API_ADDRESS_UNUSABLE"
    assert "192.0.2.1" in wrong.value.detail


async def test_processes_that_cannot_be_started_now_are_tried_again(settings: Settings) -> None:
    tried: list[str] = []

    def command(role: str) -> list[str]:
        tried.append(role)
        if tried.count(role) == 1:
            raise OSError(errno.EMFILE, "too many open files")
        return fake_role(role)

    engine = Engine(settings, NOBODY, print, command)
    try:
        await engine.start()
        assert set(cli.up.ROLES) == set(tried)
        assert tried.count("api") == 2
    finally:
        await engine.stop()
    assert engine.pids == {}


async def test_each_of_several_monitors_is_a_process_with_a_log_of_its_own(
    settings: Settings,
) -> None:
    more = settings.model_copy(update={"monitors": 3})
    engine = Engine(more, NOBODY, print, fake_role)
    try:
        await engine.start()
        assert set(engine.roles) - set(cli.up.ROLES) == {"monitor-2", "monitor-3"}
        assert set(engine.pids) == set(engine.roles)
        assert (settings.var / "log" / "monitor-3.log").exists()
    finally:
        await engine.stop()
    assert engine.pids == {}


async def test_the_settings_reach_the_processes_whatever_the_environment_says(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOLDFAST_DATABASE_URL", "postgresql+asyncpg://real/holdfast")
    monkeypatch.setenv("HOLDFAST_TEMPORAL_ADDRESS", "real:7233")
    engine = Engine(settings, NOBODY, print, fake_role)
    try:
        await engine.start()
    finally:
        await engine.stop()
    log = settings.var / "log" / "api.log"
    until(lambda: "given" in log.read_text(), LIMIT_S, "the process's words are in its log")
    assert log.read_text().splitlines()[0] == "given ['', '']"


async def test_an_engine_that_started_nothing_can_be_stopped(settings: Settings) -> None:
    engine = Engine(settings, NOBODY, print, fake_role)
    await engine.stop()
    assert engine.pids == {}


async def test_settings_without_a_temporal_server_hide_the_environment_s(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def no_temporal(_var: Path, env: dict[str, str], *_: object, **__: object) -> None:
        asked.append(env["HOLDFAST_TEMPORAL_ADDRESS"])
        raise Unavailable("TEMPORAL_MISSING", "none here")

    monkeypatch.setenv("HOLDFAST_TEMPORAL_ADDRESS", "real:7233")
    monkeypatch.setattr(cli.up, "running_temporal", no_temporal)
    with pytest.raises(Unavailable):
        async with running_engine(settings, print):
            pytest.fail("it started")
    assert asked == [""]


def test_the_supervisor_itself_logs_at_the_level_of_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    levels: list[str] = []

    def set_up_logs(level: str, _process: str) -> None:
        levels.append(level)
        raise Unavailable("ENOUGH", "seen what was to be seen")

    monkeypatch.setenv("HOLDFAST_VAR", str(tmp_path))
    monkeypatch.setenv("HOLDFAST_LOG_LEVEL", "error")
    monkeypatch.setattr(cli.up, "set_up_logs", set_up_logs)
    monkeypatch.setattr(cli.up, "exit_process", sys.exit)
    with pytest.raises(SystemExit, match="1"):
        cli.up.run_up()
    assert levels == ["error"]


def role(tmp_path: Path, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cli.processes", "api"],
        cwd=ROOT,
        env=os.environ | {"HOLDFAST_VAR": str(tmp_path)} | more,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )


def test_a_process_with_bad_settings_says_so_in_one_line(tmp_path: Path) -> None:
    done = role(tmp_path, HOLDFAST_API_PORT="many")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: HOLDFAST_API_PORT: ")
    assert line.endswith("(SETTINGS_INVALID); correct or unset these variables")


def test_a_process_whose_database_has_no_such_driver_ends_without_a_trace(tmp_path: Path) -> None:
    done = role(tmp_path, HOLDFAST_DATABASE_URL="no database")
    assert done.returncode == 1
    assert "process failed" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
