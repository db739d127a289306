"""Batches on a real server, from the request to the last child: limits, stops, cancels, crashes."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio
from temporalio import activity
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from engine.actions.base import Params
from engine.actions.operations import CancelOperation, RetryOperation
from engine.actions.vm_config import EditVm
from engine.actions.vms import StartVm, StopVm
from engine.backend import Backend
from engine.batches import BatchOptions
from engine.grants import Grants
from engine.registry import all_actions, all_queries
from simulator.no_secrets import NoSecrets
from store.rows import Row
from tests.fakes import Gate
from tests.faults import Fault
from tests.workflow.bench import OPEN, PERSON, Bench, bench, quick, relaying
from tests.workflow.far_world import served
from worker.temporal_get import ROOT

pytestmark = pytest.mark.workflow


class AtWork(Interceptor):
    """How many starts are at work at a time: from their first step to their last."""

    def __init__(self) -> None:
        self.now: set[str] = set()
        self.most = 0

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002
        """Wrap the next interceptor."""
        return _Counting(next, self)


class _Counting(ActivityInboundInterceptor):
    def __init__(self, following: ActivityInboundInterceptor, seen: AtWork) -> None:
        super().__init__(following)
        self._seen = seen

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002
        info, seen = activity.info(), self._seen
        if info.workflow_type == "StartVm" and info.workflow_id is not None:
            if info.activity_type == "operation.close":
                seen.now.discard(info.workflow_id)
            else:
                seen.now.add(info.workflow_id)
                seen.most = max(seen.most, len(seen.now))
        return await self.next.execute_activity(input)


@pytest_asyncio.fixture
async def idle_engine(
    temporal_address: str, migrated: Path, tmp_path: Path
) -> AsyncIterator[Bench]:
    """Three hosts and a relay, and no worker yet."""
    with quick():
        async with bench(temporal_address, migrated, tmp_path) as made:
            await made.build("h1", "h2", "h3")
            await made.watcher.start()
            async with relaying(made):
                yield made


@pytest_asyncio.fixture
async def whole_engine(idle_engine: Bench) -> AsyncIterator[Bench]:
    """The same with its workers."""
    async with idle_engine.workers():
        yield idle_engine


async def add_vms(made: Bench, count: int) -> list[str]:
    """Small VMs that are down."""
    names = [f"vm-{number:02}" for number in range(count)]
    for name in names:
        await made.add_vm(name, memory_mib=16)
    return names


async def starting(made: Bench, names: list[str], **options: Any) -> UUID:
    """Ask for all of them to be started; the batch's operation."""
    items: list[Params] = [StartVm(vm_id=made.vms[name]) for name in names]
    receipt = await made.backend.run_multiple_actions(items, PERSON, BatchOptions(**options))
    return receipt.operation_id


async def children(made: Bench, operation: UUID) -> list[Row]:
    return await made.children_of(operation, "vm.start")


async def runs(made: Bench, operation: UUID) -> None:
    """Wait until its workflow has claimed an operation."""

    async def running() -> bool:
        return bool((await made.operation(operation))["state"] == "running")

    await made.until(running, f"operation {operation} never ran")


async def once_each(made: Bench, operation: UUID, names: list[str]) -> None:
    """Every VM runs once, by one workflow of one try, and nothing is left behind."""
    rows = await children(made, operation)
    assert [row["state"] for row in rows] == ["succeeded"] * len(names)
    assert [len(made.copies(name)) for name in names] == [1] * len(names)
    assert {row["attempt"] for row in rows} == {1}
    runs = await made.rows("vm_run")
    assert sorted(row["vm_id"] for row in runs) == sorted(made.vms[name] for name in names)
    assert await made.rows("entity_lock") == []
    assert await made.broken() == []


async def test_sixty_starts_never_run_more_than_ten_at_a_time(idle_engine: Bench) -> None:
    names, seen = await add_vms(idle_engine, 60), AtWork()
    async with idle_engine.workers([seen]):
        operation = await starting(idle_engine, names, at_once=10)
        ended = await idle_engine.ended(operation)
    assert (ended["state"], ended["summary"]) == ("succeeded", "60 succeeded")
    assert (ended["progress_done"], ended["progress_total"]) == (60, 60)
    assert 1 < seen.most <= 10
    await once_each(idle_engine, operation, names)


