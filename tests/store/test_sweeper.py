"""Operations whose workflow ended without them, or vanished: closed, started again, left alone."""

from typing import Any
from uuid import UUID

import pytest

from domain.errors import Unavailable
from domain.operations import OperationState, Outcome, WorkflowState, workflow_id
from engine.acceptance import Terms
from engine.actions.hosts import ActivateHost, FenceHost, RecoverHost
from engine.actions.operations import CancelOperation, RetryOperation
from engine.actions.vms import StartVm, StopVm
from engine.records.operations import StepRecords
from engine.sweeper import EVERY_S, REOPENED_MOST, Sweeper
from store import operations, plumbing, runs
from store.rows import Row
from tests.store.engine_room import Engine, columns

pytestmark = pytest.mark.store


class Temporal:
    """Says of each workflow what a test told it; of any other that it runs."""

    def __init__(self) -> None:
        self.states: dict[str, WorkflowState] = {}
        self.asked: list[str] = []
        self.away = False

    async def describe(self, wid: str) -> WorkflowState:
        """How it stands."""
        if self.away:
            raise Unavailable("TEMPORAL_UNAVAILABLE", "nobody there")
        self.asked.append(wid)
        return self.states.get(wid, WorkflowState.RUNNING)


class Scene:
    """An engine, a Temporal, and a sweeper between them."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.world = engine, engine.world
        self.temporal = Temporal()
        workflows: Any = self.temporal
        self.sweeper = Sweeper(
            self.world.database, engine.backend, workflows, clock=self.world.clock
        )
        self.host = UUID(int=0)
        self.vm = UUID(int=0)

    async def start(self) -> UUID:
        """A start that Temporal has taken and its workflow has claimed."""
        self.host = await self.world.host()
        self.vm = await self.world.vm()
        return await self.begun((await self.engine.act(StartVm(vm_id=self.vm))).operation_id)

    async def begun(self, operation: UUID, attempt: int = 1) -> UUID:
        """The operation, taken and claimed."""
        await self.taken(operation)
        claim = (operation, attempt, f"run-{attempt}", self.world.now)
        assert await self.world.do(operations.claim, *claim)
        return operation

    async def taken(self, operation: UUID) -> UUID:
        """The operation, its start taken by Temporal."""
        for row in await self.world.do(plumbing.waiting_of, operation):
            await self.world.do(plumbing.delivered, row["id"], self.world.now)
        return operation

    async def sweep(self) -> int:
        """A round, a little later."""
        self.world.later(EVERY_S + 1)
        return await self.sweeper.sweep()

    def is_now(self, operation: UUID, state: WorkflowState, attempt: int = 1) -> None:
        """What Temporal says of an operation's workflow from now on."""
        self.temporal.states[workflow_id(operation, attempt)] = state

    async def row(self, operation: UUID) -> Row:
        """One operation."""
        row = await self.world.do(operations.get, operation)
        assert row is not None
        return row

    async def to_tell(self, operation: UUID) -> list[str]:
        """What Temporal is to be told of it."""
        return [row["kind"] for row in await self.world.do(plumbing.waiting_of, operation)]


@pytest.fixture
def scene(engine: Engine) -> Scene:
    """A scene without hosts."""
    return Scene(engine)


async def test_a_workflow_that_runs_is_left_alone_and_asked_for_once_in_a_while(
    scene: Scene,
) -> None:
    operation = await scene.start()
    assert await scene.sweep() == 0
    assert scene.temporal.asked == [f"op/{operation}/1"]
    assert await scene.sweeper.sweep() == 0
    assert len(scene.temporal.asked) == 1, "it was looked for a moment ago"
    assert (await scene.row(operation))["state"] == "running"


