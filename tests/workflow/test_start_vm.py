"""Starting VMs: placed, started, undone, waiting for room, cancelled."""

import pytest

from tests.workflow.bench import Bench

pytestmark = pytest.mark.workflow


async def test_a_vm_is_placed_started_and_read_back(engine: Bench) -> None:
    await engine.add_vm("db")
    ended = await engine.ended(await engine.start("db"))
    assert ended["state"] == "succeeded", ended
    assert len(engine.copies("db")) == 1
    assert await engine.broken() == []
