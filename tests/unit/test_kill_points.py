"""The points at which the lab kills processes are those that a recovery has, none is forgotten."""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
from google.protobuf.json_format import MessageToDict

from tests.lab.kills import POINTS, PROCESSES, Pair, pairs
from tests.lab.points import LEFT_OUT, PARTS, RECOVERY, Step, golden, recovery_steps
from tests.replay.golden import Golden
from tests.unit.reached import activities_of
from worker.parts import WORKFLOWS

pytestmark = pytest.mark.unit

KINDS = {workflow.__name__: workflow for workflow in WORKFLOWS}


@pytest.mark.parametrize("workflow", PARTS)
def test_every_step_of_a_recovery_is_a_kill_point_or_is_left_out_with_a_reason(
    workflow: str,
) -> None:
    reached = activities_of(KINDS[workflow])
    killed = {step.name for step in recovery_steps() if step.workflow == workflow}
    left_out = {name for kind, name in LEFT_OUT if kind == workflow}
    assert killed, "its history was not found"
    assert reached - killed == left_out
    assert all(LEFT_OUT.values())


def test_the_points_are_the_ends_of_all_steps_and_three_between_each_once() -> None:
    ends = [step.end for step in recovery_steps()]
    assert [point for point in POINTS if point.startswith("end:")] == ends
    assert len(POINTS) == len(ends) + 3
    assert set(Counter(POINTS).values()) == {1}


def test_a_child_is_killed_at_its_steps_where_its_recovery_starts_it() -> None:
    order = [step.end for step in recovery_steps()]
    known = (
        "end:RecoverHost:recovery.open_fence",
        "end:FenceHost:fencing.certify",
        "end:RecoverHost:recovery.claim_victims",
        "end:StartVm:guest.start",
        "end:RecoverHost:recovery.report",
    )
    assert [point for point in order if point in known] == list(known)


@dataclass(frozen=True)
class Elsewhere(Golden):
    """A golden whose history lies in another folder."""

    folder: Path = Path()

    @property
    def path(self) -> Path:
        """Where it lies."""
        return self.folder / f"{self.workflow}.json"


def test_a_step_that_a_recovery_gets_is_a_kill_point_once_it_is_recorded(tmp_path: Path) -> None:
    goldens = {workflow: golden(workflow) for workflow in PARTS}
    events = [MessageToDict(event) for event in goldens["StartVm"].read().events]
    place, begun = next(
        (number, event)
        for number, event in enumerate(events)
        if "activityTaskScheduledEventAttributes" in event
    )
    added = json.loads(json.dumps(begun))
    added["activityTaskScheduledEventAttributes"]["activityType"]["name"] = "guest.blessed"
    events.insert(place, added)
    (tmp_path / "StartVm.json").write_text(json.dumps({"events": events}))
    moved = Elsewhere(**vars(goldens["StartVm"]), folder=tmp_path)
    found = recovery_steps(goldens | {"StartVm": moved})
    assert set(found) - set(recovery_steps()) == {Step("StartVm", "guest.blessed")}


def test_a_child_of_a_kind_that_nobody_has_named_is_an_error() -> None:
    alone = {RECOVERY: golden(RECOVERY)}
    with pytest.raises(KeyError, match="FenceHost"):
        recovery_steps(alone)


def test_all_pairs_of_process_and_point_are_tried_and_a_first_row_has_every_one_of_both() -> None:
    every = pairs()
    assert set(every) == {Pair(process, point) for process in PROCESSES for point in POINTS}
    assert len(every) == len(set(every))
    first = every[: len(POINTS)]
    assert {pair.point for pair in first} == set(POINTS)
    assert {pair.process for pair in first} == set(PROCESSES)