@pytest.mark.parametrize(
    ("state", "end", "code"),
    [
        (WorkflowState.TERMINATED, "cancelled", "WORKFLOW_TERMINATED"),
        (WorkflowState.CANCELLED, "cancelled", "WORKFLOW_CANCELLED"),
        (WorkflowState.FAILED, "failed", "WORKFLOW_FAILED"),
        (WorkflowState.TIMED_OUT, "failed", "WORKFLOW_TIMED_OUT"),
        (WorkflowState.COMPLETED, "failed", "WORKFLOW_COMPLETED"),
    ],
)
async def test_an_operation_ends_with_its_workflow_and_frees_its_locks(
    scene: Scene, state: WorkflowState, end: str, code: str
) -> None:
    operation = await scene.start()
    scene.is_now(operation, state)
    assert await scene.sweep() == 1
    row = await scene.row(operation)
    assert (row["state"], row["reason_code"]) == (end, state.value)
    assert (row["problem"]["code"], bool(row["problem"]["next_step"])) == (code, True)
    assert await scene.engine.rows("entity_lock") == []
    assert f"vm.start.{end}" in columns(await scene.engine.rows("event"), "type")
    assert await scene.sweep() == 0


async def test_locks_stay_until_the_last_open_step_must_have_ended(scene: Scene) -> None:
    operation = await scene.start()
    steps = StepRecords(scene.world.database, scene.world.clock)
    await steps.begin(operation, 1, "1", "guest.place", 1, 900.0)
    await steps.finish(operation, 1, "1", tries=1)
    await steps.begin(operation, 1, "2", "guest.define", 1, 60.0)
    scene.is_now(operation, WorkflowState.TERMINATED)
    for _ in range(5):
        assert await scene.sweep() == 0
        row = await scene.row(operation)
        assert (row["state"], row["reason_code"]) == ("waiting", "WORKFLOW_TERMINATED")
        assert "until 2026-01-02 03:05:05 UTC" in row["waiting_for"]
        assert len(await scene.engine.rows("entity_lock")) == 1
    assert await scene.sweep() == 1
    assert (await scene.row(operation))["state"] == "cancelled"
    assert await scene.engine.rows("entity_lock") == []


async def test_a_place_that_was_only_reserved_is_given_back(scene: Scene) -> None:
    operation = await scene.start()
    run = await scene.world.placed(scene.vm, scene.host, operation_id=operation)
    scene.is_now(operation, WorkflowState.TERMINATED)
    await scene.sweep()
    assert (await scene.row(operation))["summary"] == "its reserved place was given back"
    assert (await scene.world.run(run["id"]))["state"] == "ended"
    assert (await scene.world.get("host", scene.host))["memory_reserved_mib"] == 0


async def test_a_start_that_may_have_a_process_needs_attention(scene: Scene) -> None:
    operation = await scene.start()
    run = await scene.world.placed(scene.vm, scene.host, operation_id=operation)
    assert await scene.world.do(runs.begin_start, run["id"], operation)
    scene.is_now(operation, WorkflowState.TERMINATED)
    await scene.sweep()
    row = await scene.row(operation)
    assert (row["state"], row["reason_code"]) == ("needs_attention", "terminated")
    assert row["problem"]["code"] == "RUN_UNSETTLED"
    assert f"holdfast op retry {operation}" in row["problem"]["next_step"]
    assert (await scene.world.run(run["id"]))["state"] == "starting"
    await scene.engine.act(RetryOperation(operation_id=operation))
    assert (await scene.row(operation))["order"]["run"]["run_id"] == str(run["id"])


async def test_a_stop_that_ended_half_way_needs_attention_and_can_be_asked_for_again(
    scene: Scene,
) -> None:
    scene.host, scene.vm = await scene.world.host(), await scene.world.vm()
    run = await scene.world.running(scene.vm, scene.host)
    receipt = await scene.engine.act(StopVm(vm_id=scene.vm))
    operation = await scene.begun(receipt.operation_id)
    assert await scene.world.do(runs.begin_stop, run["id"])
    scene.is_now(operation, WorkflowState.TERMINATED)
    await scene.sweep()
    assert (await scene.row(operation))["state"] == "needs_attention"
    await scene.engine.act(StopVm(vm_id=scene.vm))


async def test_a_host_whose_activation_was_ended_is_left_out_of_service(scene: Scene) -> None:
    host = await scene.world.host(state="down")
    receipt = await scene.engine.act(ActivateHost(host_id=host))
    operation = await scene.begun(receipt.operation_id)
    scene.is_now(operation, WorkflowState.TERMINATED)
    await scene.sweep()
    assert (await scene.row(operation))["state"] == "cancelled"
    assert (await scene.world.get("host", host))["state"] == "non_operational"
    await scene.engine.act(ActivateHost(host_id=host))


