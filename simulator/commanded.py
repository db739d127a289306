"""What a simulated run commands, in the form in which `histories` shows what a real one did."""

from collections.abc import Callable, Sequence
from typing import Any

from temporalio.bridge.proto.workflow_commands import WorkflowCommand

from simulator.histories import Incomparable, Limits, Shown, fields, limits, readable, summary
from simulator.temporal import failures
from simulator.temporal.commands import TASK_TIMEOUT_S
from simulator.temporal.instance import Turn


class Commanded:
    """Commands of one run, task by task, in the order in which they reach the server."""

    def __init__(self, workflow: str) -> None:
        self._workflow = workflow
        self._ids: dict[tuple[str, int], str] = {}
        self._locals: dict[int, Shown] = {}
        self._shown: dict[str, Callable[[WorkflowCommand, Any], Shown]] = {
            "schedule_activity": self._activity,
            "start_child_workflow_execution": self._child,
            "request_cancel_activity": self._cancels_activity,
            "cancel_child_workflow_execution": self._cancels_child,
            "request_cancel_external_workflow_execution": self._cancels_external,
            "continue_as_new_workflow_execution": self._continues,
            **PLAIN,
        }
        self.seqs: dict[str, int] = {}
        """Numbers of activities, children and external workflows, by their ids."""

    def shown(self, turns: Sequence[Turn]) -> list[Shown]:
        """What the turns of one task command, as the server gets it."""
        found: list[Shown] = []
        for turn in turns:
            # The end of a local activity is written before what follows from it.
            for job in turn.activation.jobs:
                if job.resolve_activity.is_local:
                    found.append(self._locals[job.resolve_activity.seq])
            for command in turn.commands:
                self._add(found, command)
        return _without_undone(found)

    def _add(self, found: list[Shown], command: WorkflowCommand) -> None:
        kind = str(command.WhichOneof("variant"))
        own = getattr(command, kind)
        if kind == "schedule_local_activity":
            self._locals[own.seq] = {"local": own.activity_type, "id": own.activity_id}
        elif kind in self._shown:
            found.append(self._shown[kind](command, own))
        elif kind != "request_cancel_local_activity":
            raise Incomparable(f"the workflow commands {kind}, which the comparison lacks")

    def _activity(self, command: WorkflowCommand, own: Any) -> Shown:
        self._ids["activity", own.seq] = own.activity_id
        self.seqs[own.activity_id] = own.seq
        return {
            "activity": own.activity_type,
            "id": own.activity_id,
            "queue": own.task_queue,
            "arguments": readable(own.arguments),
            "limits_s": _filled(limits(own)),
            "retry": fields(own.retry_policy) or RETRY,
            "priority": fields(own.priority),
            "summary": summary(command),
        }

    def _child(self, command: WorkflowCommand, own: Any) -> Shown:
        self._ids["child", own.seq] = own.workflow_id
        self.seqs[own.workflow_id] = own.seq
        return {
            "child": own.workflow_type,
            "id": own.workflow_id,
            "queue": own.task_queue,
            "arguments": readable(own.input),
            "task_limit_s": failures.seconds(own.workflow_task_timeout) or TASK_TIMEOUT_S,
            "close_policy": own.parent_close_policy,
            "reuse_policy": own.workflow_id_reuse_policy,
            "priority": fields(own.priority),
            "summary": summary(command),
        }

    def _cancels_activity(self, _command: WorkflowCommand, own: Any) -> Shown:
        return {"cancels_activity": self._ids["activity", own.seq]}

    def _cancels_child(self, _command: WorkflowCommand, own: Any) -> Shown:
        return {"cancels_workflow": self._ids["child", own.child_workflow_seq]}

    def _cancels_external(self, _command: WorkflowCommand, own: Any) -> Shown:
        wid = own.workflow_execution.workflow_id
        self.seqs[wid] = own.seq
        return {"cancels_workflow": wid}

    def _continues(self, _command: WorkflowCommand, own: Any) -> Shown:
        name = own.workflow_type or self._workflow
        return {"continues": name, "arguments": readable(own.arguments)}


def _filled(given: Limits) -> Limits:
    """A server writes down what limits mean that were left out: what the whole may take."""
    whole_s = given["schedule_to_close"]
    inner = ("schedule_to_start", "start_to_close")
    return given | {name: given[name] or whole_s for name in inner}


def _timer(command: WorkflowCommand, own: Any) -> Shown:
    wait_s = failures.seconds(own.start_to_fire_timeout)
    return {"timer": str(own.seq), "wait_s": wait_s, "summary": summary(command)}


RETRY = {
    "initial_interval": "seconds: 1\n",
    "backoff_coefficient": "2.0",
    "maximum_interval": "seconds: 100\n",
}
"""What a server writes down for an activity that says nothing of retries."""

PLAIN: dict[str, Callable[[WorkflowCommand, Any], Shown]] = {
    "start_timer": _timer,
    "set_patch_marker": lambda _command, own: {"patch": own.patch_id},
    "cancel_timer": lambda _command, own: {"cancels_timer": str(own.seq)},
    "complete_workflow_execution": lambda _command, own: {"completes": readable([own.result])},
    "fail_workflow_execution": lambda _command, own: {
        "fails": (own.failure.message, own.failure.application_failure_info.type)
    },
    "cancel_workflow_execution": lambda _command, _own: {"is": "cancelled"},
}
"""Commands that refer to nothing."""


def _without_undone(commands: list[Shown]) -> list[Shown]:
    """A timer that is started and cancelled in one task never reaches the server."""
    started = [each["timer"] for each in commands if "timer" in each]
    undone = [each["cancels_timer"] for each in commands if each.get("cancels_timer") in started]
    return [each for each in commands if _timer_of(each) not in undone]


def _timer_of(shown: Shown) -> str | None:
    found: str | None = shown.get("timer", shown.get("cancels_timer"))
    return found
