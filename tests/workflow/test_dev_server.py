"""The supervised dev server against the real program: starts, survives, and leaves nothing."""

import asyncio
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from temporalio.api.workflowservice.v1 import GetClusterInfoRequest
from temporalio.client import Client, WorkflowExecutionStatus

from domain.errors import Conflict, Unavailable
from worker import temporal_server
from worker.temporal_get import ROOT
from worker.temporal_server import DevServer, DevServerOptions, running_temporal
from worker.warmup import warm_up

pytestmark = pytest.mark.workflow

WAIT_S = 60.0
EVERY_S = 0.05


def options(program: Path, folder: Path, port: int | None = None) -> DevServerOptions:
    return DevServerOptions(
        program=program, database=folder / "t.db", log=folder / "log" / "t.log", port=port
    )


async def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < deadline, "it did not come true in time"
        await asyncio.sleep(EVERY_S)


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


async def start_forgotten_workflow(address: str) -> str:
    """A workflow that nobody works on: it stays as long as the server's data does."""
    workflow_id = f"kept/{uuid4()}"
    client = await Client.connect(address)
    await client.start_workflow("Unknown", id=workflow_id, task_queue="nobody")
    return workflow_id


async def status(address: str, workflow_id: str) -> WorkflowExecutionStatus | None:
    client = await Client.connect(address)
    return (await client.get_workflow_handle(workflow_id).describe()).status


async def test_a_server_that_was_killed_comes_back_with_its_data(
    temporal_program: Path, tmp_path: Path
) -> None:
    async with DevServer(options(temporal_program, tmp_path)) as server:
        address, ui_url, first = server.address, server.ui_url, server.pid
        workflow_id = await start_forgotten_workflow(address)
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await until(lambda: server.restarts == 1)
        assert (server.address, server.ui_url) == (address, ui_url)
        assert server.pid not in (None, first)
        assert await status(address, workflow_id) == WorkflowExecutionStatus.RUNNING
        await warm_up(await Client.connect(address))


async def test_a_client_of_before_the_kill_works_after_it(
    temporal_program: Path, tmp_path: Path
) -> None:
    async with DevServer(options(temporal_program, tmp_path)) as server:
        client = await Client.connect(server.address)
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        await until(lambda: server.restarts == 1)
        await warm_up(client)


async def test_a_server_that_hangs_is_replaced(
    temporal_program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(temporal_server, "CHECK_EVERY_S", 0.2)
    monkeypatch.setattr(temporal_server, "CHECK_WITHIN", timedelta(seconds=1))
    monkeypatch.setattr(temporal_server, "SILENT_LIMIT_S", 5.0)
    monkeypatch.setattr(temporal_server, "STOP_WITHIN_S", 1.0)
    async with DevServer(options(temporal_program, tmp_path)) as server:
        first = server.pid
        assert first is not None
        os.kill(first, signal.SIGSTOP)
        await until(lambda: server.restarts == 1)
        assert not is_running(first)
        await warm_up(await Client.connect(server.address))


async def test_the_next_server_on_the_same_file_knows_the_workflows_of_the_last(
    temporal_program: Path, tmp_path: Path
) -> None:
    async with DevServer(options(temporal_program, tmp_path)) as server:
        workflow_id = await start_forgotten_workflow(server.address)
        pid = server.pid
    assert pid is not None
    assert not is_running(pid)
    async with DevServer(options(temporal_program, tmp_path)) as server:
        assert await status(server.address, workflow_id) == WorkflowExecutionStatus.RUNNING


async def test_the_server_does_not_outlive_a_parent_that_is_killed(
    temporal_program: Path, tmp_path: Path
) -> None:
    script = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from worker.temporal_server import DevServer, DevServerOptions\n"
        "async def main() -> None:\n"
        "    program, folder = map(Path, sys.argv[1:])\n"
        "    options = DevServerOptions(program, folder / 't.db', folder / 't.log')\n"
        "    async with DevServer(options) as server:\n"
        "        print(server.pid, flush=True)\n"
        "        await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    command = [sys.executable, "-c", script, str(temporal_program), str(tmp_path)]
    parent = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert parent.stdout is not None
        pid = int(await parent.stdout.readline())
        assert is_running(pid)
    finally:
        parent.kill()
        await parent.wait()
    await until(lambda: not is_running(pid))


async def test_the_ui_is_served_and_the_server_reads_neither_our_stdin_nor_our_secrets(
    temporal_program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOLDFAST_SECRET", "s3cret")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "temporal").symlink_to(temporal_program)
    env = {"PATH": str(tmp_path / "bin"), "HOLDFAST_VAR": str(tmp_path)}
    async with running_temporal(tmp_path, env, print) as endpoint:
        assert endpoint.ui_url is not None
        assert endpoint.server is not None
        answer = await asyncio.to_thread(urllib.request.urlopen, endpoint.ui_url)
        with answer:
            assert answer.status == 200
        child = Path(f"/proc/{endpoint.server.pid}")
        assert (child / "fd" / "0").readlink() == Path("/dev/null")
        assert b"s3cret" not in (child / "environ").read_bytes()


async def test_a_server_that_someone_else_runs_is_used_and_left_alone(
    temporal_address: str, tmp_path: Path
) -> None:
    env = {"HOLDFAST_TEMPORAL_ADDRESS": temporal_address}
    async with running_temporal(tmp_path, env, print) as endpoint:
        assert (endpoint.address, endpoint.server) == (temporal_address, None)
    client = await Client.connect(temporal_address)
    info = await client.workflow_service.get_cluster_info(GetClusterInfoRequest())
    assert info.server_version
    assert os.listdir(tmp_path) == []


async def test_a_port_that_is_taken_is_refused_before_anything_is_started(
    temporal_address: str, temporal_program: Path, tmp_path: Path
) -> None:
    taken = int(temporal_address.rpartition(":")[2])
    with pytest.raises(Conflict) as refused:
        DevServer(options(temporal_program, tmp_path, port=taken))
    assert refused.value.code == "TEMPORAL_PORT_TAKEN"
    assert str(taken) in refused.value.detail


async def test_a_server_that_cannot_start_says_why_and_where_to_read_on(
    temporal_program: Path, tmp_path: Path
) -> None:
    (tmp_path / "t.db").write_text("this is no database\n" * 100)
    with pytest.raises(Unavailable) as failed:
        async with DevServer(options(temporal_program, tmp_path)):
            pass
    assert failed.value.code == "TEMPORAL_DID_NOT_START"
    assert "not a database" in failed.value.detail
    assert str(tmp_path / "log" / "t.log") in failed.value.next_step
