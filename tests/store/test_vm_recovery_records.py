"""Rows of runs whose guests ended by themselves: what closes one, what may not, what follows."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from activities.vm_recovery import ExamineOrder, SettleOrder
from domain.ended_guests import NextMove, Verdict, judge
from domain.errors import Conflict, Superseded
from domain.readings import StateReason
from engine.actions.vm_recovery import RecoverVm
from engine.actions.vms import StopVm
from engine.queries.vms import ShowVm
from engine.records.vm_recovery import VmRecoveryRecords
from store import ended_runs, locks, observations
from store.rows import Row
from store.schema_ha import vm_run
from tests.store.engine_room import Engine

pytestmark = pytest.mark.store
CLOSE = Verdict(move=NextMove.CLOSE, why="it crashed", end_reason="guest crashed")


class Case:
    """A protected VM that runs on h1, and the operation that sees to it."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.world = engine, engine.world
        self.records = VmRecoveryRecords(engine.world.database, engine.backend, engine.world.clock)
        self.vm = self.host = self.operation = UUID(int=0)
        self.row: Row = {}

    async def build(self, **vm: Any) -> "Case":
        """Report the end of its guest."""
        self.host = await self.world.host()
        self.vm = await self.world.vm(**{"protected": True} | vm)
        self.row = await self.world.running(self.vm, self.host)
        self.operation = (await self.engine.act(self.report())).operation_id
        return self

    def report(self) -> RecoverVm:
        """As a monitor makes it."""
        return RecoverVm(vm_id=self.vm, run_id=self.row["id"], why="gone", reported_by="m1")

    async def order(self, verdict: Verdict = CLOSE) -> SettleOrder:
        """What the workflow asks for."""
        (row,) = [r for r in await self.engine.rows("operation") if r["id"] == self.operation]
        examine = ExamineOrder(operation_id=self.operation, run=row["order"]["run"], deadline_s=1.0)
        return SettleOrder(examine=examine, verdict=verdict)

    async def settle(self, verdict: Verdict = CLOSE) -> UUID | None:
        """Close the run."""
        return await self.records.settle(await self.order(verdict))

    async def facts_of_crash(self) -> Any:
        """What is known of its end."""
        return await self.records.facts((await self.order()).examine, StateReason.CRASHED)

    async def run(self) -> Row:
        """The run as it is."""
        return await self.world.run(self.row["id"])


async def test_a_run_is_closed_once_and_its_memory_is_free(engine: Engine) -> None:
    case = await Case(engine).build()
    assert await case.settle() is None
    assert await case.settle() is None
    run = await case.run()
    assert (run["state"], run["active"], run["end_reason"]) == ("ended", None, "guest crashed")
    assert (await case.world.get("host", case.host))["memory_reserved_mib"] == 0
    types = [event["type"] for event in await engine.rows("event")]
    assert types.count("vm.ended") == 1
    view = await engine.backend.run_query(ShowVm(vm_id=case.vm))
    assert (view.state, view.end_reason, view.ended_at) == (
        "down",
        "guest crashed",
        engine.world.now,
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"state": "stopping"},
        {"state": "starting"},
        {"epoch": 2},
    ],
    ids=str,
)
async def test_a_run_that_moved_on_is_not_closed(engine: Engine, changes: dict[str, Any]) -> None:
    case = await Case(engine).build()
    await case.world.put("vm_run", case.row["id"], **changes)
    with pytest.raises(Superseded):
        await case.settle()
    assert (await case.run())["active"] == 1


@pytest.mark.parametrize("state", ["non_responsive", "fencing", "reconciling", "maintenance"])
async def test_a_run_on_a_host_out_of_service_is_not_closed(engine: Engine, state: str) -> None:
    case = await Case(engine).build()
    await case.world.put("host", case.host, state=state)
    with pytest.raises(Superseded):
        await case.settle()
    assert (await case.run())["state"] == "running"


async def test_a_run_on_a_host_in_a_later_epoch_is_not_closed(engine: Engine) -> None:
    case = await Case(engine).build()
    await case.world.put("host", case.host, epoch=2)
    closed = await case.world.do(ended_runs.close, case.row["id"], 1, "x", case.world.now)
    assert (closed, (await case.run())["active"]) == (False, 1)


async def test_an_operation_that_lost_its_vm_closes_nothing(engine: Engine) -> None:
    case = await Case(engine).build()
    await case.world.do(locks.free, case.operation)
    for ask in (case.settle, case.facts_of_crash):
        with pytest.raises(Superseded):
            await ask()
    assert (await case.run())["state"] == "running"


