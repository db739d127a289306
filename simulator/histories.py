"""Histories that a real server wrote, by tasks: what each told its workflow, what was commanded.

A history keeps no commands, but the events that they became. Both are brought into one readable
form, here from events and in `commanded` from commands, with everything in it that a server is
told: kinds, arguments, limits, retries, queues, priorities, summaries.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message
from temporalio.api.common.v1 import Payload
from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.bridge.proto.workflow_commands import WorkflowCommand
from temporalio.client import WorkflowHistory

from simulator.temporal import failures

Limits = dict[str, float | None]
Shown = dict[str, Any]
"""One command in the form in which both sides are compared."""


class Incomparable(ValueError):
    """A history has an event that the comparison does not know; it is named."""


@dataclass(frozen=True)
class Task:
    """One workflow task that was completed: what it told the workflow, what was commanded."""

    told: tuple[HistoryEvent, ...]
    started_s: float
    completed_s: float
    commanded: tuple[HistoryEvent, ...]


class History:
    """A history by tasks. Times are seconds since it began."""

    def __init__(self, recorded: WorkflowHistory) -> None:
        self.events = {event.event_id: event for event in recorded.events}
        self.first = recorded.events[0]
        self.starts: dict[int, HistoryEvent] = {}
        """Start of the last try of an activity, by the event that scheduled it."""
        self.timed_out: set[int] = set()
        """Activities that a limit ended, by the event that scheduled them."""
        self.tasks = tuple(self._tasks())

    def at_s(self, event: HistoryEvent) -> float:
        """When an event happened."""
        took = event.event_time.ToNanoseconds() - self.first.event_time.ToNanoseconds()
        return took / 1e9

    def caused_by(self, event: HistoryEvent) -> Any:
        """Attributes of the event that an event refers to as its cause."""
        own = body(event)
        for name in ("scheduled_event_id", "initiated_event_id"):
            if name in own.DESCRIPTOR.fields_by_name:
                return body(self.events[getattr(own, name)])
        raise Incomparable(f"event {event.event_id}, {name_of(event)}, names no cause")

    def _tasks(self) -> Iterable[Task]:
        told: list[HistoryEvent] = []
        commanded: list[HistoryEvent] = []
        times: tuple[float, float] | None = None
        heard: tuple[HistoryEvent, ...] = ()
        started_s = 0.0
        for event in self.events.values():
            match name_of(event):
                case "WORKFLOW_TASK_STARTED":
                    started_s = self.at_s(event)
                case "WORKFLOW_TASK_COMPLETED":
                    if times is not None:
                        yield Task(heard, *times, tuple(commanded))
                    heard, told, commanded = tuple(told), [], []
                    times = (started_s, self.at_s(event))
                case name if name in EVENTS:
                    commanded.append(event)
                case _ if not self._aside(event):
                    told.append(event)
        if times is not None:
            yield Task(heard, *times, tuple(commanded))

    def _aside(self, event: HistoryEvent) -> bool:
        """Whether an event tells the workflow nothing."""
        name = name_of(event)
        if name == "ACTIVITY_TASK_STARTED":
            self.starts[body(event).scheduled_event_id] = event
        elif name == "ACTIVITY_TASK_TIMED_OUT":
            self.timed_out.add(body(event).scheduled_event_id)
        elif name == "UPSERT_WORKFLOW_SEARCH_ATTRIBUTES":
            # What a patch writes beside its marker; the workflow did not command it.
            return set(body(event).search_attributes.indexed_fields) == {"TemporalChangeVersion"}
        # A task that failed or timed out is given out again, with all that it told.
        return name == "ACTIVITY_TASK_STARTED" or name.startswith("WORKFLOW_TASK_")

    def shown(self, task: Task) -> list[Shown]:
        """What a task commanded."""
        return [EVENTS[name_of(event)](self, event) for event in task.commanded]


def name_of(event: HistoryEvent) -> str:
    """Its type in words."""
    return EventType.Name(event.event_type).removeprefix("EVENT_TYPE_")


def body(event: HistoryEvent) -> Any:
    """Its attributes."""
    return getattr(event, str(event.WhichOneof("attributes")))


def is_local_result(event: HistoryEvent) -> bool:
    """Whether an event is the end of a local activity."""
    return name_of(event) == "MARKER_RECORDED" and body(event).marker_name == "core_local_activity"


def local_result(event: HistoryEvent) -> dict[str, Any]:
    """What a marker says of a local activity."""
    (data,) = body(event).details["data"].payloads
    found: dict[str, Any] = json.loads(data.data)
    return found


def _activity(_history: History, event: HistoryEvent) -> Shown:
    own = body(event)
    return {
        "activity": own.activity_type.name,
        "id": own.activity_id,
        "queue": own.task_queue.name,
        "arguments": readable(own.input.payloads),
        "limits_s": limits(own),
        "retry": fields(own.retry_policy),
        "priority": fields(own.priority),
        "summary": summary(event),
    }


def _child(_history: History, event: HistoryEvent) -> Shown:
    own = body(event)
    return {
        "child": own.workflow_type.name,
        "id": own.workflow_id,
        "queue": own.task_queue.name,
        "arguments": readable(own.input.payloads),
        "task_limit_s": failures.seconds(own.workflow_task_timeout),
        "close_policy": own.parent_close_policy,
        "reuse_policy": own.workflow_id_reuse_policy,
        "priority": fields(own.priority),
        "summary": summary(event),
    }


def _timer(_history: History, event: HistoryEvent) -> Shown:
    own = body(event)
    wait_s = failures.seconds(own.start_to_fire_timeout)
    return {"timer": own.timer_id, "wait_s": wait_s, "summary": summary(event)}


def _marker(_history: History, event: HistoryEvent) -> Shown:
    if body(event).marker_name == "core_patch":
        (data,) = readable(body(event).details["patch-data"].payloads)
        return {"patch": data["id"]}
    if not is_local_result(event):
        raise Incomparable(f"event {event.event_id} is a marker {body(event).marker_name}")
    found = local_result(event)
    return {"local": found["activity_type"], "id": found["activity_id"]}


def _cancels_activity(history: History, event: HistoryEvent) -> Shown:
    return {"cancels_activity": history.caused_by(event).activity_id}


def _cancels_workflow(_history: History, event: HistoryEvent) -> Shown:
    return {"cancels_workflow": body(event).workflow_execution.workflow_id}


def _continues(_history: History, event: HistoryEvent) -> Shown:
    own = body(event)
    return {"continues": own.workflow_type.name, "arguments": readable(own.input.payloads)}


EVENTS: dict[str, Callable[[History, HistoryEvent], Shown]] = {
    "ACTIVITY_TASK_SCHEDULED": _activity,
    "ACTIVITY_TASK_CANCEL_REQUESTED": _cancels_activity,
    "MARKER_RECORDED": _marker,
    "TIMER_STARTED": _timer,
    "TIMER_CANCELED": lambda _history, event: {"cancels_timer": body(event).timer_id},
    "START_CHILD_WORKFLOW_EXECUTION_INITIATED": _child,
    "REQUEST_CANCEL_EXTERNAL_WORKFLOW_EXECUTION_INITIATED": _cancels_workflow,
    "WORKFLOW_EXECUTION_COMPLETED": lambda _history, event: {
        "completes": readable(body(event).result.payloads)
    },
    "WORKFLOW_EXECUTION_FAILED": lambda _history, event: {
        "fails": (body(event).failure.message, body(event).failure.application_failure_info.type)
    },
    "WORKFLOW_EXECUTION_CANCELED": lambda _history, _event: {"is": "cancelled"},
    "WORKFLOW_EXECUTION_CONTINUED_AS_NEW": _continues,
}
"""Events that are commands of a workflow. Any other event tells it something."""


def readable(payloads: Iterable[Payload]) -> list[Any]:
    """Payloads as the JSON that they are."""
    return [json.loads(payload.data) if payload.data else None for payload in payloads]


def limits(own: Any) -> Limits:
    names = ("schedule_to_close", "schedule_to_start", "start_to_close", "heartbeat")
    return {name: failures.seconds(getattr(own, f"{name}_timeout")) for name in names}


def fields(message: Message) -> dict[str, str]:
    return {field.name: str(value) for field, value in message.ListFields()}


def summary(carrier: HistoryEvent | WorkflowCommand) -> list[Any]:
    return readable([carrier.user_metadata.summary])