async def recovering(scene: Scene) -> tuple[UUID, Row]:
    """A recovery that has begun, and its row."""
    scene.host = await scene.world.host(state="connecting")
    wish = RecoverHost(host_id=scene.host, epoch=1, why="silent", reported_by="m1")
    receipt = await scene.engine.act(wish, principal="monitor:m1")
    operation = await scene.begun(receipt.operation_id)
    return operation, await scene.row(operation)


async def child_of(scene: Scene, parent: Row, params: Any) -> UUID:
    """A child that its parent's workflow is to start."""

    async def work(_connection: Any) -> UUID:
        return await scene.engine.backend.run_child(params, parent, Terms(by_parent=True))

    return await scene.world.database.write(work)


async def test_a_recovery_that_was_ended_is_begun_again_a_limited_number_of_times(
    scene: Scene,
) -> None:
    operation, _ = await recovering(scene)
    await scene.world.put("host", scene.host, state="fencing")
    for attempt in range(1, REOPENED_MOST):
        scene.is_now(operation, WorkflowState.TERMINATED, attempt)
        assert await scene.sweep() == 1
        assert (await scene.row(operation))["attempt"] == attempt + 1
        await scene.begun(operation, attempt + 1)
    scene.is_now(operation, WorkflowState.TERMINATED, REOPENED_MOST)
    assert await scene.sweep() == 1
    assert (await scene.row(operation))["state"] == "cancelled"
    (incident,) = await scene.engine.rows("incident")
    assert (incident["open"], incident["outcome"]) == (None, "incomplete")
    assert (await scene.world.get("host", scene.host))["state"] == "non_responsive"


async def test_a_recovery_that_was_to_be_cancelled_is_not_begun_again(scene: Scene) -> None:
    operation, _ = await recovering(scene)
    await scene.engine.act(CancelOperation(operation_id=operation))
    scene.is_now(operation, WorkflowState.TERMINATED)
    assert await scene.sweep() == 1
    assert (await scene.row(operation))["state"] == "cancelled"


async def test_a_start_that_temporal_forgot_before_it_began_is_told_again(scene: Scene) -> None:
    host = await scene.world.host()
    vm = await scene.world.vm()
    receipt = await scene.engine.act(StartVm(vm_id=vm, host_id=host))
    operation = await scene.taken(receipt.operation_id)
    scene.is_now(operation, WorkflowState.UNKNOWN)
    assert await scene.sweep() == 1
    assert await scene.to_tell(operation) == ["start"]
    assert (await scene.row(operation))["attempt"] == 1
    assert await scene.sweep() == 0, "what is not told yet is not missed yet"


async def test_an_operation_that_temporal_forgot_goes_on_in_its_next_try(scene: Scene) -> None:
    operation = await scene.start()
    scene.is_now(operation, WorkflowState.UNKNOWN)
    assert await scene.sweep() == 1
    row = await scene.row(operation)
    assert (row["state"], row["attempt"], row["order"]["attempt"]) == ("pending", 2, 2)
    assert await scene.to_tell(operation) == ["start"]
    assert len(await scene.engine.rows("entity_lock")) == 1
    await scene.begun(operation, 2)
    assert await scene.sweep() == 0
    assert (await scene.row(operation))["state"] == "running"


async def test_a_cancel_is_not_forgotten_with_the_workflow(scene: Scene) -> None:
    operation = await scene.start()
    await scene.engine.act(CancelOperation(operation_id=operation))
    await scene.taken(operation)
    scene.is_now(operation, WorkflowState.UNKNOWN)
    assert await scene.sweep() == 1
    assert (await scene.row(operation))["state"] == "cancelling"
    assert await scene.to_tell(operation) == ["start"]
    await scene.taken(operation)
    assert await scene.to_tell(operation) == ["cancel"]


async def test_a_child_that_its_parent_has_not_started_yet_is_left_to_it(scene: Scene) -> None:
    _, parent = await recovering(scene)
    vm = await scene.world.vm()
    child = await child_of(scene, parent, StartVm(vm_id=vm))
    scene.is_now(child, WorkflowState.UNKNOWN)
    assert await scene.sweep() == 0
    assert await scene.to_tell(child) == []


