"""What is kept of guest agents: once, of the run that runs now, while nobody is at work on it."""

from datetime import timedelta
from typing import Any

import pytest

from domain.inventory import OnHang
from engine.queries.vms import ShowVm
from engine.records.hanging import HangRecords
from engine.refs import guest_spec
from engine.views import VmDetailView
from store import ended_runs
from store.ended_runs import Running
from store.rows import Row
from tests.store.engine_room import Engine

pytestmark = pytest.mark.store


class Listened:
    """`db` on h1, whose agent is listened to."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.world = engine, engine.world
        self.records = HangRecords(engine.world.database, lambda: engine.world.now)

    async def build(self) -> "Listened":
        self.host = await self.world.host()
        asked: Row = {"on_hang": OnHang.RESTART, "hang_after_s": 40, "protected": True}
        self.vm = await self.world.vm("db", **asked)
        await self.world.running(self.vm, self.host)
        return self

    async def run(self) -> Running:
        (found,) = await self.world.do(ended_runs.running_on, self.host, 1)
        assert isinstance(found, Running)
        return found

    async def silent(self, by: str = "m1") -> bool:
        ref = await self.engine.ref(self.host)
        return await self.records.silent(ref, await self.run(), 42.0, by)

    async def heard(self) -> None:
        await self.records.heard(await self.engine.ref(self.host), await self.run(), "m1")

    async def events(self, kind: str) -> list[Row]:
        return [row for row in await self.engine.rows("event") if row["type"] == kind]


@pytest.fixture
async def db(engine: Engine) -> Listened:
    return await Listened(engine).build()


async def test_the_monitor_reads_who_wants_to_be_listened_to(db: Listened) -> None:
    run = await db.run()
    assert (run.on_hang, run.hang_after_s, run.restarts_hung) == (OnHang.RESTART, 40, True)
    assert (run.agent_heard, run.agent_silent) == (False, False)
    await db.world.put("vm", db.vm, protected=False)
    assert not (await db.run()).restarts_hung


async def test_a_vm_shows_whether_its_agent_was_heard_only_where_it_is_listened_to(
    db: Listened,
) -> None:
    async def told() -> bool | None:
        view: VmDetailView = await db.engine.backend.run_query(ShowVm(vm_id=db.vm))
        return view.agent_heard

    assert await told() is False
    await db.heard()
    assert await told() is True
    await db.world.put("vm", db.vm, on_hang="off")
    assert await told() is None


async def test_of_two_monitors_that_hear_nothing_one_tells_it(db: Listened) -> None:
    assert [await db.silent("m1"), await db.silent("m2")] == [True, False]
    (event,) = await db.events("vm.hung")
    assert event["data"] == {
        "host": "h1",
        "name": "db",
        "why": "its guest agent has been silent for 42 s",
        "monitor": "m1",
        "next": "restart",
    }
    view = await db.engine.backend.run_query(ShowVm(vm_id=db.vm))
    assert view.agent_silent_since == db.world.now - timedelta(seconds=42)
    assert (view.on_hang, view.hang_after_s) == ("restart", 40)


async def test_an_answer_is_kept_once_and_told_only_after_a_silence(db: Listened) -> None:
    await db.heard()
    await db.heard()
    assert (await db.run()).agent_heard
    assert await db.events("vm.answers_again") == []
    await db.silent()
    assert (await db.run()).agent_silent
    await db.heard()
    assert not (await db.run()).agent_silent
    assert len(await db.events("vm.answers_again")) == 1


async def test_a_vm_that_somebody_is_at_work_on_does_not_hang(db: Listened) -> None:
    await db.world.take("vm", db.vm, await db.world.operation(db.vm))
    assert not await db.silent()
    assert await db.events("vm.hung") == []


async def test_a_run_that_is_being_stopped_or_has_moved_on_is_left_alone(db: Listened) -> None:
    run = await db.run()
    ref = await db.engine.ref(db.host)
    await db.world.put("vm_run", run.run_id, state="stopping")
    assert not await db.records.silent(ref, run, 42.0, "m1")
    await db.world.put("vm_run", run.run_id, state="running", epoch=2)
    assert not await db.records.silent(ref, run, 42.0, "m1")
    await db.records.heard(ref, run, "m1")
    (row,) = await db.engine.rows("vm_run")
    assert (row["agent_heard"], row["agent_silent_since"]) == (False, None)


async def test_a_vm_that_is_listened_to_gets_the_channel_at_its_next_start(
    engine: Engine,
) -> None:
    async def spec(**values: Any) -> bool:
        vm = await engine.world.vm(f"vm{len(values)}", **values)
        row = await engine.world.get("vm", vm)
        return guest_spec(row, "qemu", ()).agent

    assert not await spec()
    assert await spec(on_hang=OnHang.REPORT)
