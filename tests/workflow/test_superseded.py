"""What a recovery takes over ends in Temporal, too, wherever its workflow stood."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import pytest

from domain.operations import Outcome
from tests.workflow.bench import Bench, bench, quick, relaying

pytestmark = pytest.mark.workflow

ENDS_WITHIN_S = 30.0


@pytest.fixture
async def unmanned(temporal_address: str, migrated: Path, tmp_path: Path) -> AsyncIterator[Bench]:
    """An engine with hosts in service and no worker: a pause comes before the first step."""
    with quick():
        async with bench(temporal_address, migrated, tmp_path) as made:
            await made.build("h1", "h2", "h3")
            await made.watcher.start()
            yield made


async def paused(made: Bench, operation: UUID) -> None:
    """Wait until it stands still."""

    async def stands() -> bool:
        return bool((await made.operation(operation))["state"] == "paused")

    await made.until(stands, "it was never paused")


@pytest.mark.parametrize("protected", [True, False])
async def test_a_paused_stop_that_a_recovery_takes_over_ends_with_its_workflow(
    unmanned: Bench, protected: bool
) -> None:
    await unmanned.add_vm("db", "h1", protected=protected)
    stop = await unmanned.stop("db")
    await unmanned.workflow(stop).signal("pause")
    async with unmanned.workers(), relaying(unmanned):
        await paused(unmanned, stop)
        unmanned.centre.hosts["h1"].lose_power()
        recovery = await unmanned.ended(await unmanned.report("h1"))
        assert recovery["state"] == "succeeded"
        row = await unmanned.operation(stop)
        assert (row["state"], row["reason_code"]) == ("cancelled", "superseded")
        async with asyncio.timeout(ENDS_WITHIN_S):
            outcome: Outcome = await unmanned.workflow(stop).result()
        await unmanned.idle()
        assert await unmanned.operation(stop) == row, f"its end changed it: {outcome}"
        assert await unmanned.broken() == []
