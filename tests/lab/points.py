"""Where a process of the engine can die while ten VMs are recovered: read from recorded histories.

The steps are those of the golden history of a recovery after a power cut, in their order; where it
starts a child, the child's own steps follow, from a golden of that kind of child. So a step that a
recovery gets is a point as soon as its history is recorded, and until then `LEFT_OUT` lacks it and
`tests/unit/test_kill_points.py` says so.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tests.replay.golden import ALL, Golden, step_in

RECOVERY = "RecoverHost"
PARTS: Mapping[str, str] = {
    RECOVERY: "a-power-cut-needs-no-fence",
    "FenceHost": "a-power-cut-needs-no-fence",
    "StartVm": "an-isolated-host-is-fenced",
}
"""Each workflow of a recovery, and the golden whose steps it takes after a power cut. A restart is
the same whatever proved its host dead."""

LEFT_OUT: Mapping[tuple[str, str], str] = {
    (RECOVERY, "operation.wait"): "nothing holds it: the cluster is armed and the controller reads",
    (RECOVERY, "recovery.follow"): "only where an earlier try has begun a part of it",
    (RECOVERY, "recovery.look_back"): "no VM depends on one of another failed host",
    (RECOVERY, "recovery.look_ready"): "no VM has a rule of readiness",
    (RECOVERY, "vm.until_ready"): "only of recoveries that began before looks replaced it",
    ("FenceHost", "fencing.power_off"): "the power reads off; see the trap `agent`",
    ("FenceHost", "fencing.read_level"): "belongs to a power off",
    ("FenceHost", "fencing.check_word"): "nobody has to give a word",
    ("StartVm", "guest.place"): "the recovery has reserved its place",
    ("StartVm", "guest.withdraw"): "no start is refused or given up",
    ("StartVm", "operation.pause"): "nobody pauses it",
    ("StartVm", "operation.wait"): "it has a place at once",
}
"""Steps that these workflows have and a recovery after a power cut does not take, each with the
reason. A worker is killed at them, too: in `tests/workflow/test_crashes.py`, at every recorded step
of every workflow."""

BEFORE_DEFINE = "begin:guest.define"
CLAIMED = "claimed"
ACCEPTED = "accepted"


@dataclass(frozen=True)
class Step:
    """One activity in one kind of workflow."""

    workflow: str
    name: str

    @property
    def end(self) -> str:
        """The point after its effect and before its answer."""
        return f"end:{self.workflow}:{self.name}"


def golden(workflow: str) -> Golden:
    """The history of one part of a recovery."""
    name = PARTS[workflow]
    return next(each for each in ALL if (each.workflow, each.name) == (workflow, name))


def recovery_steps(parts: Mapping[str, Golden] | None = None) -> tuple[Step, ...]:
    """Every step of a recovery after a power cut, in the order of their first time."""
    goldens = {workflow: golden(workflow) for workflow in PARTS} if parts is None else parts
    return tuple(dict.fromkeys(_steps(RECOVERY, goldens)))


def _steps(workflow: str, goldens: Mapping[str, Golden]) -> Iterator[Step]:
    for event in goldens[workflow].read().events:
        if step := step_in(event):
            yield Step(workflow, step)
        elif event.HasField("start_child_workflow_execution_initiated_event_attributes"):
            child = event.start_child_workflow_execution_initiated_event_attributes
            yield from _steps(child.workflow_type.name, goldens)


def points() -> tuple[str, ...]:
    """The end of each step, and three points that no end of a step is.

    `accepted` lies between the commit of the recovery's operation and the start of its workflow,
    `claimed` between the claim of a run and `create()`; at the beginning of its define a start has
    done nothing yet to its host.
    """
    found = [ACCEPTED]
    for step in recovery_steps():
        extra = {"guest.define": BEFORE_DEFINE, "guest.start": CLAIMED}.get(step.name)
        found += [extra, step.end] if extra else [step.end]
    return tuple(found)
