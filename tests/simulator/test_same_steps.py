"""A whole failure in the simulated data centre leads the workflows through the real server's steps.

The agreement of `test_agreement.py` is about virtual Temporal alone, which is told what happened
outside. Here nothing is told: the simulator's world, monitor and store lead to the commands, and
they are those of the golden that was recorded from the same scenario.
"""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict

from simulator.setup import HostSetup, Setup, VmSetup
from simulator.stage import Stage, on_stage, set_stage
from simulator.world.network import Net
from tests.replay.golden import ALL

pytestmark = pytest.mark.replay

SETUP = Setup(
    hosts=tuple(HostSetup(name=name) for name in ("h1", "h2", "h3")),
    vms=(
        VmSetup(name="db", host="h1", priority=90),
        VmSetup(name="mail", host="h1", priority=80),
        VmSetup(name="web", host="h1", after=("db",)),
        VmSetup(name="batch", host="h1", protected=False),
    ),
)
"""What `tests/workflow/failovers.py` puts on the host that is to fail."""

WARM_S = 10.0
ENDS_S = 180.0
Steps = list[tuple[str, str, str]]


def power_cut(stage: Stage) -> None:
    stage.centre.hosts["h1"].lose_power()


def isolation(stage: Stage) -> None:
    stage.centre.networks[Net.MANAGEMENT].isolate("h1")


def played(deed: Callable[[Stage], None], seed: int) -> Stage:
    """A stage on which `h1` failed and everything was done about it."""
    stage = set_stage(seed, SETUP)

    def over() -> bool:
        found = stage.rows.table("incident")
        return bool(found) and not any(row["open"] for row in found)

    async def main() -> None:
        stage.engine.start()
        await asyncio.sleep(WARM_S)
        deed(stage)
        await stage.until(over, "the recovery never ended", ENDS_S)
        await asyncio.sleep(1)

    with on_stage(stage) as run:
        run(main())
    assert stage.defects == []
    return stage


def steps_of(commands: list[dict[str, Any]]) -> Steps:
    """Commands by kind, type of what is called, and the summary that a person reads."""
    found: Steps = []
    for command in commands:
        (kind,) = (key for key in command if key != "user_metadata")
        own = command[kind]
        called = own.get("activity_type") or own.get("workflow_type") or ""
        found.append((kind, called, command.get("user_metadata", {}).get("summary", "")))
    return found


def simulated(stage: Stage, workflow: str) -> list[Steps]:
    """What each run of a workflow commanded, of those that ended after the failure."""
    runs = [chain[-1] for chain in stage.server.runs.values()]
    return [
        steps_of([readable(command) for turn in run.turns for command in turn.commands])
        for run in runs
        if run.start.workflow == workflow and b'"incident_id":"' in run.start.arguments[0].data
    ]


def readable(command: Any) -> dict[str, Any]:
    """One command as a snapshot shows it."""
    found: dict[str, Any] = MessageToDict(command, preserving_proto_field_name=True)
    if "user_metadata" in found:
        text = command.user_metadata.summary.data
        found["user_metadata"] = {"summary": json.loads(text)}
    return found


def recorded(workflow: str, name: str) -> Steps:
    """What the golden's run commanded."""
    (golden,) = (g for g in ALL if (g.workflow, g.name) == (workflow, name))
    return steps_of(json.loads(golden.snapshot.read_text()))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("deed", "name"),
    [(power_cut, "a-power-cut-needs-no-fence"), (isolation, "an-isolated-host-is-fenced")],
    ids=["power cut", "isolation"],
)
def test_a_simulated_recovery_takes_the_steps_of_the_recorded_one(
    deed: Callable[[Stage], None], name: str, seed: int
) -> None:
    stage = played(deed, seed)
    assert simulated(stage, "RecoverHost") == [recorded("RecoverHost", name)]
    assert simulated(stage, "FenceHost") == [recorded("FenceHost", name)]


def test_each_simulated_restart_takes_the_steps_of_the_recorded_one() -> None:
    stage = played(isolation, 0)
    of_db = recorded("StartVm", "an-isolated-host-is-fenced")
    starts = simulated(stage, "StartVm")
    assert len(starts) == 3
    assert [[each[:2] for each in start] for start in starts] == [[e[:2] for e in of_db]] * 3
