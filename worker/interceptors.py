"""What happens around every step: its row in the operation's tree, heartbeats, one error form.

A database that is away is not the step's trouble: while it is, the step stays where it is and goes
on from its beginning when it is back, within its own limit. Counted as tries, an outage of seconds
would use up those that are meant for a host, and end with a guest destroyed that runs.

This is the only place that turns an `EngineError` into the SDK's `ApplicationError`: the problem
travels as its first detail, so a workflow, the operation and the API all show the same words.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Protocol, TypeVar
from uuid import UUID

import structlog
from temporalio import activity
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory
from temporalio.worker import (
    ActivityInboundInterceptor,
    ExecuteActivityInput,
    Interceptor,
)

from domain.errors import EngineError, Refused, Unavailable
from domain.operations import Problem, parse_workflow_id
from worker.lease import first_limit_s, leased
from workflows import options

log = structlog.get_logger()

T = TypeVar("T")

OURS = frozenset({"DATABASE_UNAVAILABLE", "DATABASE_BUSY", "COMMIT_OUTCOME_UNKNOWN"})
"""Problems of the engine's own database; every step may be repeated, so also after the last."""

OURS_FIRST_S, OURS_MOST_S = 0.1, 2.0
"""First and longest wait for the database, doubled in between. Higher: steps go on later. Lower: a
database that comes back meets all of them at once."""

SILENT = ("operation.", "batch.", "maintenance.")
"""Steps with these prefixes are the operation's own book-keeping and get no row."""

LIMIT_UNKNOWN_S = 60.0


class Steps(Protocol):
    """Where the tree of steps is kept."""

    async def begin(
        self, operation_id: UUID, attempt: int, step_id: str, name: str, tries: int, limit_s: float
    ) -> None:
        """A step, or its next try, begins."""
        ...

    async def renew(
        self, operation_id: UUID, attempt: int, step_id: str, tries: int, limit_s: float
    ) -> bool:
        """This try of a step may be at work for so long from now; False: it is no more."""
        ...

    async def finish(
        self,
        operation_id: UUID,
        attempt: int,
        step_id: str,
        *,
        tries: int,
        detail: str | None = None,
        problem: Problem | None = None,
    ) -> None:
        """A try of a step ended."""
        ...


class StepInterceptor(Interceptor):
    """Put on every worker."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002
        """Wrap the next interceptor."""
        return _Inbound(next, self._steps)


class _Inbound(ActivityInboundInterceptor):
    def __init__(self, following: ActivityInboundInterceptor, steps: Steps) -> None:
        super().__init__(following)
        self._steps = steps

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002
        info = activity.info()
        owner = parse_workflow_id(info.workflow_id or "")
        shown = owner is not None and not info.activity_type.startswith(SILENT)
        try:
            async with _heartbeats():
                if not shown or owner is None:
                    return await _past_outages(lambda: self.next.execute_activity(input))
                return await self._shown(owner, info, input)
        except EngineError as error:
            raise translated(error) from error

    async def _shown(
        self,
        owner: tuple[UUID, int],
        info: activity.Info,
        input: ExecuteActivityInput,  # noqa: A002
    ) -> Any:
        key = (*owner, info.activity_id)
        limit = info.start_to_close_timeout
        limit_s = limit.total_seconds() if limit else LIMIT_UNKNOWN_S
        begun = (*key, info.activity_type, info.attempt, first_limit_s(limit_s))
        await _past_outages(lambda: self._steps.begin(*begun))
        try:
            result = await leased(
                lambda: _past_outages(lambda: self.next.execute_activity(input)),
                lambda lease_s: self._steps.renew(*key, info.attempt, lease_s),
                limit_s,
            )
        except EngineError as error:
            problem = Problem.of(error)
            await _past_outages(
                lambda: self._steps.finish(*key, tries=info.attempt, problem=problem)
            )
            log.warning(
                "step failed",
                step=info.activity_type,
                operation_id=str(owner[0]),
                tries=info.attempt,
                code=error.code,
                why=error.detail,
            )
            raise
        except asyncio.CancelledError:
            problem = Problem(code="CANCELLED", detail="the step was cancelled")
            with contextlib.suppress(EngineError):
                await asyncio.shield(self._steps.finish(*key, tries=info.attempt, problem=problem))
            raise
        except Exception as error:
            # A defect of ours: it is tried again like any other, and shown like any other.
            problem = Problem(code="STEP_FAILED", detail=f"{type(error).__name__}: {error}")
            with contextlib.suppress(EngineError):
                await self._steps.finish(*key, tries=info.attempt, problem=problem)
            raise
        await _past_outages(
            lambda: self._steps.finish(*key, tries=info.attempt, detail=_sentence(result))
        )
        return result


async def _past_outages(work: Callable[[], Awaitable[T]]) -> T:
    """Do something, and again for as long as the engine's own database is in the way."""
    wait_s = OURS_FIRST_S
    while True:
        try:
            return await work()
        except Unavailable as error:
            if error.code not in OURS:
                raise
            log.warning("step waits for the database", code=error.code, why=error.detail)
        await asyncio.sleep(wait_s)
        wait_s = min(2 * wait_s, OURS_MOST_S)


def translated(error: EngineError) -> ApplicationError:
    """The SDK's form of one of our errors."""
    category = (
        ApplicationErrorCategory.BENIGN
        if isinstance(error, Refused)
        else ApplicationErrorCategory.UNSPECIFIED
    )
    return ApplicationError(
        error.detail,
        Problem.of(error).model_dump(mode="json"),
        type=error.code,
        non_retryable=not error.retryable,
        category=category,
    )


def _sentence(result: Any) -> str | None:
    if isinstance(result, str):
        return result
    for name in ("why", "no_room", "summary"):
        value = getattr(result, name, None)
        if isinstance(value, str):
            return value
    if isinstance(result, tuple) and result and hasattr(result[0], "verdict"):
        return ", ".join(f"{item.device}: {item.verdict}" for item in result)
    return None


@asynccontextmanager
async def _heartbeats() -> AsyncIterator[None]:
    """Beat three times a heartbeat limit, so that bodies stay plain; with a beat a cancel comes."""
    info = activity.info()
    if info.is_local or info.heartbeat_timeout is None:
        yield
        return
    every_s = min(info.heartbeat_timeout, options.BEAT).total_seconds() / 3

    async def beat() -> None:
        while True:
            activity.heartbeat()
            await asyncio.sleep(every_s)

    task = asyncio.create_task(beat())
    try:
        yield
    finally:
        task.cancel()
