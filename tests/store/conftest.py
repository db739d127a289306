"""Databases to test on: SQLite in a file, SQLite in memory, PostgreSQL, MariaDB.

Each worker of a parallel run has its own servers, each test its own database. PostgreSQL copies one
that was migrated once; MariaDB cannot, so there a database is emptied and used again, unless the
test changed its tables.
"""

import asyncio
import os
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing
from itertools import count
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import sqlalchemy as sa

from store.database import Database
from store.migrate import upgrade
from tests.store import mariadb as maria
from tests.store.engine_room import Engine
from tests.store.notes import Notes, create_notes
from tests.store.postgres import Cluster, programs
from tests.store.world import World

TEMPLATE = "holdfast_template"
_numbers = count(1)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    """A running private cluster with a migrated template database."""
    cluster = new_cluster()
    try:
        cluster.start()
        _run(_administer(cluster, f"CREATE DATABASE {TEMPLATE}"))
        _run(upgrade(cluster.url(TEMPLATE)))
        yield cluster
    finally:
        cluster.remove()


@pytest.fixture
def postgres_apart() -> Iterator[Cluster]:
    """A stopped cluster of the test's own, to be started and stopped as it likes."""
    cluster = new_cluster()
    try:
        yield cluster
    finally:
        cluster.remove()


@pytest.fixture(scope="session")
def mariadb() -> Iterator[maria.Server]:
    """A running private MariaDB."""
    server = new_server()
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture
def mariadb_apart() -> Iterator[maria.Server]:
    """A stopped MariaDB of the test's own, to be started and stopped as it likes."""
    server = new_server()
    try:
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file."""
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    _run(upgrade(f"sqlite+aiosqlite:///{path}"))
    return path


@pytest.fixture(params=["sqlite-file", "sqlite-memory", "postgresql", "mariadb"])
def kind(request: pytest.FixtureRequest) -> str:
    """Which database a test runs on; `@pytest.mark.parametrize("kind", ...)` narrows it."""
    chosen: str = request.param
    return chosen


@pytest.fixture
async def empty_url(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a database without tables."""
    if kind == "postgresql":
        cluster: Cluster = request.getfixturevalue("postgres")
        return cluster.url(await new_database(cluster, "template1"))
    if kind == "mariadb":
        server: maria.Server = request.getfixturevalue("mariadb")
        return await server.create(f"empty_{next(_numbers)}")
    return f"sqlite+aiosqlite:///{tmp_path / 'empty.db'}"


@pytest.fixture
async def database(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[Database]:
    """A migrated database of the test's own."""
    if kind == "postgresql":
        cluster: Cluster = request.getfixturevalue("postgres")
        name = await new_database(cluster, TEMPLATE)
        async with _open(cluster.url(name)) as made:
            yield made
        await _administer(cluster, f"DROP DATABASE {name}")
        return
    if kind == "mariadb":
        server: maria.Server = request.getfixturevalue("mariadb")
        async with server.migrated() as url, _open(url) as made:
            yield made
        return
    if kind == "sqlite-file":
        path = tmp_path / "test.db"
        shutil.copy(request.getfixturevalue("sqlite_template"), path)
        async with _open(f"sqlite+aiosqlite:///{path}") as made:
            yield made
        return
    async with _open("sqlite+aiosqlite:///:memory:") as made:
        await _restore(made, request.getfixturevalue("sqlite_template"))
        yield made


@pytest.fixture
async def notes(database: Database) -> Notes:
    """A table of notes, and what stands in it."""
    return await create_notes(database)


@pytest.fixture
async def world(database: Database) -> World:
    """A cluster that hosts, VMs and operations can be added to."""
    return await World(database).build()


@pytest.fixture
def engine(world: World) -> Engine:
    """The engine over the world's database."""
    return Engine(world)


def new_cluster() -> Cluster:
    """A private cluster; skips the test where PostgreSQL is missing, and fails it under CI."""
    where = programs()
    reason = "PostgreSQL's server programs (initdb) are not installed"
    if where is None and os.environ.get("CI") == "true":
        pytest.fail(reason)
    if where is None:
        pytest.skip(reason)
    return Cluster(where)


async def new_database(cluster: Cluster, template: str) -> str:
    """A database of a name of its own, made as a copy of another; its name."""
    name = f"test_{next(_numbers)}"
    await _administer(cluster, f"CREATE DATABASE {name} TEMPLATE {template}")
    return name


def new_server() -> maria.Server:
    """A private MariaDB; skips the test where it is missing, and fails it under CI."""
    program = maria.programs()
    reason = "MariaDB's server (mariadb-server-core) is not installed"
    if program is None and os.environ.get("CI") == "true":
        pytest.fail(reason)
    if program is None:
        pytest.skip(reason)
    return maria.Server(program)


@asynccontextmanager
async def _open(url: str) -> AsyncIterator[Database]:
    database = Database(url)
    try:
        yield database
    finally:
        await database.close()


async def _restore(database: Database, template: Path) -> None:
    with closing(sqlite3.connect(template)) as source:
        statements = [s for s in source.iterdump() if s not in ("BEGIN TRANSACTION;", "COMMIT;")]

    def run(connection: sa.Connection) -> None:
        for statement in statements:
            connection.exec_driver_sql(statement)

    await database.alone(run)


async def _administer(cluster: Cluster, statement: str) -> None:
    connection = await asyncpg.connect(
        host="127.0.0.1", port=cluster.port, user="holdfast", database="postgres"
    )
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def _run(coroutine: Coroutine[Any, Any, None]) -> None:
    # A thread of its own: this one's event loop belongs to the tests.
    run: Callable[[Coroutine[Any, Any, None]], None] = asyncio.run
    with ThreadPoolExecutor(1) as thread:
        thread.submit(run, coroutine).result()
