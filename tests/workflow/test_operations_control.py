"""Operations that are cancelled, paused, retried, ended by force or lost, on a real server."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
import pytest_asyncio
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import DeleteWorkflowExecutionRequest

from domain.errors import NoAnswer
from domain.operations import WorkflowState, workflow_id
from engine.actions.operations import (
    CancelOperation,
    PauseOperation,
    ResumeOperation,
    RetryOperation,
)
from engine.actions.vms import StopVm
from engine.backend import Options
from engine.clock import utc_now
from engine.grants import Grants
from engine.queries.operations import GetOperation
from engine.sweeper import Sweeper
from engine.views import OperationView
from tests.fakes import Gate
from tests.workflow.bench import PERSON, Bench, bench, quick
from tests.workflow.scenarios import cancel_is_known
from worker.temporal_client import TemporalWorkflows

pytestmark = pytest.mark.workflow

LATER = timedelta(hours=1)


@pytest_asyncio.fixture
async def idle_engine(
    temporal_address: str, migrated: Path, tmp_path: Path
) -> AsyncIterator[Bench]:
    """An engine without workers: what it accepts is started in Temporal and goes no further."""
    with quick():
        async with bench(temporal_address, migrated, tmp_path) as made:
            await made.build("h1", "h2", "h3")
            yield made


class Stubborn(Gate):
    """A gate whose visitors do not hear that they are cancelled, like a worker that hangs.

    Open at the end of the block, or the worker could not end.
    """

    def __enter__(self) -> "Stubborn":
        """Closed."""
        return self

    def __exit__(self, *_: object) -> None:
        """Open."""
        self.open()

    async def __call__(self) -> None:
        """Wait at the gate, whatever comes."""
        self.reached.set()
        while not self._opened.is_set():
            try:
                await self._opened.wait()
            except asyncio.CancelledError:
                continue


def sweeper(made: Bench, after: timedelta = timedelta()) -> Sweeper:
    """A sweeper that looks at everything, by a clock that goes ahead."""

    def clock() -> datetime:
        return utc_now() + after

    workflows = TemporalWorkflows(made.client)
    return Sweeper(made.database, made.backend, workflows, clock=clock, every_s=0)


async def shown(made: Bench, operation: UUID) -> OperationView:
    view: OperationView = await made.backend.run_query(GetOperation(operation_id=operation))
    return view


async def becomes(made: Bench, operation: UUID, state: str) -> None:
    async def is_so() -> bool:
        return bool((await made.operation(operation))["state"] == state)

    await made.until(is_so, f"operation {operation} never became {state}")


async def lose(made: Bench, operation: UUID) -> None:
    """Make Temporal forget an operation's first workflow."""
    wid = workflow_id(operation, 1)
    request = DeleteWorkflowExecutionRequest(
        namespace=made.client.namespace, workflow_execution=WorkflowExecution(workflow_id=wid)
    )
    await made.client.workflow_service.delete_workflow_execution(request)
    workflows = TemporalWorkflows(made.client)

    async def forgotten() -> bool:
        return await workflows.describe(wid) is WorkflowState.UNKNOWN

    await made.until(forgotten, "Temporal never forgot the workflow")


async def fill(made: Bench) -> None:
    """Leave no room on any host."""
    for name in ("h1", "h2", "h3"):
        await made.add_vm(f"big-{name}", name, memory_mib=1000)


async def test_a_start_cancelled_before_its_workflow_claims_it_never_touches_a_host(
    idle_engine: Bench,
) -> None:
    made = idle_engine
    await made.add_vm("db")
    operation = await made.start("db")
    await made.act(CancelOperation(operation_id=operation))
    row = await made.operation(operation)
    assert (row["state"], row["reason_code"]) == ("cancelled", "cancelled")
    assert await made.rows("entity_lock") == []
    async with made.workers():
        outcome = await made.workflow(operation).result()
    assert outcome["state"] == "cancelled"
    assert (await made.operation(operation))["summary"] == row["summary"]
    assert await made.rows("vm_run") == []
    assert all(host.domains == {} for host in made.centre.hosts.values())


async def test_a_start_that_waits_for_room_is_cancelled_by_its_workflow(engine: Bench) -> None:
    await fill(engine)
    await engine.add_vm("db")
    operation = await engine.start("db")
    await engine.waits(operation, "NO_ROOM")
    await engine.act(CancelOperation(operation_id=operation))
    ended = await engine.ended(operation)
    assert (ended["state"], ended["summary"]) == ("cancelled", "nothing was started")
    assert await engine.broken() == []


