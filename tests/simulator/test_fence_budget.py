"""The budget of a fence against its real steps in virtual time: no device answers at all."""

import pytest

from domain.profiles import Policy
from domain.topology import fence_budget
from engine.refs import fence_device
from simulator.stage import on_stage, set_stage
from simulator.world.host import Bmc
from tests.simulator.families import OUTLETS

pytestmark = pytest.mark.unit

OWN_S = 2.0
"""What the engine itself takes between the steps of one fence: its hops and transactions."""


def test_a_fence_of_devices_that_never_answer_ends_within_its_budget_and_not_long_before() -> None:
    stage = set_stage(1, OUTLETS)
    host = stage.centre.hosts["h1"]

    async def fenced() -> None:
        stage.engine.start()
        host.reachable, host.bmc = False, Bmc.HANGING
        host.bmcs = dict.fromkeys(host.outlets, Bmc.HANGING)
        await stage.until(lambda: bool(ended()), "no fence has ended")

    def ended() -> list[float]:
        return [
            (row["finished_at"] - row["created_at"]).total_seconds()
            for row in stage.rows.table("operation", "kind = 'host.fence'")
            if row["finished_at"]
        ]

    with on_stage(stage) as run:
        run(fenced())
        devices = stage.rows.table("fence_device")
        mine = [
            fence_device(row) for row in devices if row["name"].endswith(("h1", "h1-1", "h1-2"))
        ]
        budget_s = fence_budget(mine, Policy()).total_s
    (took_s,) = ended()
    # The last level is cut three times in vain, so it is never read back.
    never_read_s = 3 * 20.5
    assert len(mine) == 3
    assert budget_s - never_read_s - 15 <= took_s <= budget_s + OWN_S
