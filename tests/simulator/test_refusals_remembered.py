"""A refusal is in the audit once, also when the database failed just as it was written."""

import pytest

from simulator.faults.plan import Fault
from tests.simulator.scene import Scene, scene

pytestmark = pytest.mark.unit

API = "api@engine-1"


def refused(on: Scene) -> list[str]:
    rows = on.stage.rows.table("event", "type = 'vm.start.refused'")
    return [row["data"]["code"] for row in rows]


def asks_for_what_is_refused(on: Scene, *faults: Fault) -> None:
    """A VM that runs is to be started, after these faults."""
    on.start()
    on.inject(*faults, Fault(kind="person.start_vm", at_s=0, subject="vm1"))
    on.passes(5.0)
    assert on.troubles.refused == {"StartVm VM_NOT_DOWN": 1}


@pytest.mark.parametrize("kind", ["database.commit_failed", "database.commit_lost"])
def test_a_refusal_whose_event_met_a_failing_commit_is_remembered_once(kind: str) -> None:
    with scene() as on:
        asks_for_what_is_refused(on, Fault(kind=kind, at_s=0, subject=API))
        assert refused(on) == ["VM_NOT_DOWN"]
        assert on.caught == []


def test_a_refusal_that_a_longer_outage_swallows_is_answered_all_the_same() -> None:
    with scene() as on:
        failing = (Fault(kind="database.commit_failed", at_s=0, subject=API) for _ in range(9))
        asks_for_what_is_refused(on, *failing)
        assert refused(on) == []
        assert on.caught == []
