"""Importing a foreign guest on a real server: done, refused, undone; it runs on untouched."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import pytest
from temporalio.client import Client, WorkflowHandle
from temporalio.worker import Worker

from activities.operations import Operations
from domain.context import ActionContext
from domain.operations import OperationState, Outcome, workflow_id
from domain.orders import ImportVmOrder
from domain.profiles import Policy
from tests.fakes import Gate
from tests.import_scene import Scene
from tests.workflow.bench import client_in
from worker.interceptors import StepInterceptor
from worker.parts import sandbox
from workflows import options
from workflows.import_vm import ImportVm

pytestmark = pytest.mark.workflow


class OperationRows:
    """Fits `OperationRecords`: how the operation was closed."""

    def __init__(self) -> None:
        self.closed: list[Outcome] = []

    async def claim(self, operation_id: UUID, attempt: int, run_id: str) -> None:
        """Nobody else wants it."""

    async def wait(self, operation_id: UUID, code: str | None, detail: str) -> None:
        """An import waits for nothing."""

    async def pause(self, operation_id: UUID, paused: bool) -> None:
        """An import is not paused."""

    async def close(self, outcome: Outcome) -> None:
        """Kept."""
        self.closed.append(outcome)


class NoSteps:
    """Fits `Steps`; what is shown of steps is tested elsewhere."""

    async def begin(self, *_step: object) -> None:
        """Not kept."""

    async def renew(self, *_step: object) -> bool:
        """Not kept."""
        return True

    async def finish(self, *_step: object, **_end: object) -> None:
        """Not kept."""


@dataclass
class Engine:
    """A scene whose import runs as a workflow."""

    scene: Scene
    client: Client
    rows: OperationRows

    async def begin(self) -> WorkflowHandle[ImportVm, Outcome]:
        """Start the import."""
        step = self.scene.step
        order = ImportVmOrder(
            operation_id=step.operation_id,
            context=ActionContext(principal="ann", correlation_id="test"),
            policy=Policy(define_deadline_s=1),
            host=step.host,
            guest_id=step.guest_id,
            guest_name="db",
            protected=True,
        )
        return await self.client.start_workflow(
            ImportVm.run,
            order,
            id=workflow_id(step.operation_id, 1),
            task_queue=options.OPERATIONS,
        )

    async def run(self) -> Outcome:
        """Run the import to its end, which is also how it was closed."""
        outcome = await (await self.begin()).result()
        assert self.rows.closed == [outcome]
        return outcome


@pytest.fixture
async def engine(temporal_address: str) -> AsyncIterator[Engine]:
    client = await client_in(temporal_address, f"import-{uuid4().hex[:12]}")
    scene, rows = Scene(), OperationRows()
    imports, operations = scene.imports, Operations(rows)
    steps: list[Callable[..., Any]] = [imports.read, imports.record, imports.adopt]
    steps += [imports.withdraw, operations.claim, operations.wait, operations.close]
    async with Worker(
        client,
        task_queue=options.OPERATIONS,
        workflows=[ImportVm],
        activities=steps,
        workflow_runner=sandbox(),
        interceptors=[StepInterceptor(NoSteps())],
    ):
        yield Engine(scene, client, rows)
    assert scene.centre.copies_max[scene.guest_id] == 1


async def test_a_running_guest_is_taken_over_and_what_it_would_lack_is_said(engine: Engine) -> None:
    engine.scene.domain.lost = ("graphics", "rng")
    outcome = await engine.run()
    assert outcome.state is OperationState.SUCCEEDED
    assert outcome.summary == (
        "running on h1, now ours; defined elsewhere it would lack 2: graphics, rng"
    )
    assert engine.scene.domain.claim == outcome.operation_id
    assert engine.scene.centre.copies(engine.scene.guest_id) == ["h1"]


async def test_a_guest_that_is_refused_leaves_no_row_and_no_mark(engine: Engine) -> None:
    engine.scene.domain.unsupported = ("hostdev",)
    outcome = await engine.run()
    assert outcome.problem is not None
    assert (outcome.state, outcome.problem.code) == (OperationState.FAILED, "GUEST_NOT_SUPPORTED")
    assert engine.scene.foreign_as_found()


async def test_an_import_that_cannot_mark_its_guest_takes_its_rows_back(engine: Engine) -> None:
    def set_autostart() -> None:
        engine.scene.domain.autostart = True

    engine.scene.hook("adopt", set_autostart)
    outcome = await engine.run()
    assert outcome.problem is not None
    assert outcome.problem.code == "GUEST_AUTOSTART"
    assert engine.scene.foreign_as_found()


async def test_an_import_cancelled_while_it_marks_leaves_the_guest_as_it_was_found(
    engine: Engine,
) -> None:
    gate = Gate()
    engine.scene.centre.before["adopt"] = gate
    handle = await engine.begin()
    await gate.reached.wait()
    await handle.cancel()
    outcome = await handle.result()
    assert (outcome.state, outcome.summary) == (
        OperationState.CANCELLED,
        "left on h1 as it was found",
    )
    assert engine.scene.foreign_as_found()


async def test_an_import_cancelled_while_it_reads_has_recorded_nothing(engine: Engine) -> None:
    gate = Gate()
    engine.scene.centre.before["describe_foreign"] = gate
    handle = await engine.begin()
    await gate.reached.wait()
    await handle.cancel()
    outcome = await handle.result()
    assert (outcome.state, outcome.summary) == (OperationState.CANCELLED, "db was only read")
    assert engine.scene.foreign_as_found()