async def test_nothing_is_closed_once_the_cluster_is_disarmed(engine: Engine) -> None:
    case = await Case(engine).build()
    await case.world.put("cluster", case.world.cluster_id, armed=False)
    with pytest.raises(Conflict, match="DISARMED"):
        await case.settle()
    facts = await case.records.facts((await case.order()).examine, None)
    assert judge(facts).code == "DISARMED"


async def test_a_restart_is_ordered_in_the_same_transaction_and_once(engine: Engine) -> None:
    case = await Case(engine).build()
    again = Verdict(
        move=NextMove.RESTART,
        why="it crashed",
        end_reason="guest crashed",
        prefer_id=case.host,
        avoid=(UUID(int=9),),
    )
    start = await case.settle(again)
    assert start is not None
    assert [await case.settle(again), await case.records.ordered(case.operation)] == [start, start]
    (row,) = [r for r in await engine.rows("operation") if r["id"] == start]
    order = row["order"]
    assert (row["kind"], row["parent_id"]) == ("vm.start", case.operation)
    assert (order["prefer_id"], order["avoid"]) == (str(case.host), [str(UUID(int=9))])
    holder = await case.world.do(locks.holder, "vm", case.vm)
    assert holder is not None
    assert holder.operation_id == start
    assert [row["operation_id"] for row in await engine.rows("outbox")][-1] == start


async def test_what_somebody_inside_switched_off_is_not_wanted_any_more(engine: Engine) -> None:
    case = await Case(engine).build()
    await case.settle(CLOSE.model_copy(update={"unwanted": True}))
    assert (await case.world.get("vm", case.vm))["wanted"] is False


async def test_only_failures_within_the_window_count(engine: Engine) -> None:
    case = await Case(engine).build()
    world, now = case.world, case.world.now
    for number, (reason, minutes) in enumerate(
        [("guest crashed", 1), ("guest shut down", 2), ("guest failed", 9), ("guest ended", 11)]
    ):
        other = {**case.row, "id": UUID(int=number + 1), "generation": 100 + number}
        other |= {"state": "ended", "active": None, "end_reason": reason}
        other |= {"ended_at": now - timedelta(minutes=minutes)}
        await world.do(ended_runs_insert, other)
    found = await world.do(
        ended_runs.failures_since, case.vm, now - timedelta(minutes=10), but=case.row["id"]
    )
    assert [(now - row["ended_at"]).seconds // 60 for row in found] == [9, 1]


async def ended_runs_insert(connection: Any, row: Row) -> None:
    """An old run."""
    await connection.execute(vm_run.insert().values(**row))


async def test_a_copy_that_another_host_has_shown_is_named(engine: Engine) -> None:
    case = await Case(engine).build()
    other = await case.world.host("h2")
    await case.world.monitor()
    guest = {"vm_id": str(case.vm), "name": "db", "state": "running"}
    sample = {"host_id": other, "memory_total_mib": 1, "memory_free_mib": 1, "cpus": 1}
    sample |= {"took_s": 0.0, "guests": [guest]}
    await case.world.do(
        observations.record_round,
        "m1",
        1,
        warm=True,
        observations=[],
        samples=[sample],
        watched_ms=int,
        now=case.world.now,
    )
    facts = await case.records.facts((await case.order()).examine, StateReason.CRASHED)
    assert (facts.elsewhere, judge(facts).code) == (("h2",), "GUEST_ELSEWHERE")


async def test_an_end_that_somebody_works_on_is_not_taken(engine: Engine) -> None:
    case = await Case(engine).build()
    assert (await engine.refusal(case.report())).code == "OBJECT_BUSY"


async def test_an_end_is_not_taken_while_it_is_being_stopped(engine: Engine) -> None:
    world = engine.world
    vm, host = await world.vm(), await world.host()
    run = await world.running(vm, host)
    await engine.act(StopVm(vm_id=vm))
    refused = await engine.refusal(
        RecoverVm(vm_id=vm, run_id=run["id"], why="gone", reported_by="m1")
    )
    assert refused.code == "OBJECT_BUSY"


async def test_active_runs_of_a_host_are_those_of_its_epoch(engine: Engine) -> None:
    world = engine.world
    vm, other, host = await world.vm(), await world.vm("app"), await world.host()
    run = await world.running(vm, host)
    placed = await world.placed(other, host)
    found = await world.do(ended_runs.running_on, host, 1)
    told = sorted(one[:4] for one in found)
    assert told == sorted([(run["id"], vm, 1, True), (placed["id"], other, 1, False)])
    assert await world.do(ended_runs.running_on, host, 2) == []
