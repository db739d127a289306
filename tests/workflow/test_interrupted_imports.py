"""Imports cut off between rows and mark, and what then becomes of their guest: one copy, always.

Each ends with the host silent, its recovery cancelled by a person, and the host activated: that is
where a copy that the engine takes for gone would be started a second time.
"""

from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.operations import OperationState, Outcome, Problem
from engine.actions.operations import CancelOperation, RetryOperation
from engine.closing import close_operation
from engine.sweeper import Sweeper
from store.rows import Row
from tests.fakes import Bmc, Gate
from tests.faults import Fault
from tests.replay.golden import HAPPY
from tests.workflow.bench import Bench, bench, quick
from tests.workflow.imports import begin
from tests.workflow.trials import Case, killed
from tests.workflow.watcher import now
from worker.temporal_client import TemporalWorkflows

pytestmark = [pytest.mark.workflow, pytest.mark.timeout(180)]

HELD_AT = {"recorded": "adopt", "marked": "lookup"}
"""The call before which an import is held, by how far it has come there."""


async def held(engine: Bench, so_far: str) -> tuple[UUID, UUID, Gate]:
    """An import that stands before one call of its last step; its guest, and what holds it."""
    await engine.add_vm("other", "h1", memory_mib=400)  # else a second copy would fit nowhere else
    guest = engine.centre.add_foreign(engine.centre.hosts["h1"], "old")
    gate = engine.centre.before[HELD_AT[so_far]] = Gate()
    operation = await begin(engine, guest)
    await gate.reached.wait()
    return operation, guest, gate


async def falls_silent(engine: Bench) -> UUID:
    """Nobody hears the host any more, nor its controller; the recovery, which waits for it."""
    h1 = engine.centre.hosts["h1"]
    h1.reachable, h1.bmc = False, Bmc.DEAD
    recovery = await engine.report("h1")
    await engine.waits(recovery, "BMC_NO_ANSWER")
    return recovery


async def comes_back(engine: Bench, recovery: UUID) -> Row:
    """A person cancels the recovery, the host answers, and is activated; the activation."""
    await engine.act(CancelOperation(operation_id=recovery))
    await engine.ended(recovery)
    h1 = engine.centre.hosts["h1"]
    engine.watcher.blind.add("h1")  # heard before it is activated, it would return by itself
    h1.reachable, h1.bmc = True, Bmc.OK
    accepted = await engine.activate("h1")
    engine.watcher.blind.discard("h1")
    activation = await engine.ended(accepted)
    await engine.idle()
    return activation


async def swept(engine: Bench, operation: UUID) -> Row:
    """An operation once the sweeper has closed it."""
    workflows = TemporalWorkflows(engine.client)
    sweeper = Sweeper(engine.database, engine.backend, workflows, every_s=0)

    async def closed() -> bool:
        await sweeper.sweep()
        row = await engine.operation(operation)
        return row["state"] in ("cancelled", "failed", "needs_attention")

    await engine.until(closed, "the sweeper never closed it")
    return await engine.operation(operation)


async def runs_once(engine: Bench, guest: UUID) -> None:
    """The guest is where it was found, never had a second copy, and no invariant is broken."""
    assert engine.centre.copies(guest) == ["h1"]
    assert engine.centre.copies_max[guest] == 1
    assert await engine.broken() == []


@pytest.mark.parametrize("so_far", HELD_AT)
async def test_an_import_that_a_recovery_takes_over_leaves_a_foreign_guest(
    engine: Bench, so_far: str
) -> None:
    operation, guest, gate = await held(engine, so_far)
    recovery = await falls_silent(engine)
    row = await engine.operation(operation)
    assert (row["state"], row["reason_code"]) == ("cancelled", "superseded")
    assert [vm["name"] for vm in await engine.rows("vm")] == ["other"]
    del engine.centre.before[HELD_AT[so_far]]
    gate.open()
    activation = await comes_back(engine, recovery)
    assert (activation["state"], "found gone" in activation["summary"]) == ("succeeded", False)
    await engine.workflow(operation).result()
    await runs_once(engine, guest)
    assert engine.centre.hosts["h1"].domains[guest].generation is None, "its mark went, too"


