"""The toys on a real dev server and in the simulator: the same results and the same commands.

A real history keeps what was commanded as events, the simulator as the commands themselves; both
are written down here as a list of kinds. The order in which two tasks' commands come may hang on
the clock, so the toys used here leave it no choice.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.common import WorkflowIDReusePolicy
from temporalio.worker import UnsandboxedWorkflowRunner, Worker
from temporalio.workflow import ParentClosePolicy

from simulator.temporal import failures
from simulator.temporal.run import Run
from tests.simulator.stand import QUEUE, stand
from tests.simulator.toy_steps import Steps
from tests.simulator.toys import (
    WORKFLOWS,
    KidOrder,
    Parent,
    ParentOrder,
)
from tests.workflow.bench import client_in
from tests.workflow.toys_played import TOYS, Deed, Toy

pytestmark = pytest.mark.workflow

KINDS = {
    "EVENT_TYPE_ACTIVITY_TASK_SCHEDULED": "schedule_activity",
    "EVENT_TYPE_ACTIVITY_TASK_CANCEL_REQUESTED": "request_cancel_activity",
    "EVENT_TYPE_TIMER_STARTED": "start_timer",
    "EVENT_TYPE_TIMER_CANCELED": "cancel_timer",
    "EVENT_TYPE_START_CHILD_WORKFLOW_EXECUTION_INITIATED": "start_child_workflow_execution",
    "EVENT_TYPE_REQUEST_CANCEL_EXTERNAL_WORKFLOW_EXECUTION_INITIATED": (
        "cancel_child_workflow_execution"
    ),
    "EVENT_TYPE_WORKFLOW_PROPERTIES_MODIFIED": "modify_workflow_properties",
    "EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED": "complete_workflow_execution",
    "EVENT_TYPE_WORKFLOW_EXECUTION_FAILED": "fail_workflow_execution",
    "EVENT_TYPE_WORKFLOW_EXECUTION_CANCELED": "cancel_workflow_execution",
    "EVENT_TYPE_WORKFLOW_EXECUTION_CONTINUED_AS_NEW": "continue_as_new_workflow_execution",
    "EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_ACCEPTED": "update accepted",
    "EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_COMPLETED": "update completed",
}
MARKERS = {"core_local_activity": "schedule_local_activity", "core_patch": "set_patch_marker"}


@dataclass(frozen=True)
class Played:
    """What came of it: the end, the answers of updates, kinds of commands, what steps saw."""

    end: Any
    answers: list[Any]
    commands: list[list[str]]
    tries: list[tuple[str, int]]
    seen: list[Any]


def _end(kind: str, result: Any) -> list[Any]:
    """The end; of a result with times or with parts made from a seed only the form is compared."""
    if isinstance(result, list) and all(isinstance(each, list) for each in result):
        return [kind, [each[0] for each in result]]
    if isinstance(result, list) and len(result) == 2 and kind == "completed":
        return [kind, result[0]]  # the second is how long it took
    if isinstance(result, list) and len(result) > 2:
        result = [v if isinstance(v, bool | None) or not _made(v) else "made" for v in result]
    return [kind, result]


def _made(value: Any) -> bool:
    return (isinstance(value, int) and abs(value) > 9) or (
        isinstance(value, str) and len(value) == 36
    )


async def _really(client: Client, toy: Toy) -> Played:
    steps, wid = Steps(), uuid4().hex
    worker = Worker(
        client,
        task_queue=QUEUE,
        workflows=WORKFLOWS,
        activities=steps.all(),
        workflow_runner=UnsandboxedWorkflowRunner(),
        max_heartbeat_throttle_interval=timedelta(seconds=60),
    )
    async with worker:
        handle = await client.start_workflow(
            toy.workflow.run, args=list(toy.arguments), id=wid, task_queue=QUEUE
        )
        if toy.deeds:  # they count from the first task, as they do in the simulator
            await _began(handle)
        answers = await _deeds(toy, asyncio.get_running_loop().time, lambda d: _real(handle, d))
        try:
            end = _end("completed", await client.get_workflow_handle(wid).result())
        except Exception as error:  # noqa: BLE001 - how it ends is what is compared
            end = [type(error.__cause__).__name__, None]
    chain = []
    run_id: str | None = handle.first_execution_run_id
    while run_id:
        history = await client.get_workflow_handle(wid, run_id=run_id).fetch_history()
        chain.append([kind for event in history.events if (kind := _kind(event)) is not None])
        last = history.events[-1].workflow_execution_continued_as_new_event_attributes
        run_id = last.new_execution_run_id or None
    return Played(end, answers, chain, *_steps(steps))


async def _began(handle: WorkflowHandle[Any, Any]) -> None:
    async with asyncio.timeout(60):
        while True:
            history = await handle.fetch_history()
            if any(
                event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED
                for event in history.events
            ):
                return
            await asyncio.sleep(0.02)


def _kind(event: Any) -> str | None:
    name = EventType.Name(event.event_type)
    if name == "EVENT_TYPE_MARKER_RECORDED":
        return MARKERS[event.marker_recorded_event_attributes.marker_name]
    return KINDS.get(name)


async def _real(handle: WorkflowHandle[Any, Any], deed: Deed) -> Any:
    _at, kind, name, arguments = deed
    if kind == "signal":
        return await handle.signal(name, args=list(arguments))
    if kind == "cancel":
        return await handle.cancel()
    try:
        return await handle.execute_update(name, args=list(arguments))
    except Exception as error:  # noqa: BLE001 - the answer is what is compared
        return f"{error.__cause__}"


async def _deeds(
    toy: Toy, now: Callable[[], float], do: Callable[[Deed], Awaitable[Any]]
) -> list[Any]:
    began_s, answers = now(), []
    for deed in toy.deeds:
        await asyncio.sleep(max(began_s + deed[0] - now(), 0))
        answers.append(await do(deed))
    return answers


def _virtually(toy: Toy) -> Played:
    hops = dict.fromkeys(("task", "report", "step", "retry", "child"), 0.005)
    with stand(hops=hops) as (at, run):
        at.worker()

        async def virtual(begun: Run, deed: Deed) -> Any:
            _at, kind, name, arguments = deed
            given = tuple(map(failures.to_payload, arguments))
            newest = at.server.current(begun.wid)
            assert newest is not None
            if kind == "signal":
                return at.server.signal(newest, name, given)
            if kind == "cancel":
                return at.server.cancel(newest)
            asked = at.server.update(newest, name, given)
            while asked.open:  # noqa: ASYNC110 - nobody tells of it
                await asyncio.sleep(0.05)
            if asked.rejected is not None:
                error = failures.failures.from_failure(asked.rejected, failures.payloads)
                return f"{error}"
            assert asked.result is not None
            return failures.from_payloads([asked.result], None)[0]

        async def main() -> tuple[Any, list[Any]]:
            begun = at.start(toy.workflow, *toy.arguments)
            answers = await _deeds(toy, at.loop.time, lambda deed: virtual(begun, deed))
            ended = await at.ended(begun)
            if ended.failure is not None:
                error = failures.failures.from_failure(ended.failure, failures.payloads)
                return [type(error).__name__, None], answers
            assert ended.result is not None
            result = failures.from_payloads([ended.result], None)[0]
            return _end("completed", result), answers

        end, answers = run(main())
        chain = [_commands(each) for each in at.server.runs["w"]]
    return Played(end, answers, chain, *_steps(at.steps))


def _commands(run: Run) -> list[str]:
    kinds = []
    for turn in run.turns:
        for command in turn.commands:
            kind = str(command.WhichOneof("variant"))
            if kind == "update_response":
                answer = str(command.update_response.WhichOneof("response"))
                kind = "update accepted" if answer == "accepted" else "update completed"
            kinds.append(kind)
    return kinds


def _steps(steps: Steps) -> tuple[list[tuple[str, int]], list[Any]]:
    seen = [(each[0] if isinstance(each, tuple) else each) for each in steps.seen]
    return [(name, number) for name, number, _at in steps.calls], seen


def _written(kinds: list[list[str]]) -> list[list[str]]:
    """As a history can hold them: local steps at their end, no order inside of one task."""
    return [sorted(each) for each in kinds]


@pytest.mark.parametrize("toy", TOYS, ids=lambda toy: toy.name)
async def test_a_toy_does_the_same_in_both(temporal_address: str, toy: Toy) -> None:
    client = await client_in(temporal_address, f"toys-{uuid4().hex[:12]}")
    real = await _really(client, toy)
    virtual = await asyncio.get_running_loop().run_in_executor(None, _virtually, toy)
    assert virtual.end == real.end
    assert virtual.answers == real.answers
    assert virtual.tries == real.tries
    assert _written(virtual.commands) == _written(real.commands)
    assert virtual.seen == real.seen


@pytest.mark.parametrize("policy", [ParentClosePolicy.TERMINATE, ParentClosePolicy.ABANDON])
async def test_a_child_fares_the_same_when_its_parent_goes_on_as_new(
    temporal_address: str, policy: ParentClosePolicy
) -> None:
    order = ParentOrder(kid=KidOrder(sleep_s=2), policy=policy, again=True)
    client = await client_in(temporal_address, f"toys-{uuid4().hex[:12]}")
    worker = Worker(
        client,
        task_queue=QUEUE,
        workflows=WORKFLOWS,
        activities=Steps().all(),
        workflow_runner=UnsandboxedWorkflowRunner(),
    )
    async with worker:
        handle = await client.start_workflow(
            Parent.run,
            order,
            id="w",
            task_queue=QUEUE,
            id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
        )
        await handle.result()
        kid = client.get_workflow_handle("kid")
        with suppress(WorkflowFailureError):
            await kid.result()
        described = await kid.describe()
    assert described.status is not None

    def virtually() -> str:
        with stand() as (at, run):
            at.worker()

            async def main() -> str:
                await at.result(at.start(Parent, order))
                await asyncio.sleep(3)
                kid = at.server.current("kid")
                assert kid is not None
                return kid.state.value

            return str(run(main()))

    virtual = await asyncio.get_running_loop().run_in_executor(None, virtually)
    assert virtual == described.status.name.lower()
