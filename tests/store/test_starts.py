"""Whether a run is still to be started, as a step asks before it defines anything."""

from functools import partial

import pytest

from store import runs, starts
from store.ids import new_id
from tests.store.world import World

pytestmark = pytest.mark.store


async def test_a_run_is_expected_by_its_own_operation_until_it_has_ended(world: World) -> None:
    run = await world.placed(await world.vm(), await world.host())
    mine = partial(world.do, starts.expected, run["id"])
    assert await mine(run["operation_id"])
    assert not await mine(await world.operation())
    assert not await mine(new_id())
    assert await world.do(runs.begin_start, run["id"], run["operation_id"])
    assert await mine(run["operation_id"])
    assert await world.do(runs.started, run["id"], world.now)
    assert await mine(run["operation_id"])
    assert await world.do(runs.end, run["id"], "stopped", world.now)
    assert not await mine(run["operation_id"])


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"state": "connecting"}, True),
        ({"state": "reconciling"}, False),
        ({"state": "down"}, False),
        ({"state": "fencing"}, False),
        ({"epoch": 2}, False),
    ],
)
async def test_nothing_is_expected_on_a_host_that_has_left_service(
    world: World, change: dict[str, str | int], expected: bool
) -> None:
    host = await world.host()
    run = await world.placed(await world.vm(), host)
    await world.put("host", host, **change)
    assert await world.do(starts.expected, run["id"], run["operation_id"]) is expected
    assert (await world.run(run["id"]))["state"] == "placed"
