"""One workflow execution as the server keeps it: its state, what is pending, what is to be told."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from temporalio.api.common.v1 import Payload
from temporalio.api.failure.v1 import Failure
from temporalio.bridge.proto.workflow_activation import InitializeWorkflow, WorkflowActivationJob
from temporalio.bridge.proto.workflow_commands import (
    ScheduleActivity,
    StartChildWorkflowExecution,
    UpdateResponse,
)
from temporalio.common import Priority

from domain.operations import WorkflowState
from simulator.temporal.instance import NAMESPACE, Turn
from simulator.temporal.queues import DEFAULT_PRIORITY, Rank

if TYPE_CHECKING:
    from simulator.temporal.steps import Step
    from simulator.temporal.worker import VirtualWorker

SUGGEST_NEW_AFTER = 4096
"""Events after which the server suggests to continue as new (its default)."""

Cancel = Callable[[], None]


class TaskState(StrEnum):
    """Where a run's workflow task is."""

    NONE = "none"  # nothing to tell the workflow
    WAITS = "waits"  # in a queue
    TAKEN = "taken"  # a worker has it


@dataclass(frozen=True)
class StartOf:
    """What an execution is started with."""

    workflow: str
    wid: str
    arguments: tuple[Payload, ...]
    task_queue: str
    task_timeout_s: float
    priority: Priority
    summary: str = ""
    parent: "Run | None" = None
    headers: Mapping[str, Payload] = field(default_factory=dict)
    memo: Mapping[str, Payload] = field(default_factory=dict)
    attributes: Mapping[str, Payload] = field(default_factory=dict)


@dataclass(frozen=True)
class Begun:
    """A workflow task that a worker has taken."""

    number: int
    jobs: list[WorkflowActivationJob]
    known: int  # recorded turns that came before it


@dataclass
class Child:
    """A child that a run waits for."""

    command: StartChildWorkflowExecution
    run: "Run"


class Update:
    """An update that was asked for, and how far it has come."""

    def __init__(self) -> None:
        self.accepted = False
        self.rejected: Failure | None = None
        self.failure: Failure | None = None  # its workflow ended before it
        self.result: Payload | None = None

    @property
    def open(self) -> bool:
        """Whether an answer is still to come."""
        return self.rejected is None and self.failure is None and self.result is None

    def take(self, response: UpdateResponse) -> None:
        """What the workflow says: accepted, rejected, or done."""
        if response.HasField("accepted"):
            self.accepted = True
        elif response.HasField("rejected"):
            self.rejected = response.rejected
        else:
            self.result = response.completed


@dataclass(eq=False)
class Run:
    """One run; its successor after continuing as new is another one under the same id."""

    start: StartOf
    run_id: str
    first_run_id: str
    continued_from: str = ""
    state: WorkflowState = WorkflowState.RUNNING
    result: Payload | None = None
    failure: Failure | None = None
    rank: Rank = field(default_factory=Rank)
    turns: list[Turn] = field(default_factory=list)  # what the server has
    jobs: list[WorkflowActivationJob] = field(default_factory=list)  # to be told
    told: list[WorkflowActivationJob] = field(default_factory=list)  # by the task under way
    task: TaskState = TaskState.NONE
    task_number: int = 0
    scheduled: dict[int, ScheduleActivity] = field(default_factory=dict)  # on their way to a queue
    steps: dict[int, "Step"] = field(default_factory=dict)
    timers: dict[int, Cancel] = field(default_factory=dict)
    children: dict[int, Child] = field(default_factory=dict)
    updates: dict[str, Update] = field(default_factory=dict)
    cancel_asked: bool = False
    memo: dict[str, Payload] = field(default_factory=dict)
    attributes: dict[str, Payload] = field(default_factory=dict)
    waiters: list[Callable[["Run"], None]] = field(default_factory=list)
    sticky: "VirtualWorker | None" = None
    events: int = 1
    release: int = 0  # the least that a worker needs to go on with it

    @property
    def wid(self) -> str:
        """The workflow id."""
        return self.start.wid

    @property
    def open(self) -> bool:
        """Whether it goes on."""
        return self.state is WorkflowState.RUNNING

    def has(self, number: int) -> bool:
        """Whether a task is the one under way."""
        return self.open and self.task is TaskState.TAKEN and number == self.task_number

    def initial_job(self, seed: int, now: datetime) -> WorkflowActivationJob:
        """What the first activation tells."""
        job = WorkflowActivationJob()
        init = job.initialize_workflow
        start = self.start
        init.workflow_type, init.workflow_id = start.workflow, start.wid
        init.arguments.extend(start.arguments)
        init.randomness_seed, init.attempt = seed, 1
        init.first_execution_run_id = self.first_run_id
        init.continued_from_execution_run_id = self.continued_from
        init.workflow_task_timeout.FromMilliseconds(int(start.task_timeout_s * 1000))
        init.priority.CopyFrom(self.priority_of(None)._to_proto())
        init.start_time.FromDatetime(now)
        for given, told in (
            (start.headers, init.headers),
            (start.memo, init.memo.fields),
            (start.attributes, init.search_attributes.indexed_fields),
        ):
            for key, value in given.items():
                told[key].CopyFrom(value)
        self._name_parent(init)
        return job

    def _name_parent(self, init: InitializeWorkflow) -> None:
        above = self.start.parent
        if above is not None:
            init.parent_workflow_info.workflow_id = above.wid
            init.parent_workflow_info.run_id = above.run_id
            init.parent_workflow_info.namespace = NAMESPACE
        root = self
        while root.start.parent is not None:
            root = root.start.parent
        init.root_workflow.workflow_id, init.root_workflow.run_id = root.wid, root.run_id

    def rank_of(self, own: Priority | None = None) -> Rank:
        """Where something of this run stands in a queue: each field its own, or the run's."""
        key = (own.priority_key if own else None) or self.rank.priority or DEFAULT_PRIORITY
        fairness = (own.fairness_key if own else None) or self.rank.fairness
        return Rank(key, fairness, (own.fairness_weight if own else None) or self.rank.weight)

    def priority_of(self, own: Priority | None) -> Priority:
        """The same as the SDK shows it."""
        rank = self.rank_of(own)
        return Priority(rank.priority, rank.fairness or None, rank.weight)