async def test_a_start_under_way_is_cancelled_and_says_what_it_took_back(engine: Bench) -> None:
    await engine.add_vm("db")
    gate = engine.centre.before["define"] = Gate()
    operation = await engine.start("db", "h1")
    await gate.reached.wait()
    await engine.act(CancelOperation(operation_id=operation))
    assert (await engine.operation(operation))["state"] == "cancelling"
    await engine.act(CancelOperation(operation_id=operation))
    await cancel_is_known(engine, operation)
    gate.open()
    ended = await engine.ended(operation)
    assert (ended["state"], ended["summary"]) == ("cancelled", "gone from h1")
    assert engine.copies("db") == []
    assert await engine.broken() == []


async def test_a_terminated_workflow_keeps_its_locks_until_its_step_must_have_ended(
    engine: Bench,
) -> None:
    vm = await engine.add_vm("db")
    with Stubborn() as gate:
        engine.centre.before["define"] = gate
        operation = await engine.start("db", "h1")
        await gate.reached.wait()
        await engine.workflow(operation).terminate("by the test")
        assert await sweeper(engine).sweep() == 0
        row = await engine.operation(operation)
        assert (row["state"], row["reason_code"]) == ("waiting", "WORKFLOW_TERMINATED")
        assert [lock["entity_id"] for lock in await engine.rows("entity_lock")] == [vm]
        assert await sweeper(engine, LATER).sweep() == 1
    row = await engine.operation(operation)
    assert (row["state"], row["reason_code"]) == ("cancelled", "terminated")
    assert row["problem"]["code"] == "WORKFLOW_TERMINATED"
    assert row["summary"] == "its reserved place was given back"
    assert await engine.rows("entity_lock") == []
    again = await engine.start("db", "h2")
    assert (await engine.ended(again))["state"] == "succeeded"
    assert engine.copies("db") == ["h2"]


async def test_a_healthy_operation_is_swept_without_effect(engine: Bench) -> None:
    await fill(engine)
    await engine.add_vm("db")
    operation = await engine.start("db")
    await engine.waits(operation, "NO_ROOM")
    assert await sweeper(engine, LATER).sweep() == 0
    assert (await engine.operation(operation))["attempt"] == 1


async def test_a_workflow_lost_before_it_began_is_started_again(idle_engine: Bench) -> None:
    made = idle_engine
    await made.add_vm("db")
    operation = await made.start("db")
    await lose(made, operation)
    assert await sweeper(made).sweep() == 1
    await made.backend.close()
    async with made.workers():
        ended = await made.ended(operation)
    assert (ended["state"], ended["attempt"]) == ("succeeded", 1)
    assert len(made.copies("db")) == 1


async def test_a_workflow_lost_on_its_way_goes_on_in_the_next_try(engine: Bench) -> None:
    await engine.add_vm("db")
    # A step that hears at its next beat that its workflow is gone would be at work no more.
    with Stubborn() as gate:
        engine.centre.before["define"] = gate
        operation = await engine.start("db", "h1")
        await gate.reached.wait()
        (placed,) = await engine.rows("vm_run")
        await lose(engine, operation)
        assert await sweeper(engine).sweep() == 0, "its step is still at work"
        assert (await engine.operation(operation))["reason_code"] == "WORKFLOW_UNKNOWN"
        assert await sweeper(engine, timedelta(hours=1)).sweep() == 1
    ended = await engine.ended(operation)
    assert (ended["state"], ended["attempt"]) == ("succeeded", 2)
    assert engine.copies("db") == ["h1"]
    assert [run["id"] for run in await engine.rows("vm_run")] == [placed["id"]]
    assert await engine.broken() == []


async def test_a_retry_begins_anew_what_its_failure_has_undone(engine: Bench) -> None:
    vm = await engine.add_vm("db")
    engine.centre.refusing[vm] = 1
    operation = await engine.start("db", "h1")
    assert (await engine.ended(operation))["problem"]["code"] == "LIBVIRT_REFUSED"
    await engine.act(RetryOperation(operation_id=operation))
    ended = await engine.ended(operation)
    assert (ended["state"], ended["attempt"], ended["problem"]) == ("succeeded", 2, None)
    view = await shown(engine, operation)
    steps = [(step.attempt, step.name, str(step.state)) for step in view.steps]
    assert steps == [
        (1, "guest.place", "succeeded"),
        (1, "guest.define", "succeeded"),
        (1, "guest.start", "failed"),
        (1, "guest.withdraw", "succeeded"),
        (2, "guest.place", "succeeded"),
        (2, "guest.define", "succeeded"),
        (2, "guest.start", "succeeded"),
    ]
    assert await engine.broken() == []


