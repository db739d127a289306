"""Operations: the states of an accepted action's durable run, and what crosses its borders."""

from enum import StrEnum
from uuid import UUID

from pydantic import Field

from domain.base import Frozen
from domain.context import ActionContext
from domain.errors import EngineError
from domain.profiles import Policy


class OperationState(StrEnum):
    """`waiting` has a reason and goes on by itself; `needs_attention` needs a person."""

    PENDING = "pending"
    WAITING = "waiting"
    RUNNING = "running"
    PAUSED = "paused"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    NEEDS_ATTENTION = "needs_attention"


OPEN_STATES = (
    OperationState.PENDING,
    OperationState.WAITING,
    OperationState.RUNNING,
    OperationState.PAUSED,
    OperationState.CANCELLING,
)


class StepState(StrEnum):
    """State of one step of an operation."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class WorkflowState(StrEnum):
    """What Temporal says about the workflow of an operation's try."""

    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TERMINATED = "terminated"
    TIMED_OUT = "timed_out"
    CONTINUED = "continued"  # as a new run of the same workflow id
    UNKNOWN = "unknown"  # Temporal never heard of it, or has forgotten it


class Problem(Frozen):
    """A "no" with its code, its reason with numbers, and what to do next."""

    code: str
    detail: str
    next_step: str = ""
    retryable: bool = False
    context: dict[str, str | int | float | None] = Field(default_factory=dict)

    @classmethod
    def of(cls, error: EngineError) -> "Problem":
        """The problem an error stands for."""
        return cls(
            code=error.code,
            detail=error.detail,
            next_step=error.next_step,
            retryable=error.retryable,
            context=dict(error.context),
        )


def is_first(attempt: int) -> bool:
    """Whether a try is the first one, which steps leave out of what they are given."""
    return attempt == 1


class Order(Frozen):
    """What every workflow gets: which operation it runs, on whose behalf, by which policy."""

    operation_id: UUID
    attempt: int = 1  # the operation's try; the workflow id ends in it
    context: ActionContext
    policy: Policy


class Outcome(Frozen):
    """What every workflow returns: the operation's end state and, if it is not a success, why."""

    operation_id: UUID
    state: OperationState
    problem: Problem | None = None
    summary: str = ""
    certificate_id: UUID | None = None  # of a fence
    attempt: int | None = None  # only this try may close so; None: whichever it is in


def workflow_id(operation_id: UUID, attempt: int) -> str:
    """The one place that builds workflow ids; `parse_workflow_id` is its inverse."""
    return f"op/{operation_id}/{attempt}"


def parse_workflow_id(value: str) -> tuple[UUID, int] | None:
    """Operation and try of a workflow id, or None for a workflow that is no operation.

    Other spellings of the same UUID or number are other workflows, so they are no operations.
    """
    parts = value.split("/")
    if len(parts) != 3 or not parts[2].isdigit():
        return None
    try:
        operation_id, attempt = UUID(parts[1]), int(parts[2])
    except ValueError:
        return None
    return (operation_id, attempt) if workflow_id(operation_id, attempt) == value else None
