"""The bench waits for what it has asked for, also where Temporal is too busy to take it at once."""

from typing import Any

import pytest

from domain.errors import Unavailable
from tests.workflow.bench import Bench
from worker.temporal_client import TemporalWorkflows

pytestmark = pytest.mark.workflow


async def test_an_operation_whose_start_is_not_taken_at_first_is_started_all_the_same(
    engine: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = TemporalWorkflows.start
    refused: list[str] = []

    async def busy(self: TemporalWorkflows, *given: Any, **more: Any) -> None:
        if not refused:
            refused.append(more["wid"])
            raise Unavailable("TEMPORAL_BUSY", "it did not answer in time")
        await start(self, *given, **more)

    monkeypatch.setattr(TemporalWorkflows, "start", busy)
    await engine.add_vm("db")
    ended = await engine.ended(await engine.start("db"))
    assert (ended["state"], len(refused)) == ("succeeded", 1)
