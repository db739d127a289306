"""A power cut is told by its controller before the poll that it swallowed counts as missed."""

import asyncio
from itertools import pairwise
from typing import Any

import pytest

import worker.early
from activities.ports import PowerSwitch
from activities.power import ask
from domain.inventory import FenceDevice
from domain.profiles import TIMINGS, Profile
from simulator.faults.plan import Fault
from tests.simulator.scene import scene
from worker.early import AGAIN_S

pytestmark = pytest.mark.unit

TIMING = TIMINGS[Profile.BALANCED]
WARM_S = 20.0


def noticed_s(after_s: float) -> float:
    """From a power cut until it is reported, when it comes so long after a while."""
    with scene() as on:
        on.start()
        on.passes(WARM_S + after_s)
        cut_s = on.stage.loop.time()
        on.h1.lose_power()
        on.until(lambda: "incident.opened" in on.kinds)
        opened = next(at for at, kind, _ in on.stage.events if kind == "incident.opened")
        on.until(lambda: not on.stage.rows.table("incident", "open = 1"))
        assert on.watch.violations == []
        return opened - cut_s


@pytest.mark.parametrize("after_s", [0.0, 0.7, 1.3])
def test_a_power_cut_is_reported_before_its_poll_is_missed(
    after_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    early_s = noticed_s(after_s)
    monkeypatch.setattr(worker.early, "LATE_S", 1000.0)
    late_s = noticed_s(after_s)
    assert early_s <= late_s - TIMING.poll_deadline_s / 3
    assert early_s < TIMING.poll_s + TIMING.poll_deadline_s


def test_only_a_host_whose_polls_are_late_is_asked_about_and_only_now_and_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[float] = []

    async def counted(power: PowerSwitch, devices: tuple[FenceDevice, ...]) -> Any:
        asked.append(asyncio.get_running_loop().time())
        return await ask(power, devices)

    monkeypatch.setattr(worker.early, "ask", counted)
    with scene() as on:
        on.start()
        on.passes(WARM_S + 60.0)
        assert asked == []
        on.inject(Fault(kind="host.slow", at_s=0, subject="h1", args={"times": 20.0}))
        on.passes(6 * AGAIN_S)
        assert 2 <= len(asked) <= 7
        assert all(later - sooner >= AGAIN_S for sooner, later in pairwise(asked))
        assert on.stage.rows.find("host", "h1")["state"] == "up"
        assert "incident.opened" not in on.kinds
