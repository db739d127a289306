"""What every operation does around its own steps: claim, run, and close whatever happened.

The end state is written by the last step in one transaction with the event and the freeing of
locks. The workflow itself completes with the outcome, also a failed one: the outcome is data that
people read, while a failed workflow in Temporal's UI means that the engine itself is broken.

Cancel  A request is delivered once. A step that ends well in spite of it swallows the request, so
        bodies ask with `go_on` before each next step; what must not be left half done (claiming,
        closing, undoing) runs `to_its_end`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, NoReturn, TypeVar

from temporalio import workflow
from temporalio.exceptions import (
    ActivityError,
    ApplicationError,
    CancelledError,
    ChildWorkflowError,
    FailureError,
    is_cancelled_exception,
)
from temporalio.exceptions import (
    TimeoutError as StepTimeoutError,
)

from activities.operations import ClaimOrder, Operations, WaitOrder
from domain.next_looks import silent_look_max_s
from domain.operations import OperationState, Order, Outcome, Problem
from domain.profiles import Policy
from workflows import options

NEEDS_A_PERSON = frozenset({"HOST_LEFT_OFF", "HOST_NOT_OFF", "HOST_NOT_BACK"})
"""Codes of problems that no further try by itself would mend: somebody has to go and look."""

CANCEL_BEFORE_WAITS = "cancel-before-waits"
"""Patch: before it, a request to cancel that came while a step was at work was heeded only after
the wait that followed. A recovery that followed an earlier fence heeded it at the end of that, and
a start that could not be undone when its host answered."""

T = TypeVar("T")
Undo = Callable[[], Awaitable[str]]


async def run_operation(
    order: Order, body: Callable[[], Awaitable[str]], undo: Undo | None = None
) -> Outcome:
    """Claim the operation, run its body, close it.

    `body` returns one sentence about what was done. `undo` runs when the operation is cancelled
    and says what was undone or left.
    """
    claim = ClaimOrder(
        operation_id=order.operation_id,
        attempt=order.attempt,
        run_id=workflow.info().first_execution_run_id,
    )
    try:
        await to_its_end(
            workflow.execute_local_activity_method(Operations.claim, claim, **options.RECORD)
        )
    except (ActivityError, ApplicationError) as error:  # a local step's refusal comes bare
        # Another run owns this operation, or it has ended: there is nothing to do or to close.
        return failed(order, problem_of(error))
    try:
        go_on()
        outcome = done(order, await body())
    except (FailureError, asyncio.CancelledError) as error:
        if is_cancelled_exception(error):
            outcome = await to_its_end(_cancelled(order, undo))
        else:
            outcome = failed(order, problem_of(error))
    await to_its_end(close(outcome))
    return outcome


def go_on() -> None:
    """Raise CancelledError once cancelling was asked for: call it before a step begins."""
    if workflow.cancellation_reason() is not None:
        raise asyncio.CancelledError


def go_on_to_wait() -> None:
    """The same before a wait that nothing else would end, after a step that may have ended well."""
    if workflow.cancellation_reason() is not None and workflow.patched(CANCEL_BEFORE_WAITS):
        go_on()


def go_on_anew(order: Order) -> NoReturn:
    """Go on in a new run, which would not know of a request to cancel that came in this one."""
    go_on()
    workflow.continue_as_new(order)


def next_look_s(wait_s: float, policy: Policy) -> float:
    """How long to wait for a silent host next: never late by more than it has waited so far."""
    return min(2 * wait_s, silent_look_max_s(policy))


async def wait_up_to(limit_s: float, holds: Callable[[], bool], summary: str) -> None:
    """Wait until a condition holds, or until the limit is over."""
    try:
        await workflow.wait_condition(
            holds, timeout=options.seconds(limit_s), timeout_summary=summary
        )
    except TimeoutError:
        return


async def to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """Run something that a cancel request must not interrupt."""
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        # A run gets one cancel request, and it has just been used up here. What comes after it can
        # only be the eviction of this run from its worker's cache, which must end the task.
        return await task


async def _cancelled(order: Order, undo: Undo | None) -> Outcome:
    try:
        summary = "nothing was done yet" if undo is None else await undo()
    except FailureError as error:
        problem = problem_of(error)
        said = f"cancelled, but not undone: {problem.detail}"
        return _ended(order, OperationState.NEEDS_ATTENTION, problem=problem, summary=said)
    return _ended(order, OperationState.CANCELLED, summary=summary)


async def close(outcome: Outcome) -> None:
    """Close an operation; of one that is closed already, or tried anew, nothing changes."""
    await workflow.execute_local_activity_method(Operations.close, outcome, **options.RECORD)


async def show_waiting(order: Order, code: str, detail: str) -> None:
    """Say on the operation what it waits for."""
    workflow.set_current_details(f"waiting: {detail}")
    wait = WaitOrder(operation_id=order.operation_id, code=code, detail=detail)
    await workflow.execute_local_activity_method(Operations.wait, wait, **options.RECORD)


async def show_running(order: Order) -> None:
    """Say on the operation that it goes on."""
    workflow.set_current_details("running")
    wait = WaitOrder(operation_id=order.operation_id)
    await workflow.execute_local_activity_method(Operations.wait, wait, **options.RECORD)


def done(order: Order, summary: str) -> Outcome:
    """The outcome of success."""
    return _ended(order, OperationState.SUCCEEDED, summary=summary)


def failed(order: Order, problem: Problem) -> Outcome:
    """The outcome of failure; superseded work is cancelled rather than failed."""
    superseded = problem.code in ("SUPERSEDED", "GENERATION_STALE")
    state = OperationState.CANCELLED if superseded else OperationState.FAILED
    if problem.code in NEEDS_A_PERSON:
        state = OperationState.NEEDS_ATTENTION
    return _ended(order, state, problem=problem)


def cancelled(order: Order, problem: Problem) -> Outcome:
    """The outcome of what never began, or that somebody else ended."""
    return _ended(order, OperationState.CANCELLED, problem=problem)


def _ended(
    order: Order, state: OperationState, *, problem: Problem | None = None, summary: str = ""
) -> Outcome:
    # Temporal may repeat the close of a try after the next try has begun.
    return Outcome(
        operation_id=order.operation_id,
        attempt=order.attempt,
        state=state,
        problem=problem,
        summary=summary,
    )


def failure_of(problem: Problem) -> ApplicationError:
    """What a body raises to end its operation failed; `problem_of` is its inverse."""
    return ApplicationError(
        problem.detail,
        problem.model_dump(mode="json"),
        type=problem.code,
        non_retryable=True,
    )


def problem_of(error: BaseException) -> Problem:
    """The problem at the bottom of a failed step."""
    cause: BaseException | None = error
    while isinstance(cause, ActivityError | ChildWorkflowError) and cause.cause is not None:
        cause = cause.cause
    if isinstance(cause, ApplicationError):
        if cause.details and isinstance(cause.details[0], dict):
            return Problem.model_validate(cause.details[0])
        return Problem(
            code="STEP_FAILED",
            detail=f"{cause.type}: {cause.message}",
            next_step="this is a defect of the engine: report it with the operation's id",
        )
    if isinstance(cause, StepTimeoutError):
        return Problem(
            code="STEP_TIMED_OUT",
            detail=f"a step did not end in time: {cause.message}",
            next_step="check that the engine's workers run, then try again",
            retryable=True,
        )
    if isinstance(cause, CancelledError | asyncio.CancelledError):
        return Problem(code="CANCELLED", detail="cancelled")
    return Problem(code="STEP_FAILED", detail=str(cause))
