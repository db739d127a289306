"""What happens around each step: its row, its heartbeats, and the one form of its errors."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from temporalio import activity
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory
from temporalio.testing import ActivityEnvironment
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput

from domain.errors import Conflict, EngineError, NoAnswer, Unavailable
from domain.inventory import PowerReading
from domain.operations import Problem
from domain.orders import Evidence, Placement
from worker.interceptors import LIMIT_UNKNOWN_S, StepInterceptor, translated

pytestmark = pytest.mark.unit

OPERATION = UUID(int=1)
KEY = (OPERATION, 2, "7")


class Rows:
    """Fits `Steps`."""

    def __init__(self) -> None:
        self.begun: list[tuple[Any, ...]] = []
        self.finished: list[tuple[UUID, int, str, str | None, Problem | None]] = []
        self.failure: EngineError | None = None
        self.asked = asyncio.Event()

    async def begin(
        self, operation_id: UUID, attempt: int, step_id: str, name: str, tries: int, limit_s: float
    ) -> None:
        self.asked.set()
        if self.failure:
            raise self.failure
        self.begun.append((operation_id, attempt, step_id, name, tries, limit_s))

    async def renew(
        self, operation_id: UUID, attempt: int, step_id: str, tries: int, limit_s: float
    ) -> bool:
        raise AssertionError("a step of seconds has no lease")

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
        assert tries == 2
        self.finished.append((operation_id, attempt, step_id, detail, problem))


class Body(ActivityInboundInterceptor):
    """The step itself."""

    def __init__(self, result: object = None, beats: int = 0) -> None:
        self.result, self.ran = result, 0
        self.beats = beats
        self.beaten = asyncio.Event()
        self.seen = 0

    def beat(self, *_details: Any) -> None:
        self.seen += 1
        if self.seen >= self.beats:
            self.beaten.set()

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002
        self.ran += 1
        if self.beats:
            await self.beaten.wait()
        if isinstance(self.result, BaseException):
            raise self.result
        return self.result


class Away(Body):
    """A step that meets the engine's own database away, so often."""

    def __init__(self, times: int, code: str) -> None:
        super().__init__("done")
        self.times, self.code = times, code
        self.again = asyncio.Event()

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002
        result = await super().execute_activity(input)
        if self.ran > 1:
            self.again.set()
        if self.ran <= self.times:
            raise Unavailable(self.code, "the database does not answer")
        return result


def step(**changes: Any) -> ActivityEnvironment:
    """The environment of the second try of a step of an operation's second try."""
    environment = ActivityEnvironment()
    known: dict[str, Any] = {"workflow_id": f"op/{OPERATION}/2", "activity_id": "7", "attempt": 2}
    known |= {"activity_type": "guest.end", "start_to_close_timeout": timedelta(seconds=9)}
    known |= {"heartbeat_timeout": None, "is_local": False}
    environment.info = replace(environment.info, **known | changes)
    return environment


async def run(rows: Rows, body: Body, environment: ActivityEnvironment | None = None) -> Any:
    inbound = StepInterceptor(rows).intercept_activity(body)
    call = ExecuteActivityInput(fn=lambda: None, args=(), executor=None, headers={})
    async with asyncio.timeout(20):
        return await (environment or step()).run(inbound.execute_activity, call)


async def test_a_step_is_shown_from_its_start_with_its_limit_to_its_end_with_a_sentence() -> None:
    rows = Rows()
    assert await run(rows, Body("gone from h1")) == "gone from h1"
    assert rows.begun == [(*KEY, "guest.end", 2, 9.0)]
    assert rows.finished == [(*KEY, "gone from h1", None)]


async def test_a_step_without_a_limit_of_its_own_gets_the_usual_one() -> None:
    rows = Rows()
    await run(rows, Body(), step(start_to_close_timeout=None))
    assert rows.begun[0][-1] == LIMIT_UNKNOWN_S


EVIDENCE = tuple(
    Evidence(device=name, verdict=PowerReading.OFF, took_s=0.1, at="now") for name in "ab"
)


@pytest.mark.parametrize(
    ("result", "sentence"),
    [
        (None, None),
        (True, None),
        ((), None),
        ("a word", "a word"),
        (Placement(no_room="full"), "full"),
        (EVIDENCE, "a: off, b: off"),
    ],
)
async def test_a_result_is_told_in_one_sentence_where_it_has_one(
    result: object, sentence: str | None
) -> None:
    rows = Rows()
    await run(rows, Body(result))
    assert rows.finished == [(*KEY, sentence, None)]


@pytest.mark.parametrize(
    "changes",
    [
        {"activity_type": "operation.close"},
        {"workflow_id": "warmup/1"},
        {"workflow_id": f"op/{OPERATION}"},
        {"workflow_id": None},
    ],
)
async def test_book_keeping_and_work_of_no_operation_get_no_row(changes: dict[str, Any]) -> None:
    rows, body = Rows(), Body("done")
    assert await run(rows, body, step(**changes)) == "done"
    assert (body.ran, rows.begun, rows.finished) == (1, [], [])


