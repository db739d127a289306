"""Small workflows and activities, for tests of virtual Temporal and of its agreement with reality.

Most are told what to do by their order, so that one class serves many tests.
"""

import asyncio
from datetime import timedelta
from typing import Any

from pydantic import BaseModel
from temporalio import workflow
from temporalio.common import SearchAttributeKey, WorkflowIDReusePolicy
from temporalio.exceptions import (
    ApplicationError,
    ChildWorkflowError,
    FailureError,
    WorkflowAlreadyStartedError,
)
from temporalio.workflow import (
    ChildWorkflowCancellationType,
    ParentClosePolicy,
)

from tests.simulator.toy_steps import Order, call, seconds, told

PHASE = SearchAttributeKey.for_keyword("ToyPhase")


@workflow.defn
class OneStep:
    """One activity; its result or its error, and how long it took."""

    @workflow.run
    async def run(self, order: Order) -> list[Any]:
        """Also cancels it after a while, if told to."""
        began_s = workflow.time()
        handle = call(order)
        if order.cancel_after_s is not None:
            await asyncio.sleep(order.cancel_after_s)
            handle.cancel()
        try:
            ended = await handle
        except FailureError as error:
            ended = told(error)
        return [ended, round(workflow.time() - began_s)]


@workflow.defn
class Many:
    """Several activities at once; what each gave, in the order in which they were asked for."""

    @workflow.run
    async def run(self, orders: list[Order]) -> list[Any]:
        """See the class."""
        return list(await asyncio.gather(*(call(order) for order in orders)))


@workflow.defn
class Sequence:
    """Mixes all kinds of commands, one after the other; for crashes at any moment."""

    @workflow.run
    async def run(self, rounds: int) -> list[Any]:
        """What each round gave."""
        got: list[Any] = []
        for number in range(rounds):
            got.append(await call(Order(value=number)))
            got.append(await call(Order(value=-number, local=True)))
            await asyncio.sleep(1)
            got.append(workflow.random().randint(0, 10**6))
            got.append(str(workflow.uuid4()))
            if workflow.patched("a-child-too"):
                got.append(await workflow.execute_child_workflow(Kid.run, KidOrder(value=number)))
        return got


class KidOrder(BaseModel):
    """What a child is to do."""

    value: Any = None
    sleep_s: float = 0
    fails: bool = False
    again: int = 0  # how often to continue as new


@workflow.defn
class Kid:
    """A child; or a workflow that does next to nothing."""

    @workflow.run
    async def run(self, order: KidOrder) -> Any:
        """See the order."""
        await asyncio.sleep(order.sleep_s)
        if order.fails:
            raise ApplicationError("the child fails", type="Kid")
        if order.again:
            workflow.continue_as_new(order.model_copy(update={"again": order.again - 1}))
        return order.value


class ParentOrder(BaseModel):
    """What a parent is to do with its child."""

    kid: KidOrder = KidOrder()
    wid: str = "kid"
    policy: int = ParentClosePolicy.TERMINATE
    reuse: int = WorkflowIDReusePolicy.ALLOW_DUPLICATE
    waits: bool = True
    cancel_after_s: float | None = None
    cancellation: int = ChildWorkflowCancellationType.WAIT_CANCELLATION_COMPLETED
    limit_s: float | None = None
    again: bool = False


@workflow.defn
class Parent:
    """Starts a child and tells what it saw of it."""

    @workflow.run
    async def run(self, order: ParentOrder) -> str:
        """See the order."""
        try:
            kid = await workflow.start_child_workflow(
                Kid.run,
                order.kid,
                id=order.wid,
                parent_close_policy=ParentClosePolicy(order.policy),
                id_reuse_policy=WorkflowIDReusePolicy(order.reuse),
                cancellation_type=ChildWorkflowCancellationType(order.cancellation),
                execution_timeout=seconds(order.limit_s),
            )
        except WorkflowAlreadyStartedError:
            return "already started"
        if order.again:
            workflow.continue_as_new(ParentOrder(wid="another"))
        if not order.waits:
            return "does not wait"
        if order.cancel_after_s is not None:
            await asyncio.sleep(order.cancel_after_s)
            kid.cancel()
        try:
            return str(await kid)
        except ChildWorkflowError as error:
            return told(error)


class Kept(BaseModel):
    """What a counter carries on."""

    total: int = 0
    rounds: int = 0
    again_at: int | None = None


