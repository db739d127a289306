"""A scene for the monitor's tests: the real store, quick polls."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from domain.profiles import Profile
from store.migrate import upgrade
from tests.unit.worker.monitor_scene import NEVER, SOON, CutDatabase, Scene
from worker import monitor


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("monitor") / "template.db"
    with ThreadPoolExecutor(1) as thread:  # this thread's event loop belongs to the tests
        thread.submit(asyncio.run, upgrade(f"sqlite+aiosqlite:///{path}")).result()
    return path


@pytest.fixture
async def scene(template: Path, tmp_path: Path) -> AsyncIterator[Scene]:
    database = CutDatabase(f"sqlite+aiosqlite:///{shutil.copy(template, tmp_path / 'm.db')}")
    yield await Scene(database).build()
    await database.close()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Quick polls, and silence that never lasts long enough by itself."""
    monkeypatch.setattr(monitor, "TIMINGS", {Profile.BALANCED: NEVER})


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch, patient: None) -> None:
    """Quick polls, and a limit that is reached."""
    monkeypatch.setattr(monitor, "TIMINGS", {Profile.BALANCED: SOON})
