"""Exactly one workflow for each accepted operation, whatever dies or is away meanwhile."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest

from engine.actions.vms import StartVm
from engine.backend import Backend
from engine.registry import all_actions, all_queries
from simulator.no_secrets import NoSecrets
from tests.workflow.accepting import AFTER_COMMIT, AFTER_START
from tests.workflow.bench import PERSON, Bench, bench, quick, relaying
from worker.temporal_get import ROOT
from worker.temporal_server import DevServer, DevServerOptions

pytestmark = pytest.mark.workflow

TRIES = 2
"""How often each start is tried in vain, at least, before Temporal is back."""


async def started_workflows(made: Bench) -> list[str]:
    """The ids of all workflows that Temporal knows, once it lists as many as were accepted."""
    rows = [row for row in await made.rows("operation") if row["workflow"]]
    found: list[str] = []

    async def listed() -> bool:
        nonlocal found
        found = [item.id async for item in made.client.list_workflows()]
        return len(found) >= len(rows)

    await made.until(listed, "Temporal never listed every workflow")
    return found


async def accepted(made: Bench, vm: str) -> UUID:
    """A start that is accepted and that nobody has delivered for sure; the operation."""
    receipt = await made.backend.run_action(StartVm(vm_id=made.vms[vm]), PERSON)
    return receipt.operation_id


async def the_one_start(made: Bench) -> UUID:
    """The operation of the one accepted start."""
    found = [row["id"] for row in await made.rows("operation") if row["kind"] == "vm.start"]
    assert len(found) == 1
    operation: UUID = found[0]
    return operation


@pytest.mark.parametrize("when", [AFTER_COMMIT, AFTER_START])
async def test_an_api_that_is_killed_around_the_start_loses_and_doubles_nothing(
    engine: Bench, when: str
) -> None:
    vm = await engine.add_vm("db")
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.workflow.accepting"),
        *(engine.client.service_client.config.target_host, engine.client.namespace),
        *(engine.database.url, str(vm), when),
        cwd=ROOT,
        stdout=asyncio.subprocess.DEVNULL,
    )
    assert await child.wait() == -signal.SIGKILL
    operation = await the_one_start(engine)
    async with relaying(engine):
        assert (await engine.ended(operation))["state"] == "succeeded"
    assert await started_workflows(engine) == [f"op/{operation}/1"]
    assert len(engine.copies("db")) == 1
    assert await engine.broken() == []


async def test_relays_that_run_beside_each_other_start_everything_once(engine: Bench) -> None:
    names = [f"vm-{number}" for number in range(40)]
    for name in names:
        await engine.add_vm(name, memory_mib=16)
    secrets = NoSecrets()
    engine.backend = Backend(engine.database, all_actions(secrets, secrets), all_queries())
    operations = [await accepted(engine, name) for name in names]
    waiting = [row for row in await engine.rows("outbox") if row["done_at"] is None]
    assert len(waiting) == len(names)
    async with relaying(engine, 3):
        for operation in operations:
            assert (await engine.ended(operation))["state"] == "succeeded"
    assert sorted(await started_workflows(engine)) == sorted(f"op/{o}/1" for o in operations)
    assert [len(engine.copies(name)) for name in names] == [1] * len(names)
    assert await engine.broken() == []


@asynccontextmanager
async def running(made: Bench) -> AsyncIterator[None]:
    """Workers and two relays."""
    async with made.workers(), relaying(made, 2):
        yield


async def states_of(made: Bench, operations: list[UUID]) -> set[str]:
    return {row["state"] for row in await made.rows("operation") if row["id"] in operations}


async def accept_while_temporal_is_away(made: Bench, names: list[str]) -> list[UUID]:
    """Accept a start for each VM, and stay without Temporal until each was tried in vain."""
    for name in names:
        await made.add_vm(name, memory_mib=16)
    operations = await asyncio.gather(*(accepted(made, name) for name in names))

    async def tried() -> bool:
        waiting = [row for row in await made.rows("outbox") if row["done_at"] is None]
        return len(waiting) == len(names) and all(row["tries"] >= TRIES for row in waiting)

    await made.until(tried, "the relays never tried again")
    return operations


async def test_what_is_accepted_while_temporal_is_down_runs_once_when_it_is_back(
    temporal_program: Path, migrated: Path, tmp_path: Path
) -> None:
    options = DevServerOptions(
        program=temporal_program, database=tmp_path / "t.db", log=tmp_path / "t.log"
    )
    names = [f"vm-{number}" for number in range(5)]
    async with AsyncExitStack() as lasting, AsyncExitStack() as working:
        lasting.enter_context(quick())
        async with DevServer(options) as server:
            made = await lasting.enter_async_context(bench(server.address, migrated, tmp_path))
            await made.build("h1", "h2", "h3")
            await working.enter_async_context(running(made))
            await made.add_vm("before")
            before = await made.ended(await made.start("before"))
        operations = await accept_while_temporal_is_away(made, names)
        assert await states_of(made, operations) == {"pending"}
        async with DevServer(replace(options, port=server.port)):
            for operation in operations:
                assert (await made.ended(operation))["state"] == "succeeded"
            expected = [f"op/{o}/1" for o in (before["id"], *operations)]
            assert sorted(await started_workflows(made)) == sorted(expected)
            assert [len(made.copies(name)) for name in names] == [1] * len(names)
            assert await made.broken() == []
            await working.aclose()
