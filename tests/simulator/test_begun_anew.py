"""What a decision rests on when the database went away in the middle of it: one begun anew."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from domain.operations import workflow_id
from simulator.invariants.votes import Votes
from simulator.loop import CURRENT, Process
from simulator.setup import Setup
from simulator.tried import TRIED
from simulator.world.network import Net
from tests.simulator.scene import Scene, scene

pytestmark = pytest.mark.unit

HOST, OPERATION = UUID(int=1), UUID(int=2)


def count(on: Scene, kind: str, subject: str) -> int:
    return sum(k == kind and facts["subject"] == subject for _, k, facts in on.stage.events)


def test_a_step_that_waits_for_the_database_is_seen_to_begin_anew() -> None:
    with scene(Setup.small(hosts=4, vms=4)) as on:
        on.start()
        on.passes(30.0)
        on.stage.centre.networks[Net.MANAGEMENT].isolate("h1")
        on.until(lambda: count(on, "step.started", "recovery.assess") == 1)
        assert count(on, TRIED, "recovery.assess") == 1
        on.stage.engine.database_up = False
        on.passes(3.0)
        on.stage.engine.database_up = True
        on.until(lambda: "fence.claimed" in on.kinds)
        assert count(on, "step.started", "recovery.assess") == 1
        assert count(on, TRIED, "recovery.assess") > 1
        assert on.watch.inside == []


@contextmanager
def as_process(process: Process) -> Iterator[None]:
    token = CURRENT.set(process)
    try:
        yield
    finally:
        CURRENT.reset(token)


class Told:
    """A stage of which a test says what its rows are, and what time it is."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.tables: dict[str, list[dict[str, Any]]] = {
            "cluster": [{"id": 1, "profile": "balanced"}],
            "host": [{"id": HOST, "name": "h1", "cluster_id": 1}],
            "monitor": [],
        }
        self.loop = SimpleNamespace(time=lambda: self.now_s)
        self.rows = SimpleNamespace(table=lambda name, *_, **__: self.tables[name])


@pytest.mark.parametrize("anew", [True, False])
def test_only_what_a_judgement_could_not_know_speaks_against_its_fence(*, anew: bool) -> None:
    stage: Any = Told()
    votes = Votes(stage)

    process = Process("worker", "engine-1", 7)

    def begins(at_s: float) -> None:
        step = {"subject": "recovery.assess", "workflow": workflow_id(OPERATION, 1)}
        votes.happened(at_s, TRIED, step | {"process": process.title, "step": "3/1"})

    begins(1.0)
    stage.now_s = 2.0
    stage.tables["observation"] = [{"host_id": HOST, "monitor": "m1", "heard_sequence": 7}]
    assert votes.look(frozenset({"observation"})) == []
    if anew:
        begins(3.0)
    stage.now_s = 4.0
    decision = {"move": "fence", "at": "any", "eyes": []}
    stage.tables["incident"] = [
        {"id": 3, "host_id": HOST, "epoch": 1, "operation_id": OPERATION, "decision": decision}
    ]
    votes.look(frozenset({"monitor"}))
    with as_process(process):
        votes.look(frozenset({"incident"}))
    found = votes.claimed({"host_id": HOST, "epoch": 1})
    assert [check for check, _ in found] == ([] if anew else ["heard"])
