"""Which guests a monitor reports as ended, and how often; over the real store."""

from collections.abc import AsyncIterator
from uuid import UUID

import pytest

from domain.profiles import Profile
from domain.readings import DomainState, GuestStats, HostReading
from engine.actions.vm_recovery import RecoverVmAction
from engine.backend import Backend
from engine.records.watching import WatchedHost, WatchRecords
from store import runs
from store.rows import Row
from tests.unit.worker.monitor_scene import Scene, reading, until
from worker import guest_watch
from worker.guest_watch import GuestWatch

pytestmark = pytest.mark.unit


class View:
    """One monitor's view of h1, on which `db` runs."""

    def __init__(self, scene: Scene) -> None:
        self.scene, self.world = scene, scene.world
        self.backend = Backend(scene.database, [RecoverVmAction()], [], scene.delivered)
        self.watch = GuestWatch("m1", WatchRecords(scene.database), self.backend, scene.hosts)
        self.vm = UUID(int=0)
        self.run: Row = {}

    async def build(self) -> "View":
        """Start the VM."""
        self.vm = await self.world.vm("db", protected=True)
        self.run = await self.world.running(self.vm, self.scene.host_id)
        return self

    async def host(self) -> WatchedHost:
        """The host as the monitor reads it."""
        (found,) = await WatchRecords(self.scene.database).watched(Profile.BALANCED)
        return found

    async def polls(self, *guests: UUID) -> None:
        """One poll shows these guests."""
        stats = tuple(
            GuestStats(vm_id=vm_id, name="?", state=DomainState.RUNNING) for vm_id in guests
        )
        seen: HostReading = reading().model_copy(update={"guests": stats})
        await self.watch.compare(await self.host(), seen)
        for task in tuple(self.watch.reporting):
            await task

    async def reports(self) -> list[Row]:
        """What was reported."""
        return [row for row in await self.scene.operations() if row["kind"] == "vm.recover"]


@pytest.fixture
async def view(scene: Scene) -> AsyncIterator[View]:
    made = await View(scene).build()
    yield made
    await made.backend.close()


async def test_a_guest_that_a_poll_does_not_show_any_more_is_reported_once(view: View) -> None:
    await view.polls(view.vm)
    assert await view.reports() == []
    for _ in range(3):
        await view.polls()
    (report,) = await view.reports()
    assert (report["target_id"], report["principal"]) == (view.vm, "monitor:m1")
    assert report["params"]["run_id"] == str(view.run["id"])


async def test_a_guest_that_was_gone_before_the_first_poll_is_reported_with_the_second(
    view: View,
) -> None:
    await view.polls()
    assert await view.reports() == []
    await view.polls()
    assert len(await view.reports()) == 1


async def test_a_guest_that_ends_before_any_poll_has_shown_it_is_reported_with_the_second(
    view: View,
) -> None:
    await view.polls(view.vm)
    other = await view.world.vm("app", memory_mib=64)
    placed = await view.world.placed(other, view.scene.host_id)
    await view.polls(view.vm)
    assert await view.world.do(runs.begin_start, placed["id"], placed["operation_id"])
    assert await view.world.do(runs.started, placed["id"], view.world.now)
    await view.polls(view.vm)
    assert await view.reports() == []
    await view.polls(view.vm)
    assert [row["target_id"] for row in await view.reports()] == [other]


async def test_a_start_that_ends_well_behind_a_poll_is_no_end(view: View) -> None:
    await view.polls(view.vm)
    other = await view.world.vm("app", memory_mib=64)
    await view.world.running(other, view.scene.host_id)
    # This poll was taken before `app` was there; only what was known before it can be missing.
    await view.polls(view.vm)
    await view.polls(view.vm, other)
    assert await view.reports() == []


async def test_a_guest_that_was_stopped_meanwhile_is_no_end(view: View) -> None:
    await view.polls(view.vm)
    await view.world.do(runs.end, view.run["id"], "stopped", view.world.now)
    await view.polls()
    await view.polls()
    assert await view.reports() == []


async def test_guests_that_are_none_of_ours_do_not_matter(view: View) -> None:
    await view.polls(view.vm, UUID(int=5))
    await view.polls(view.vm)
    assert await view.reports() == []


async def test_a_refused_report_is_made_again_later_and_more_and_more_seldom(
    view: View, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guest_watch, "REPORT_AGAIN_S", 0.0)
    await view.world.put("cluster", view.world.cluster_id, armed=False)
    await view.polls(view.vm)
    await view.polls()
    await view.polls()
    assert await view.reports() == []
    await view.world.put("cluster", view.world.cluster_id, armed=True)

    async def taken() -> bool:
        await view.polls()
        return len(await view.reports()) == 1

    await until(taken)


async def test_the_rows_are_read_only_when_guests_change(
    view: View, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = 0
    read = WatchRecords.running_on

    async def counted(self: WatchRecords, host: WatchedHost) -> object:
        nonlocal reads
        reads += 1
        return await read(self, host)

    monkeypatch.setattr(WatchRecords, "running_on", counted)
    for _ in range(5):
        await view.polls(view.vm)
    assert reads == 1
    await view.polls(view.vm, UUID(int=5))
    assert reads == 2
    monkeypatch.setattr(guest_watch, "READ_AGAIN_S", 0.0)
    await view.polls(view.vm, UUID(int=5))
    assert reads == 3


async def test_a_new_epoch_is_read_before_anything_is_missed_in_it(view: View) -> None:
    await view.polls(view.vm)
    await view.world.put("host", view.scene.host_id, epoch=2)
    await view.polls()
    await view.polls()
    assert await view.reports() == []