async def test_a_start_that_fails_stops_those_behind_it(whole_engine: Bench) -> None:
    names = await add_vms(whole_engine, 12)
    refused = whole_engine.vms[names[3]]
    whole_engine.centre.refusing[refused] = 1000
    # With one try on one host its start has failed while others still wait.
    await whole_engine.act(EditVm(vm_id=refused, max_restart=0, max_relocate=0))
    operation = await starting(whole_engine, names, at_once=2, stop_on_error=True)
    ended = await whole_engine.ended(operation)
    assert (ended["state"], ended["problem"]["code"]) == ("failed", "BATCH_INCOMPLETE")
    rows = await children(whole_engine, operation)
    assert rows[3]["state"] == "failed"
    assert {row["state"] for row in rows[:3]} == {"succeeded"}
    stopped = [row for row in rows if row["reason_code"] == "stopped_on_error"]
    assert [row["id"] for row in stopped] == [row["id"] for row in rows[-len(stopped) :]]
    assert len(stopped) >= 6
    never = [name for name, row in zip(names, rows, strict=True) if row in stopped]
    assert [whole_engine.copies(name) for name in never] == [[]] * len(never)
    assert await whole_engine.rows("entity_lock") == []
    assert await whole_engine.broken() == []


async def test_a_start_that_fails_leaves_the_others_alone(whole_engine: Bench) -> None:
    names = await add_vms(whole_engine, 8)
    whole_engine.centre.refusing[whole_engine.vms[names[1]]] = 16  # all tries of one start
    operation = await starting(whole_engine, names, at_once=3)
    ended = await whole_engine.ended(operation)
    assert ended["problem"]["detail"] == "of 8 actions 7 succeeded, 1 failed"
    again = await whole_engine.act(RetryOperation(operation_id=operation))
    assert (await whole_engine.operation(again))["state"] == "succeeded"
    ended = await whole_engine.ended(operation)
    assert (ended["state"], ended["attempt"]) == ("succeeded", 2)
    attempts = [row["attempt"] for row in await children(whole_engine, operation)]
    assert attempts == [1, 2, 1, 1, 1, 1, 1, 1]
    assert [len(whole_engine.copies(name)) for name in names] == [1] * 8
    assert await whole_engine.broken() == []


async def test_a_cancelled_batch_ends_what_has_not_begun_and_undoes_what_has(
    whole_engine: Bench,
) -> None:
    names = await add_vms(whole_engine, 9)
    gate = whole_engine.centre.before["define"] = Gate()
    operation = await starting(whole_engine, names, at_once=2)
    await gate.reached.wait()
    await runs(whole_engine, operation)
    await whole_engine.act(CancelOperation(operation_id=operation))
    ended = await whole_engine.ended(operation)
    for row in await children(whole_engine, operation):
        await whole_engine.begun(row["id"])  # what it was asked has arrived, too
    gate.open()
    assert ended["state"] == "cancelled"
    assert ended["summary"] == "7 cancelled before they began, 2 asked to cancel"
    for row in await children(whole_engine, operation):
        assert (await whole_engine.ended(row["id"]))["state"] == "cancelled"
    assert [whole_engine.copies(name) for name in names] == [[]] * 9
    assert await whole_engine.rows("entity_lock") == []
    assert await whole_engine.broken() == []


async def test_a_batch_cancelled_before_any_worker_saw_it_ends_at_once(idle_engine: Bench) -> None:
    names = await add_vms(idle_engine, 6)
    operation = await starting(idle_engine, names, at_once=2)
    await idle_engine.act(CancelOperation(operation_id=operation))
    assert (await idle_engine.operation(operation))["state"] == "cancelled"
    assert {row["state"] for row in await children(idle_engine, operation)} == {"cancelled"}
    assert await idle_engine.rows("entity_lock") == []
    async with idle_engine.workers():
        await idle_engine.act(StartVm(vm_id=idle_engine.vms[names[0]]))
        await idle_engine.idle()
    assert [len(idle_engine.copies(name)) for name in names] == [1, 0, 0, 0, 0, 0]


