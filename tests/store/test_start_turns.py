"""No more VMs start on one host at once than its cluster allows, whatever they belong to."""

from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.disarming import DISARMED, DisarmMode
from domain.errors import Refused, Superseded
from domain.operations import OperationState, Outcome
from domain.orders import RunRef
from domain.profiles import START_DEADLINE_S
from domain.start_turns import STARTS_AT_LIMIT
from engine.actions.clusters import ArmCluster, EditCluster
from engine.closing import close_operation
from engine.records.runs import ref_of
from engine.records.start_turns import take_turn
from store import runs
from store.rows import Row
from tests.store.engine_room import Engine
from tests.store.test_shown import seen

pytestmark = pytest.mark.store


class Survivor:
    """A host on which parts of other operations start VMs."""

    def __init__(self, engine: Engine, host: UUID) -> None:
        self.engine, self.host = engine, host
        self.refs: dict[str, RunRef] = {}

    async def parent(self, kind: str = "host.recover") -> UUID:
        """What VMs are started for."""
        return await self.engine.world.operation(kind=kind, state="running", run_id="r0")

    async def start(self, name: str, parent: UUID | None, **vm: Any) -> None:
        """A start whose place is taken."""
        world = self.engine.world
        values = {"memory_mib": 10, "protected": True} | vm
        vm_id = await world.vm(name, **values)
        more = {"state": "running", "run_id": "r1", "priority": 2, "parent_id": parent}
        operation = await world.operation(vm_id, **more)
        run = await world.placed(vm_id, self.host, operation_id=operation)
        self.refs[name] = await world.do(ref_of, run)

    async def begins(self, name: str) -> bool:
        """Whether it may be created now; else it says for what it waits."""
        try:
            await self.engine.runs.begin_start(self.refs[name])
        except Refused as refused:
            told = refused
        else:
            return True
        row, run = await self.operation(name), await self.engine.world.run(self.refs[name].run_id)
        assert (told.code, row["reason_code"]) == (STARTS_AT_LIMIT, STARTS_AT_LIMIT)
        assert (row["state"], run["state"]) == ("waiting", "placed")
        assert row["waiting_for"] in told.detail
        return False

    async def runs(self, name: str) -> None:
        """It was read back as running."""
        await self.engine.runs.started(self.refs[name])

    async def operation(self, name: str) -> Row:
        rows = await self.engine.rows("operation")
        return next(row for row in rows if row["id"] == self.refs[name].operation_id)

    async def woken(self) -> list[str]:
        """Whose workflows are to look again."""
        told = [row["operation_id"] for row in await self.engine.rows("outbox") if row["signal"]]
        return sorted(name for name, ref in self.refs.items() if ref.operation_id in told)


async def survivor(engine: Engine, most: int = 1) -> Survivor:
    await engine.act(EditCluster(cluster_id=engine.world.cluster_id, starts_per_host=most))
    return Survivor(engine, await engine.world.host("h3"))


async def test_two_recoveries_share_what_one_host_may_start(engine: Engine) -> None:
    h3 = await survivor(engine)
    await h3.start("a", await h3.parent())
    await h3.start("b", await h3.parent())
    assert await h3.begins("a")
    assert not await h3.begins("b")
    assert (await h3.operation("b"))["waiting_for"] == (
        "h3 starts 1 VMs at once at the most: 1 start there (a)"
    )
    assert (await engine.world.get("host", h3.host))["memory_reserved_mib"] == 20
    assert await h3.begins("a"), "a repeated claim needs no second turn"
    assert await h3.woken() == []
    await h3.runs("a")
    assert await h3.woken() == ["b"]
    assert await h3.begins("b")
    row = await h3.operation("b")
    assert (row["state"], row["reason_code"], row["waiting_for"]) == ("running", None, None)


@pytest.mark.parametrize("kind", ["host.activate", "host.reboot", "host.shutdown", "vm.recover"])
async def test_what_comes_back_after_a_reboot_counts_too(engine: Engine, kind: str) -> None:
    h3 = await survivor(engine)
    await h3.start("a", await h3.parent())
    await h3.start("b", await h3.parent(kind))
    assert await h3.begins("b")
    assert not await h3.begins("a")


@pytest.mark.parametrize("batch", [True, False])
async def test_what_a_person_starts_neither_waits_nor_counts(engine: Engine, batch: bool) -> None:
    h3 = await survivor(engine)
    await h3.start("a", await h3.parent())
    for name in ("b", "c"):
        await h3.start(name, await h3.parent("batch") if batch else None)
    assert await h3.begins("b")
    assert await h3.begins("a")
    assert await h3.begins("c")


async def test_another_host_has_turns_of_its_own(engine: Engine) -> None:
    h3 = await survivor(engine)
    recovery = await h3.parent()
    await h3.start("a", recovery)
    there = Survivor(engine, await engine.world.host("h4"))
    await there.start("b", recovery)
    assert await h3.begins("a")
    assert await there.begins("b")


async def test_a_start_that_is_undone_gives_its_turn_to_the_next_one(engine: Engine) -> None:
    h3 = await survivor(engine)
    for name in ("a", "b"):
        await h3.start(name, await h3.parent())
    assert await h3.begins("a")
    assert not await h3.begins("b")
    a = h3.refs["a"]
    assert await engine.runs.begin_withdraw(a.operation_id, a.spec.vm_id)
    assert await h3.woken() == ["b"]
    assert await h3.begins("b")