@workflow.defn
class Counter:
    """Counts what it is told, by signals and updates, until it is told to end."""

    @workflow.init
    def __init__(self, kept: Kept) -> None:
        self._kept = kept
        self._ended = False

    @workflow.run
    async def run(self, kept: Kept) -> int:
        """The total."""
        workflow.set_current_details(f"begun with {kept.total}")
        workflow.upsert_memo({"rounds": kept.rounds})
        again_at = kept.again_at
        await workflow.wait_condition(
            lambda: self._ended or (again_at is not None and self._kept.total >= again_at)
        )
        await workflow.wait_condition(workflow.all_handlers_finished)
        if not self._ended:
            rounds = kept.rounds + 1
            workflow.continue_as_new(Kept(total=self._kept.total, rounds=rounds))
        return self._kept.total

    @workflow.signal
    def add(self, amount: int) -> None:
        """More."""
        self._kept.total += amount
        workflow.set_current_details(f"at {self._kept.total}")

    @workflow.signal
    def end(self) -> None:
        """Enough."""
        self._ended = True

    @workflow.update
    async def raise_by(self, amount: int) -> int:
        """More, and how much it is then; takes its time."""
        await call(Order(value="counted"))
        if amount == 13:
            raise ApplicationError("unlucky", type="Unlucky")
        self._kept.total += amount
        return self._kept.total

    @raise_by.validator
    def _not_negative(self, amount: int) -> None:
        if amount < 0:
            raise ApplicationError("only upwards", type="Down")

    @workflow.query
    def total(self, factor: int) -> int:
        """So far."""
        return self._kept.total * factor


@workflow.defn
class Timers:
    """Timers and conditions; when each of them was through, in virtual seconds since the start."""

    def __init__(self) -> None:
        self._knocks = 0

    @workflow.run
    async def run(self) -> list[Any]:
        """Waits for a timer, for one that is cancelled, in vain, and for a signal."""
        began_s = workflow.time()
        log: list[Any] = []

        def note(what: str) -> None:
            log.append([what, round(workflow.time() - began_s)])

        await asyncio.sleep(2)
        note("slept")
        long = asyncio.create_task(asyncio.sleep(1000))
        await asyncio.sleep(1)
        long.cancel()
        try:
            await long
        except asyncio.CancelledError:
            note("called off")
        try:
            await workflow.wait_condition(lambda: self._knocks > 9, timeout=timedelta(seconds=3))
        except TimeoutError:
            note("in vain")
        await workflow.wait_condition(lambda: self._knocks > 0)
        note("knocked")
        return log

    @workflow.signal
    def knock(self) -> None:
        """Somebody is there."""
        self._knocks += 1


@workflow.defn
class Cancelled:
    """Waits until it is cancelled, cleans up, and says why it was."""

    @workflow.run
    async def run(self, cleans: bool) -> str:
        """Ends as cancelled, or well once it has cleaned up."""
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            if not cleans:
                raise
            await call(Order(value="clean"))
            return f"cleaned: {workflow.cancellation_reason()}"
        return "never"


@workflow.defn
class Closing:
    """Completes after a while, unless it was knocked at: then it says so."""

    def __init__(self) -> None:
        self._knocks = 0

    @workflow.run
    async def run(self) -> int:
        """How often it was knocked."""
        await asyncio.sleep(1)
        return self._knocks

    @workflow.signal
    def knock(self) -> None:
        """Somebody is there."""
        self._knocks += 1


@workflow.defn
class Caller:
    """Signals and cancels another workflow."""

    @workflow.run
    async def run(self, wid: str) -> list[str]:
        """What came of each."""
        log = []
        other = workflow.get_external_workflow_handle(wid)
        for call_ in (other.signal("add", 5), other.cancel()):
            try:
                await call_
                log.append("done")
            except ApplicationError as error:
                log.append(told(error))
        return log


@workflow.defn
class Labelled:
    """Reads and changes its memo and search attributes, and says who it is."""

    @workflow.run
    async def run(self) -> dict[str, Any]:
        """What it was started with, and its info."""
        info = workflow.info()
        given = {key: workflow.memo_value(key, type_hint=str) for key in workflow.memo()}
        workflow.upsert_memo({"a": None, "b": "new"})
        phase = info.typed_search_attributes.get(PHASE)
        workflow.upsert_search_attributes([PHASE.value_set("late")])
        return {
            "memo": given,
            "phase": phase,
            "queue": info.task_queue,
            "priority": info.priority.priority_key,
            "parent": info.parent.workflow_id if info.parent else None,
            "root": info.root.workflow_id if info.root else None,
            "started": info.workflow_start_time.isoformat(),
            "now": workflow.now().isoformat(),
        }


WORKFLOWS: tuple[type, ...] = (
    OneStep,
    Many,
    Sequence,
    Kid,
    Parent,
    Counter,
    Timers,
    Cancelled,
    Closing,
    Caller,
    Labelled,
)