async def test_one_child_may_be_cancelled_and_the_others_go_on(whole_engine: Bench) -> None:
    names = await add_vms(whole_engine, 5)
    gate = whole_engine.centre.before["define"] = Gate()
    operation = await starting(whole_engine, names, at_once=1)
    await gate.reached.wait()
    held = (await children(whole_engine, operation))[3]
    await whole_engine.act(CancelOperation(operation_id=held["id"]))
    gate.open()
    ended = await whole_engine.ended(operation)
    assert ended["problem"]["detail"] == "of 5 actions 4 succeeded, 1 cancelled"
    assert [len(whole_engine.copies(name)) for name in names] == [1, 1, 1, 0, 1]


async def test_a_batch_of_starts_and_stops_does_both(whole_engine: Bench) -> None:
    await whole_engine.add_vm("up", "h1")
    await whole_engine.add_vm("down")
    items: list[Params] = [
        StopVm(vm_id=whole_engine.vms["up"]),
        StartVm(vm_id=whole_engine.vms["down"]),
    ]
    receipt = await whole_engine.backend.run_multiple_actions(items, PERSON)
    assert (await whole_engine.ended(receipt.operation_id))["state"] == "succeeded"
    assert whole_engine.copies("up") == []
    assert len(whole_engine.copies("down")) == 1


async def test_actions_on_one_vm_follow_each_other_where_they_may_wait_for_its_lock(
    whole_engine: Bench,
) -> None:
    vm_id = await whole_engine.add_vm("db")
    items: list[Params] = [StartVm(vm_id=vm_id), StopVm(vm_id=vm_id, force=True)]
    options = BatchOptions(lock_wait_s=60, at_once=1)
    receipt = await whole_engine.backend.run_multiple_actions(items, PERSON, options)
    grants = Grants(whole_engine.database, whole_engine.backend)

    async def done() -> bool:
        await grants.grant()
        return (await whole_engine.operation(receipt.operation_id))["state"] not in OPEN

    await whole_engine.until(done, "the batch never ended")
    ended = await whole_engine.operation(receipt.operation_id)
    assert (ended["state"], ended["summary"]) == ("succeeded", "2 succeeded")
    assert whole_engine.copies("db") == []
    assert [row["state"] for row in await whole_engine.rows("vm_run")] == ["ended"]
    assert await whole_engine.broken() == []


@pytest.mark.parametrize("fault", [Fault.CRASHES_BEFORE, Fault.CRASHES_AFTER], ids=str)
@pytest.mark.parametrize(
    ("workflow", "step"), [("RunBatch", "batch.advance"), ("StartVm", "guest.start")]
)
async def test_a_worker_killed_midway_loses_and_doubles_nothing(
    idle_engine: Bench, tmp_path: Path, workflow: str, step: str, fault: Fault
) -> None:
    names = await add_vms(idle_engine, 12)
    operation = await starting(idle_engine, names, at_once=3)
    socket = tmp_path / "centre.sock"
    async with served(idle_engine.centre, socket):
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.workflow.doomed"),
            *(idle_engine.client.service_client.config.target_host, idle_engine.client.namespace),
            *(idle_engine.database.url, str(socket), workflow, step, fault),
            cwd=ROOT,
            stdout=asyncio.subprocess.DEVNULL,
        )
        assert await child.wait() == -signal.SIGKILL
        async with idle_engine.workers():
            ended = await idle_engine.ended(operation)
    assert (ended["state"], ended["summary"]) == ("succeeded", "12 succeeded")
    await once_each(idle_engine, operation, names)


async def test_an_api_that_dies_after_the_commit_leaves_all_to_the_relay(
    idle_engine: Bench,
) -> None:
    names = await add_vms(idle_engine, 8)
    secrets = NoSecrets()
    idle_engine.backend = Backend(
        idle_engine.database, all_actions(secrets, secrets), all_queries()
    )
    operation = await starting(idle_engine, names, at_once=4)
    async with idle_engine.workers():
        assert (await idle_engine.ended(operation))["state"] == "succeeded"
    await once_each(idle_engine, operation, names)
