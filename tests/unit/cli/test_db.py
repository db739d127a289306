"""`holdfast db`: addresses are checked and kept secret, and no engine is copied while it runs."""

import asyncio
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from cli.claims import only_engine
from cli.failures import Exit
from cli.nouns.db import shown
from store import migrate
from tests.unit.cli.fake_engine import Desk

pytestmark = pytest.mark.unit

ROOT = Path(__file__).resolve().parents[3]
SECRET = "postgresql+asyncpg://holdfast:hunter2@127.0.0.1:1/holdfast"


@pytest.fixture(autouse=True)
def no_database_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOLDFAST_DATABASE_URL", raising=False)


def url(path: Path) -> str:
    return f"sqlite+aiosqlite:///{path}"


def test_without_an_address_the_engines_own_database_is_upgraded_and_shown(
    desk: Desk, tmp_path: Path
) -> None:
    assert desk.run("db", "upgrade").exit_code == 0
    assert (tmp_path / "holdfast.db").exists()
    result = desk.run("db", "current", "-o", "json")
    assert json.loads(result.stdout) == {
        "revision": migrate.newest(),
        "newest": migrate.newest(),
    }


def test_asking_for_the_revision_of_a_missing_file_makes_no_file(
    desk: Desk, tmp_path: Path
) -> None:
    result = desk.run("db", "current", url(tmp_path / "missing.db"))
    assert result.stdout.startswith("none (")
    assert list(tmp_path.iterdir()) == []


def test_a_copy_tells_what_was_copied_and_how_to_go_on(desk: Desk, tmp_path: Path) -> None:
    asyncio.run(migrate.upgrade(url(tmp_path / "one.db")))
    result = desk.run("db", "copy", url(tmp_path / "one.db"), url(tmp_path / "two.db"))
    assert result.exit_code == 0, result.stderr
    assert "copied and compared 0 rows" in result.stderr
    assert "HOLDFAST_DATABASE_URL" in result.stderr
    assert "secret.key" in result.stderr
    assert (tmp_path / "two.db").exists()


def test_only_its_owner_reads_a_new_database_and_an_old_one_keeps_its_mode(
    desk: Desk, tmp_path: Path
) -> None:
    old, new = tmp_path / "old.db", tmp_path / "new.db"
    old.touch()
    old.chmod(0o640)
    before = os.umask(0o022)
    try:
        asyncio.run(migrate.upgrade(url(old)))
        result = desk.run("db", "copy", url(old), url(new))
    finally:
        os.umask(before)
    assert result.exit_code == 0, result.stderr
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.glob("*.db*")}
    assert modes.pop("old.db") == 0o640
    assert modes.pop("new.db") == 0o600
    assert {mode for name, mode in modes.items() if name.startswith("new")} <= {0o600}


def test_a_file_that_is_not_there_is_not_found(desk: Desk, tmp_path: Path) -> None:
    result = desk.run("db", "copy", url(tmp_path / "one.db"), url(tmp_path / "two.db"))
    assert result.exit_code == Exit.NOT_FOUND
    assert "DATABASE_NOT_FOUND" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("running", ["source", "target", "own"])
def test_a_copy_is_refused_while_an_engine_runs_in_a_folder_of_the_databases(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, running: str
) -> None:
    folders = {name: tmp_path / name for name in ("source", "target", "own")}
    for folder in folders.values():
        folder.mkdir()
    asyncio.run(migrate.upgrade(url(folders["source"] / "a.db")))
    monkeypatch.setenv("HOLDFAST_VAR", str(folders["own"]))
    monkeypatch.setenv("HOLDFAST_DATABASE_URL", url(folders["source"] / "a.db"))
    with only_engine(folders[running]):
        result = desk.run(
            "db", "copy", url(folders["source"] / "a.db"), url(folders["target"] / "b.db")
        )
    assert result.exit_code == Exit.CONFLICT
    assert "ENGINE_RUNNING" in result.stderr
    assert not (folders["target"] / "b.db").exists()


def test_a_password_in_the_arguments_is_refused_and_not_repeated(desk: Desk) -> None:
    result = desk.run("db", "upgrade", SECRET)
    assert result.exit_code == Exit.USAGE
    assert "PASSWORD_IN_ARGUMENTS" in result.stderr
    assert "hunter2" not in result.output + result.stderr


@pytest.mark.parametrize("given", ["mysql://x:hunter2@y/z", "hunter2", "://"])
def test_an_unusable_address_is_refused_and_not_repeated(desk: Desk, given: str) -> None:
    result = desk.run("db", "current", given)
    assert result.exit_code == Exit.USAGE
    assert "DATABASE_URL_INVALID" in result.stderr
    assert "hunter2" not in result.output + result.stderr


def test_a_variable_that_is_not_set_is_named(desk: Desk) -> None:
    result = desk.run("db", "current", "env:NO_SUCH_VARIABLE")
    assert result.exit_code == Exit.USAGE
    assert "NO_SUCH_VARIABLE" in result.stderr


def test_an_address_read_from_a_variable_is_used_and_its_password_is_never_shown() -> None:
    environment = os.environ | {"ELSEWHERE": SECRET}
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", "db", "upgrade", "env:ELSEWHERE"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == Exit.UNREACHABLE, done.stderr
    assert "DATABASE_UNAVAILABLE" in done.stderr
    assert "hunter2" not in done.stdout + done.stderr
    assert "hunter2" not in shown(SECRET)
