"""A defect that one host brings to light must not blind the monitor to the others."""

from functools import partial
from typing import Any
from uuid import UUID

import pytest

from engine.backend import Backend, Receipt
from engine.records.watching import WatchedHost, WatchRecords
from store import observations
from store.rows import Row
from tests.unit.worker.monitor_scene import SILENT, Scene, until

pytestmark = pytest.mark.unit


async def reaches(scene: Scene, host: UUID, state: str) -> None:
    async def there() -> bool:
        return bool((await scene.world.get("host", host))["state"] == state)

    await until(there)


async def recorded(scene: Scene, host: UUID) -> list[Row]:
    return await scene.world.do(observations.latest, host)


@pytest.mark.usefixtures("patient")
async def test_a_host_whose_miss_cannot_be_written_hides_no_other(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, missed = await scene.world.host("h2"), WatchRecords.missed

    async def defective(self: WatchRecords, host: WatchedHost, why: str, by: str) -> None:
        if host.name == "h1":
            raise LookupError("a name that no column holds")
        await missed(self, host, why, by)

    monkeypatch.setattr(WatchRecords, "missed", defective)
    for name in ("h1", "h2"):
        scene.answer(SILENT, name)
    async with scene.watched():
        await reaches(scene, other, "connecting")
        await until(partial(recorded, scene, other))
        assert await scene.state() == "up"
        monkeypatch.setattr(WatchRecords, "missed", missed)
        await reaches(scene, scene.host_id, "connecting")


@pytest.mark.usefixtures("impatient")
async def test_a_host_whose_failure_cannot_be_reported_hides_no_other(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, run_action = await scene.world.host("h2"), Backend.run_action

    async def defective(self: Backend, params: Any, *args: Any, **more: Any) -> Receipt:
        if params.host_id == scene.host_id:
            raise LookupError("a defect")
        return await run_action(self, params, *args, **more)

    monkeypatch.setattr(Backend, "run_action", defective)
    for name in ("h1", "h2"):
        scene.answer(SILENT, name)
    async with scene.watched():
        await reaches(scene, other, "non_responsive")
        await scene.rounds(3)
        assert await scene.state() == "connecting"
        monkeypatch.setattr(Backend, "run_action", run_action)
        await reaches(scene, scene.host_id, "non_responsive")


@pytest.mark.usefixtures("patient")
async def test_a_round_that_cannot_be_recorded_is_not_the_last(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = WatchRecords.record

    async def defective(self: WatchRecords, *_: Any, **__: Any) -> None:
        raise LookupError("a defect")

    monkeypatch.setattr(WatchRecords, "record", defective)
    async with scene.watched():
        await scene.rounds(3)
        monkeypatch.setattr(WatchRecords, "record", record)

        await until(partial(recorded, scene, scene.host_id))


@pytest.mark.usefixtures("patient")
async def test_samples_that_cannot_be_pruned_do_not_end_the_watch(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[object] = []

    async def defective(self: WatchRecords, before: object) -> int:
        tried.append(before)
        raise LookupError("a defect")

    monkeypatch.setattr(WatchRecords, "prune", defective)
    async with scene.watched():
        await until(lambda: tried)
        await scene.rounds(3)
