"""A stop that was to make room and failed half way: ordered again, later each time."""

from datetime import timedelta

import pytest

from engine.queries.vms import ShowVm
from tests.store.engine_room import Engine
from tests.store.test_making_room import Crowded, crowded

pytestmark = pytest.mark.store


async def half_stopped(engine: Engine) -> Crowded:
    """`small` was asked to end to make room for `big`, and its stop has failed."""
    scene = await crowded(engine)
    await scene.place()
    await engine.runs.begin_stop(await scene.ref("small"))
    await scene.close((await scene.stops())[0]["id"])
    await scene.close(scene.start)
    return scene


async def test_a_stop_that_failed_half_done_is_ordered_again_until_the_vm_has_ended(
    engine: Engine,
) -> None:
    scene = await half_stopped(engine)
    await scene.world.put("host", scene.host, state="connecting")
    scene.world.later(30)
    assert await scene.again() == 0
    assert len(await scene.stops()) == 1  # its host could not be told
    await scene.world.put("host", scene.host, state="up")
    for count in (2, 3):
        for _ in range(2):  # the second time, it is under way
            assert await scene.again() == 0
            assert len(await scene.stops()) == count
        (row,) = await engine.rows("made_room")
        assert (row["stop_id"], row["owed"]) == ((await scene.stops())[-1]["id"], 1)
        if count == 2:
            await scene.close(row["stop_id"])
            scene.world.later(60)
    assert (await scene.world.get("vm", scene.vms["small"]))["wanted"]
    await scene.stopped()
    assert await scene.again() == 1
    assert len(await scene.starts("small")) == 1


async def test_each_time_it_is_waited_twice_as_long_and_the_next_time_is_shown(
    engine: Engine,
) -> None:
    scene = await half_stopped(engine)
    shown = ShowVm(vm_id=scene.vms["small"])
    for count, wait_s in enumerate((30, 60, 120, 240), start=1):
        view = await engine.backend.run_query(shown)
        assert view.stops_again_at - scene.world.now == timedelta(seconds=wait_s)
        scene.world.later(wait_s - 1)
        assert await scene.again() == 0
        assert len(await scene.stops()) == count
        scene.world.later(1)
        assert await scene.again() == 0
        assert len(await scene.stops()) == count + 1
        assert (await engine.backend.run_query(shown)).stops_again_at is None, "it is under way"
        await scene.close((await scene.stops())[-1]["id"])


@pytest.mark.parametrize("what", ["disarmed", "room kept", "still starting"])
async def test_no_time_is_shown_while_no_stop_would_be_ordered_again(
    engine: Engine, what: str
) -> None:
    scene = await half_stopped(engine)
    shown = ShowVm(vm_id=scene.vms["small"])
    assert (await engine.backend.run_query(shown)).stops_again_at is not None
    if what == "disarmed":
        await scene.world.put("cluster", scene.world.cluster_id, armed=False)
    else:
        await scene.world.put("operation", scene.start, state="running", finished_at=None)
    if what == "still starting":
        (row,) = await engine.rows("made_room")
        await scene.world.put("made_room", row["id"], waiting=None)
        elsewhere = await scene.world.host("h9")
        await scene.world.placed(scene.vms["big"], elsewhere, operation_id=scene.start)
    scene.world.later(3600)
    assert (await engine.backend.run_query(shown)).stops_again_at is None
    assert await scene.again() == 0
    assert len(await scene.stops()) == 1


async def test_a_stop_that_a_person_asked_for_is_not_tried_again_by_itself(engine: Engine) -> None:
    scene = await crowded(engine)
    await engine.runs.begin_stop(await scene.ref("small"))
    view = await engine.backend.run_query(ShowVm(vm_id=scene.vms["small"]))
    assert view.stops_again_at is None
