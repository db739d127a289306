"""One Temporal server for the session, and a client for each test.

The server is the one that `HOLDFAST_TEMPORAL_ADDRESS` names, or a dev server of our own with the
settings that `holdfast up` uses. Tests share it: workflow ids and queues must be unique.
"""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter

from domain.errors import Unavailable
from tests.workflow.bench import Bench, bench, quick, template
from worker.temporal_find import ExistingServer, Program, find_temporal
from worker.temporal_server import DevServer, DevServerOptions


@pytest.fixture(scope="session")
def temporal() -> ExistingServer | Program:
    """What `make setup` has prepared; nothing is downloaded or built in a test."""
    try:
        return find_temporal(os.environ, print, getters=())
    except Unavailable as missing:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"run `make setup` first: {missing.detail}")


@pytest.fixture(scope="session")
def temporal_program(temporal: ExistingServer | Program) -> Path:
    """The program, for tests that run servers of their own."""
    if isinstance(temporal, ExistingServer):
        pytest.skip("HOLDFAST_TEMPORAL_ADDRESS names a server, so there is no program to test")
    return temporal.path


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def temporal_address(
    temporal: ExistingServer | Program, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[str]:
    """HOST:PORT of a server that answers."""
    if isinstance(temporal, ExistingServer):
        yield temporal.address
        return
    folder = tmp_path_factory.mktemp("temporal")
    options = DevServerOptions(
        program=temporal.path, database=folder / "temporal.db", log=folder / "temporal.log"
    )
    async with DevServer(options) as server:
        yield server.address


@pytest_asyncio.fixture
async def temporal_client(temporal_address: str) -> Client:
    """A client that speaks pydantic, connected in the test's own event loop."""
    return await Client.connect(temporal_address, data_converter=pydantic_data_converter)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database file with every table and no row."""
    return await template(tmp_path_factory.mktemp("template"))


@pytest_asyncio.fixture
async def engine(temporal_address: str, migrated: Path, tmp_path: Path) -> AsyncIterator[Bench]:
    """An engine with three hosts in service, watched, and both workers running."""
    with quick():
        async with bench(temporal_address, migrated, tmp_path) as made:
            await made.build("h1", "h2", "h3")
            await made.watcher.start()
            async with made.workers():
                yield made


@pytest_asyncio.fixture
async def engine_uncached(
    temporal_address: str, migrated: Path, tmp_path: Path
) -> AsyncIterator[Bench]:
    """The same with workers that keep no workflow: every task replays its whole history."""
    with quick():
        async with bench(temporal_address, migrated, tmp_path) as made:
            await made.build("h1", "h2", "h3")
            await made.watcher.start()
            async with made.workers(cached=0):
                yield made