async def test_a_retry_goes_on_from_the_step_that_failed(engine: Bench) -> None:
    vm = await engine.add_vm("db")
    gate = Gate()
    operation = await half_started(engine, gate)
    row = await engine.operation(operation)
    assert (row["state"], row["problem"]["code"]) == ("needs_attention", "RUN_UNSETTLED")
    assert engine.copies("db") == ["h1"], "the process is there, and nobody has noted it"
    before = engine.centre.hosts["h1"].domains[vm]
    (run,) = await engine.rows("vm_run")
    await engine.act(RetryOperation(operation_id=operation))
    assert (await engine.ended(operation))["state"] == "succeeded"
    assert engine.centre.hosts["h1"].domains[vm] is before, "neither defined nor started anew"
    (same,) = await engine.rows("vm_run")
    assert (same["id"], same["generation"], same["state"]) == (run["id"], 1, "running")
    second = [step.name for step in (await shown(engine, operation)).steps if step.attempt == 2]
    assert second == ["guest.define", "guest.start"], "its place is not looked for again"
    assert engine.centre.copies_max[vm] == 1
    assert await engine.broken() == []


async def half_started(made: Bench, gate: Gate) -> UUID:
    """A start whose workflow was ended between `create()` and the note of it, and swept up."""

    async def lost() -> None:
        await gate()
        raise NoAnswer("HOST_NO_ANSWER", "h1 fell silent")

    made.centre.before["lookup"] = lost
    operation = await made.start("db", "h1")
    await gate.reached.wait()
    await made.workflow(operation).terminate("by the test")
    gate.open()
    assert await sweeper(made, LATER).sweep() == 1
    del made.centre.before["lookup"]
    return operation


async def test_a_stop_is_retried_where_it_failed(engine: Bench) -> None:
    await engine.add_vm("db", "h1")
    gate = engine.centre.before["lookup"] = Gate()
    operation = await engine.stop("db")
    await gate.reached.wait()
    engine.centre.hosts["h1"].reachable = False
    gate.open()
    assert (await engine.ended(operation))["state"] == "failed"
    engine.centre.hosts["h1"].reachable = True
    await engine.until(answers_again(engine, "h1"), "h1 never came back")
    await engine.act(RetryOperation(operation_id=operation))
    ended = await engine.ended(operation)
    assert (ended["state"], ended["attempt"]) == ("succeeded", 2)
    assert engine.copies("db") == []
    assert await engine.broken() == []


def answers_again(made: Bench, host: str) -> Callable[[], Awaitable[bool]]:
    async def is_up() -> bool:
        return bool((await made.host(host))["state"] == "up")

    return is_up


async def test_a_paused_start_stands_still_until_it_is_resumed(engine: Bench) -> None:
    await fill(engine)
    await engine.add_vm("db")
    operation = await engine.start("db")
    await engine.waits(operation, "NO_ROOM")
    await engine.act(PauseOperation(operation_id=operation))
    await becomes(engine, operation, "paused")
    await engine.ended(await engine.stop("big-h2", force=True))
    await engine.workflow(operation).signal("look_again")
    view = await shown(engine, operation)
    assert (view.state, view.blocked_by[0].what) == ("paused", "reason")
    await engine.act(ResumeOperation(operation_id=operation))
    assert (await engine.ended(operation))["state"] == "succeeded"
    assert engine.copies("db") == ["h2"]


async def test_a_paused_start_can_be_cancelled(engine: Bench) -> None:
    await fill(engine)
    await engine.add_vm("db")
    operation = await engine.start("db")
    await engine.waits(operation, "NO_ROOM")
    await engine.act(PauseOperation(operation_id=operation))
    await becomes(engine, operation, "paused")
    await engine.act(CancelOperation(operation_id=operation))
    assert (await engine.ended(operation))["state"] == "cancelled"
    assert await engine.rows("entity_lock") == []


async def test_a_stop_that_waits_for_a_start_runs_after_it(engine: Bench) -> None:
    vm = await engine.add_vm("db")
    gate = engine.centre.before["create"] = Gate()
    start = await engine.start("db", "h1")
    await gate.reached.wait()
    options = Options(lock_wait_s=60)
    receipt = await engine.backend.run_action(StopVm(vm_id=vm), PERSON, options=options)
    stop = receipt.operation_id
    grants = Grants(engine.database, engine.backend)
    assert await grants.grant() == 0
    view = await shown(engine, stop)
    assert [(block.what, block.operation_id) for block in view.blocked_by] == [("lock", start)]
    gate.open()
    assert (await engine.ended(start))["state"] == "succeeded"
    assert await grants.grant() == 1
    assert (await engine.ended(stop))["state"] == "succeeded"
    assert engine.copies("db") == []
    assert await engine.broken() == []
