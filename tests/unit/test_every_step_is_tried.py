"""No activity is left out of the fault injection."""

import pkgutil
from importlib import import_module

import pytest

import activities
from tests.faults import Fault
from tests.workflow.trials import cases

pytestmark = pytest.mark.unit


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
    assert registered() - tried == set()