async def test_a_start_whose_operation_was_closed_has_no_turn(engine: Engine) -> None:
    h3 = await survivor(engine)
    for name in ("a", "b"):
        await h3.start(name, await h3.parent())
    assert await h3.begins("a")
    gone = Outcome(operation_id=h3.refs["a"].operation_id, state=OperationState.FAILED)
    assert await engine.world.do(close_operation, gone, engine.world.now)
    assert await h3.begins("b")


async def test_a_start_that_hangs_keeps_nobody_waiting_for_ever(engine: Engine) -> None:
    h3 = await survivor(engine)
    for name in ("a", "b"):
        await h3.start(name, await h3.parent())
    assert await h3.begins("a")
    engine.world.later(START_DEADLINE_S / 2)
    assert not await h3.begins("b")
    assert await h3.begins("a"), "a repeated claim begins no new count"
    engine.world.later(START_DEADLINE_S / 2)
    assert await h3.begins("b")


async def test_nobody_overtakes_who_waits_but_the_more_important(engine: Engine) -> None:
    h3 = await survivor(engine)
    one, two = await h3.parent(), await h3.parent()
    for name in ("a", "next", "late"):
        await h3.start(name, one)
    await h3.start("waits", two)
    await h3.start("urgent", two, priority=90)
    assert await h3.begins("a")
    assert not await h3.begins("waits")
    engine.world.later(1)
    await h3.runs("a")
    assert not await h3.begins("next"), "its recovery was accepted first, but it comes later"
    engine.world.later(1)
    assert await h3.begins("urgent")
    assert not await h3.begins("waits")
    await h3.runs("urgent")
    assert await h3.woken() == ["waits"]
    assert not await h3.begins("next")
    assert not await h3.begins("late")
    assert await h3.begins("waits")


async def test_a_lower_limit_holds_for_what_begins_and_a_higher_one_wakes(engine: Engine) -> None:
    h3 = await survivor(engine, most=2)
    cluster = engine.world.cluster_id
    for name in ("a", "b", "c", "d"):
        await h3.start(name, await h3.parent())
    assert await h3.begins("a")
    assert await h3.begins("b")
    await engine.act(EditCluster(cluster_id=cluster, starts_per_host=1))
    assert not await h3.begins("c")
    await h3.runs("a")
    assert await h3.woken() == []
    assert not await h3.begins("c")
    await engine.act(EditCluster(cluster_id=cluster, starts_per_host=3))
    assert await h3.woken() == ["c"]
    assert await h3.begins("c")
    assert await h3.begins("d")


async def test_what_may_not_start_is_told_so_and_not_to_wait_for_its_turn(engine: Engine) -> None:
    h3 = await survivor(engine)
    dead = await engine.world.host("dead")
    incident = await engine.world.incident(dead)
    for name in ("a", "b", "c"):
        await h3.start(name, await h3.parent())
        await engine.world.put("vm_run", h3.refs[name].run_id, incident_id=incident)
    assert await h3.begins("a")
    assert await engine.world.do(runs.end, h3.refs["b"].run_id, "stopped", engine.world.now)
    with pytest.raises(Superseded):
        await engine.runs.begin_start(h3.refs["b"])
    cluster = engine.world.cluster_id
    await engine.act(ArmCluster(cluster_id=cluster, armed=False, mode=DisarmMode.FREEZE))
    with pytest.raises(Refused, match=DISARMED):
        await engine.runs.begin_start(h3.refs["c"])
    await engine.act(ArmCluster(cluster_id=cluster, armed=True))
    await engine.world.put("host", h3.host, state="preparing_maintenance")
    for asked in (engine.runs.expect, engine.runs.begin_start):
        with pytest.raises(Refused, match="left service before c began"):
            await asked(h3.refs["c"])
        with pytest.raises(Superseded):
            await asked(h3.refs["b"])


async def test_what_a_host_shows_by_the_time_its_turn_comes_is_not_started_a_second_time(
    engine: Engine,
) -> None:
    h3, world = await survivor(engine), engine.world
    for name in ("a", "b"):
        await h3.start(name, await h3.parent())
    assert await h3.begins("a")
    assert not await h3.begins("b")
    await world.monitor()
    await seen(world, await world.host("h4"), [h3.refs["b"].spec.vm_id])
    await h3.runs("a")
    with pytest.raises(Refused, match="the last poll of h4 shows a process of b"):
        await engine.runs.begin_start(h3.refs["b"])
    assert (await world.run(h3.refs["b"].run_id))["state"] == "placed"


async def test_of_two_that_claim_the_last_turn_together_one_gets_it(engine: Engine) -> None:
    h3 = await survivor(engine)
    for name in ("a", "b"):
        await h3.start(name, await h3.parent())
    now = engine.world.now

    def claims(ref: RunRef) -> Any:
        async def step(connection: AsyncConnection) -> bool:
            run = await runs.get(connection, ref.run_id)
            assert run is not None
            if await take_turn(connection, run, now) is not None:
                return False
            return await runs.begin_start(connection, ref.run_id, ref.operation_id)

        return step

    got = await engine.world.together(claims(h3.refs["a"]), claims(h3.refs["b"]))
    assert sorted(got) == [False, True]
