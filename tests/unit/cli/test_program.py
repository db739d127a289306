"""The program as a whole: quick to start, and ended by a real interrupt."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import ORDER, app
from cli.nouns import cluster
from domain.inventory import VirtType
from domain.profiles import Profile
from tests.unit.cli.fake_engine import Desk, operation, plain, uid

pytestmark = pytest.mark.unit

ROOT = Path(__file__).resolve().parents[3]
LIMIT_S = 60


def test_help_names_every_noun_and_process(desk: Desk) -> None:
    result = desk.run("--help")
    assert result.exit_code == 0
    listed = [line.split()[0] for line in result.stdout.splitlines() if line.startswith("  ")]
    assert [name for name in listed if name in ORDER] == list(ORDER)


@pytest.mark.parametrize(
    "words",
    [
        *(["--help"], ["lab", "--help"], ["worker", "--help"]),
        *([noun] for noun in ("cluster", "host", "vm", "op", "incident", "fence", "event")),
    ],
)
def test_help_of_each_command_needs_no_engine(words: list[str]) -> None:
    result = CliRunner().invoke(app, words)
    assert result.exit_code in (0, 2)
    assert "Usage: " in result.output
    assert "Commands:" in result.output or "Options:" in result.output


def test_starting_does_not_load_what_only_some_commands_need() -> None:
    code = "import sys, cli.main; print(' '.join(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S
    )
    heavy = {"httpx2", "pydantic", "rich", "fastapi", "sqlalchemy", "temporalio", "libvirt", "api"}
    assert done.returncode == 0, done.stderr
    assert heavy & set(done.stdout.split()) == set()


def test_the_choices_of_options_are_the_domain_s() -> None:
    assert [p.value for p in cluster.Profile] == [p.value for p in Profile]
    assert [v.value for v in cluster.VirtType] == [v.value for v in VirtType]


def test_a_defect_shows_no_local_variables() -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-c"),
            "import cli.nouns.vm, cli.main\n"
            "def broken(self): hidden = 'hunter2'; raise RuntimeError('defect')\n"
            "cli.session.Session.api = property(broken)\n"
            "cli.main.main()",
            *("vm", "list"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 1
    assert "RuntimeError: defect" in done.stderr
    assert "hunter2" not in done.stderr
    assert "│" not in done.stderr, "a pretty traceback would print the locals' values"


@contextmanager
def engine_that_never_ends(asked: threading.Event) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(plain(operation("running"))).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            asked.set()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join(LIMIT_S)
        server.server_close()


def test_control_c_ends_the_watching_and_not_the_operation(tmp_path: Path) -> None:
    asked = threading.Event()
    env = os.environ | {"HOLDFAST_VAR": str(tmp_path), "HOLDFAST_TOKEN": "t0ken"}
    command = [sys.executable, "-m", "cli.main", "op", "watch", str(uid("operation"))]
    with engine_that_never_ends(asked) as url:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=env | {"HOLDFAST_URL": url},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # Whoever runs the tests in the background may have had them ignore it.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        try:
            assert process.stderr is not None
            assert asked.wait(LIMIT_S)
            # The first line of progress: from here on the watching is under way.
            first = process.stderr.readline()
            process.send_signal(signal.SIGINT)
            out, rest = process.communicate(timeout=LIMIT_S)
        finally:
            process.kill()
            process.wait()
    assert process.returncode == 130, first + rest
    assert out == ""
    assert rest.splitlines()[-1] == f"  next: holdfast op watch {uid('operation')}"
    assert "Traceback" not in rest
