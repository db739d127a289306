"""No activity is left out of the fault injection, in any workflow that runs it."""

import pkgutil
from importlib import import_module

import pytest

import activities
from tests.faults import Fault
from tests.replay.golden import EARLIER, steps_of
from tests.unit.reached import activities_of
from tests.workflow.trials import cases
from worker.parts import WORKFLOWS

pytestmark = pytest.mark.unit

SAME = {("StopVm", "operation.pause"), ("ShutDownHost", "maintenance.stay")}
"""The only checkpoint of a stop comes before its first step, so that nobody can be sure to pause it
there; what gives a maintenance up is beside what a shutdown shares with it."""

REPLACED = {("RecoverHost", "vm.until_ready")}
"""Steps that only workflows take which began before today's code: no scenario leads to them. Their
histories are replayed."""


def registered() -> set[str]:
    """The names of all activities that there are."""
    found = set()
    for info in pkgutil.iter_modules(activities.__path__, f"{activities.__name__}."):
        for kind in list(vars(import_module(info.name)).values()):
            members = list(vars(kind).values()) if isinstance(kind, type) else ()
            names = (getattr(one, "__temporal_activity_definition", None) for one in members)
            found |= {str(definition.name) for definition in names if definition}
    return found


def test_every_activity_is_a_step_of_some_recorded_history_and_so_gets_every_fault() -> None:
    tried = {case.step for case in cases([Fault.FAILS_BEFORE])}
    assert len(registered()) > 40, "they were not found"
    assert registered() - tried == {step for _workflow, step in REPLACED}


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda workflow: workflow.__name__)
def test_every_activity_of_every_workflow_gets_every_fault(workflow: type) -> None:
    name = workflow.__name__
    tried = {case.step for case in cases([Fault.FAILS_BEFORE]) if case.workflow == name}
    reached = activities_of(workflow)
    assert tried <= reached, "what a workflow runs was not found in its source"
    assert {(name, step) for step in reached - tried} <= SAME | REPLACED


def test_what_is_replaced_is_in_a_history_of_earlier_code() -> None:
    earlier = {(golden.workflow, step) for golden in EARLIER for step in steps_of(golden)}
    assert earlier >= REPLACED