async def test_an_import_terminated_before_its_mark_leaves_its_guest_to_its_host(
    engine: Bench,
) -> None:
    operation, guest, gate = await held(engine, "recorded")
    await engine.workflow(operation).terminate()
    row = await swept(engine, operation)
    assert (row["state"], row["problem"]["code"]) == ("needs_attention", "GUEST_MARKED")
    del engine.centre.before["adopt"]
    gate.open()
    activation = await comes_back(engine, await falls_silent(engine))
    assert activation["summary"].endswith("left alone old")
    await runs_once(engine, guest)
    await retried(engine, operation, guest)


async def test_an_import_terminated_after_its_mark_says_so_and_can_be_tried_again(
    engine: Bench,
) -> None:
    operation, guest, gate = await held(engine, "marked")
    await engine.workflow(operation).terminate()
    row = await swept(engine, operation)
    assert (row["state"], row["problem"]["code"]) == ("needs_attention", "GUEST_MARKED")
    assert [vm["name"] for vm in await engine.rows("vm")] == ["other"]
    del engine.centre.before["lookup"]
    gate.open()
    await comes_back(engine, await falls_silent(engine))
    assert engine.centre.copies(guest) == ["h1"]
    await retried(engine, operation, guest)


async def retried(engine: Bench, operation: UUID, guest: UUID) -> None:
    """The next try takes the guest over after all."""
    await engine.act(RetryOperation(operation_id=operation))
    assert (await engine.ended(operation))["state"] == "succeeded"
    await runs_once(engine, guest)
    assert engine.centre.hosts["h1"].domains[guest].claim == operation


async def test_a_copy_that_an_import_left_unmarked_is_marked_by_the_activation(
    engine: Bench,
) -> None:
    operation, guest, gate = await held(engine, "recorded")
    problem = Problem(code="GIVEN", detail="by the test")
    left = Outcome(operation_id=operation, state=OperationState.FAILED, problem=problem)

    async def close(connection: AsyncConnection) -> None:
        await close_operation(connection, left, now())

    await engine.write(close)  # as if the undo of its rows had failed for good
    recovery = await falls_silent(engine)
    del engine.centre.before["adopt"]
    gate.open()
    await engine.workflow(operation).result()
    activation = await comes_back(engine, recovery)
    assert "kept" in activation["summary"]
    assert "old" in activation["summary"].partition("kept ")[2]
    assert engine.centre.hosts["h1"].domains[guest].claim == operation
    await runs_once(engine, guest)


async def test_a_copy_whose_mark_was_removed_by_hand_refuses_the_activation(
    engine: Bench,
) -> None:
    vm = await engine.add_vm("db", "h1")
    recovery = await falls_silent(engine)
    domain = engine.centre.hosts["h1"].domains[vm]
    domain.generation = domain.running = None
    activation = await comes_back(engine, recovery)
    assert (activation["state"], activation["problem"]["code"]) == ("failed", "COPY_UNMARKED")
    assert (await engine.host("h1"))["state"] == "non_operational"
    assert (engine.copies("db"), engine.centre.copies_max[vm]) == (["h1"], 1)


@pytest.fixture
async def unmanned(temporal_address: str, migrated: Path, tmp_path: Path) -> AsyncIterator[Bench]:
    """An engine with three hosts in service and no worker."""
    with quick():
        async with bench(temporal_address, migrated, tmp_path) as made:
            await made.build("h1", "h2", "h3")
            await made.watcher.start()
            yield made


@pytest.mark.parametrize("fault", [Fault.CRASHES_BEFORE, Fault.CRASHES_AFTER])
@pytest.mark.parametrize("step", ["import.record", "import.adopt"])
async def test_an_import_whose_worker_is_killed_while_its_host_falls_silent_doubles_nothing(
    unmanned: Bench, tmp_path: Path, step: str, fault: Fault
) -> None:
    engine = unmanned
    async with killed(engine, Case(HAPPY["ImportVm"], step, fault), tmp_path) as struck:
        await engine.add_vm("other", "h1", memory_mib=400)
        guest = engine.centre.add_foreign(engine.centre.hosts["h1"], "old")
        operation = await begin(engine, guest)
        await struck.wait()
        recovery = await falls_silent(engine)
        assert (await engine.operation(operation))["reason_code"] == "superseded"
        activation = await comes_back(engine, recovery)
        assert activation["state"] == "succeeded"
        await engine.workflow(operation).result()
        await runs_once(engine, guest)