async def test_an_orphaned_start_is_started_and_an_orphaned_fence_is_cancelled(
    scene: Scene,
) -> None:
    operation, parent = await recovering(scene)
    vm = await scene.world.vm()
    start = await child_of(scene, parent, StartVm(vm_id=vm))
    fence = await child_of(
        scene, parent, FenceHost(host_id=scene.host, incident_id=parent["incident_id"])
    )
    for child in (start, fence):
        scene.is_now(child, WorkflowState.UNKNOWN)
    await scene.engine.operations.close(
        Outcome(operation_id=operation, state=OperationState.FAILED)
    )
    assert await scene.sweep() == 2
    assert await scene.to_tell(start) == ["start"]
    row = await scene.row(fence)
    assert (row["state"], row["reason_code"]) == ("cancelled", "orphaned")
    assert row["problem"]["code"] == "PARENT_ENDED"


async def test_a_batch_that_was_ended_cancels_what_it_had_not_let_go(scene: Scene) -> None:
    world = scene.world
    batch = await world.operation(
        kind="batch", workflow="RunBatch", order={"attempt": 1}, run_id="run-1", state="running"
    )
    held = await world.operation(parent_id=batch, order={"attempt": 1}, held=True)
    under_way = await world.operation(
        parent_id=batch, order={"attempt": 1}, run_id="run-1", state="running"
    )
    scene.is_now(batch, WorkflowState.TERMINATED)
    assert await scene.sweep() == 1
    rows = [await scene.row(one) for one in (batch, held, under_way)]
    assert columns(rows, "state") == ["cancelled", "cancelled", "running"]


async def test_what_waits_for_locks_or_for_its_batch_is_not_looked_for(scene: Scene) -> None:
    world = scene.world
    await world.operation(state="waiting", reason_code="LOCK_HELD")
    await world.operation(order={"attempt": 1}, held=True)
    await world.operation(workflow=None, order=None, state="pending")
    await world.operation(order={"attempt": 1}, state="succeeded")
    assert await scene.sweep() == 0
    assert scene.temporal.asked == []


async def test_an_operation_that_closed_while_temporal_was_asked_stays_as_it_is(
    scene: Scene,
) -> None:
    operation = await scene.start()
    scene.is_now(operation, WorkflowState.COMPLETED)
    describe = scene.temporal.describe

    async def closes_first(wid: str) -> WorkflowState:
        await scene.engine.operations.close(
            Outcome(operation_id=operation, state=OperationState.SUCCEEDED, summary="well")
        )
        return await describe(wid)

    scene.temporal.describe = closes_first  # type: ignore[method-assign]
    assert await scene.sweep() == 0
    row = await scene.row(operation)
    assert (row["state"], row["summary"]) == ("succeeded", "well")


async def test_an_operation_that_is_claimed_while_temporal_is_asked_is_left_alone(
    scene: Scene,
) -> None:
    await scene.world.host()
    vm = await scene.world.vm()
    operation = (await scene.engine.act(StartVm(vm_id=vm))).operation_id
    await scene.taken(operation)

    async def claimed_meanwhile(wid: str) -> WorkflowState:
        await scene.begun(operation)
        return WorkflowState.UNKNOWN

    scene.temporal.describe = claimed_meanwhile  # type: ignore[method-assign]
    assert await scene.sweep() == 0
    row = await scene.row(operation)
    assert (row["state"], row["attempt"]) == ("running", 1)


async def test_without_temporal_nothing_is_judged(scene: Scene) -> None:
    operation = await scene.start()
    scene.temporal.away = True
    with pytest.raises(Unavailable):
        await scene.sweep()
    row = await scene.row(operation)
    assert (row["state"], row["swept_at"]) == ("running", None)


async def test_the_one_looked_for_longest_ago_comes_first(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.sweeper.LOOKED_AT", 2)
    order: Row = {"order": {"attempt": 1}, "run_id": "run-1", "state": "running"}
    wanted = [await scene.world.operation(**order) for _ in range(5)]
    for _ in range(3):
        await scene.sweep()
    asked = [wid.split("/")[1] for wid in scene.temporal.asked]
    assert asked == [str(one) for one in (*wanted, wanted[0])]