async def test_a_failed_step_shows_its_problem_and_fails_in_the_sdks_form() -> None:
    rows = Rows()
    error = Conflict("VM_NOT_DOWN", "db runs", next_step="stop it", vm="db")
    with pytest.raises(ApplicationError) as raised:
        await run(rows, Body(error))
    assert rows.finished == [(*KEY, None, Problem.of(error))]
    assert (raised.value.type, raised.value.message) == ("VM_NOT_DOWN", "db runs")
    assert Problem.model_validate(raised.value.details[0]) == Problem.of(error)


async def test_an_error_outside_of_any_operation_has_the_same_form() -> None:
    with pytest.raises(ApplicationError) as raised:
        await run(Rows(), Body(NoAnswer("HOST_SILENT", "nothing")), step(workflow_id="other"))
    assert raised.value.type == "HOST_SILENT"


@pytest.mark.parametrize(
    ("error", "final", "category"),
    [
        (Conflict("A", "no"), True, ApplicationErrorCategory.BENIGN),
        (Unavailable("B", "later"), False, ApplicationErrorCategory.UNSPECIFIED),
        (NoAnswer("C", "silent"), False, ApplicationErrorCategory.UNSPECIFIED),
    ],
)
def test_what_asking_again_cannot_help_is_not_tried_again(
    error: EngineError, final: bool, category: ApplicationErrorCategory
) -> None:
    made = translated(error)
    assert (made.non_retryable, made.category) == (final, category)


async def test_a_cancelled_step_says_so_and_stays_cancelled() -> None:
    rows = Rows()
    with pytest.raises(asyncio.CancelledError):
        await run(rows, Body(asyncio.CancelledError()))
    ((*_key, _detail, problem),) = rows.finished
    assert problem is not None
    assert problem.code == "CANCELLED"


async def test_a_defect_does_not_leave_its_step_running_for_ever() -> None:
    rows = Rows()
    with pytest.raises(ZeroDivisionError):
        await run(rows, Body(ZeroDivisionError("division by zero")))
    ((*_key, _detail, problem),) = rows.finished
    assert problem is not None
    assert (problem.code, problem.detail) == ("STEP_FAILED", "ZeroDivisionError: division by zero")


async def test_a_step_whose_row_is_refused_does_not_run() -> None:
    rows, body = Rows(), Body("done")
    rows.failure = Conflict("STEP_REFUSED", "no")
    with pytest.raises(ApplicationError) as raised:
        await run(rows, body)
    assert (body.ran, raised.value.non_retryable) == (0, True)


async def test_a_step_whose_row_cannot_be_written_waits_until_it_can() -> None:
    rows, body = Rows(), Body("done")
    rows.failure = Unavailable("DATABASE_UNAVAILABLE", "away")
    task = asyncio.create_task(run(rows, body))
    await rows.asked.wait()
    assert (body.ran, task.done()) == (0, False)
    rows.failure = None
    assert await task == "done"
    assert body.ran == 1


async def test_a_step_with_a_heartbeat_limit_beats_by_itself_until_it_ends() -> None:
    body, environment = Body("done", beats=4), step(heartbeat_timeout=timedelta(seconds=0.03))
    environment.on_heartbeat = body.beat
    assert await run(Rows(), body, environment) == "done"
    others = asyncio.all_tasks() - {asyncio.current_task()}
    await asyncio.wait(others, timeout=20) if others else None
    assert body.seen >= 4
    assert all(task.done() for task in others)


@pytest.mark.parametrize("changes", [{"heartbeat_timeout": None}, {"is_local": True}])
async def test_a_step_without_a_heartbeat_limit_and_a_local_one_do_not_beat(
    changes: dict[str, Any],
) -> None:
    body = Body("done")
    environment = step(**{"heartbeat_timeout": timedelta(seconds=0.001)} | changes)
    environment.on_heartbeat = body.beat
    await run(Rows(), body, environment)
    assert body.seen == 0


async def test_a_step_knows_where_it_runs_while_the_interceptor_is_around_it() -> None:
    class Asking(Body):
        async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002
            return activity.info().workflow_id

    assert await run(Rows(), Asking()) == f"op/{OPERATION}/2"


@pytest.mark.parametrize(
    "code", ["DATABASE_UNAVAILABLE", "DATABASE_BUSY", "COMMIT_OUTCOME_UNKNOWN"]
)
async def test_a_database_that_is_away_costs_a_step_no_try(code: str) -> None:
    rows, body = Rows(), Away(2, code)
    assert await run(rows, body) == "done"
    assert body.ran == 3
    assert len(rows.begun) == 1
    assert rows.finished == [(*KEY, "done", None)]


async def test_a_host_that_is_away_costs_a_try_at_once() -> None:
    rows, body = Rows(), Away(2, "HOST_NO_ANSWER")
    with pytest.raises(ApplicationError):
        await run(rows, body)
    assert body.ran == 1


async def test_a_step_that_waits_for_the_database_can_be_cancelled() -> None:
    body = Away(10**9, "DATABASE_UNAVAILABLE")
    task = asyncio.create_task(run(Rows(), body))
    await body.again.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
