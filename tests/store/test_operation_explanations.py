"""Why the decisions of an operation outside incidents came out as they did is kept with it."""

from typing import Any
from uuid import UUID

import pytest

from activities.guests import PlaceOrder
from activities.migrating import ReserveOrder
from domain.ended_guests import judge
from domain.errors import NotFound
from domain.explain_guests import Trouble, explain_verdict
from domain.readings import StateReason
from engine.actions.vms import StartVm
from engine.queries.explaining import ExplainOperation
from engine.records.migrating import MigrationRecords
from engine.retention import Retention
from engine.views_explained import DecisionView, OperationExplanationView
from store import locks, migrating, runs
from store.ids import new_id
from tests.store.engine_room import Engine
from tests.store.test_recovery_records import Death
from tests.store.test_vm_recovery_records import Case

pytestmark = pytest.mark.store

DAY_S = 86400.0


async def told(engine: Engine, operation_id: UUID) -> OperationExplanationView:
    asked = ExplainOperation(operation_id=operation_id)
    view: OperationExplanationView = await engine.backend.run_query(asked)
    return view


async def decided(engine: Engine, operation_id: UUID) -> tuple[DecisionView, ...]:
    return (await told(engine, operation_id)).decisions


async def start(engine: Engine, vm_id: UUID, **values: Any) -> PlaceOrder:
    """A start that a person asked for, as its step finds a place for it."""
    receipt = await engine.act(StartVm(vm_id=vm_id, **values))
    return PlaceOrder(
        operation_id=receipt.operation_id,
        vm_id=vm_id,
        host_id=values.get("host_id"),
        licence_id=None,
        incident_id=None,
    )


async def test_a_start_tells_which_host_it_chose_and_why_not_the_other(engine: Engine) -> None:
    await engine.world.host("h1", memory_mib=2048)
    await engine.world.host("h2", memory_mib=4096)
    order = await start(engine, await engine.world.vm("db", memory_mib=1024))
    assert (await engine.runs.place(order)).run
    view = await told(engine, order.operation_id)
    assert (view.kind, view.target_name, view.incident_id) == ("vm.start", "db", None)
    (one,) = view.decisions
    assert (one.question, one.chosen, one.rule, one.times) == ("vm_place", "h2", "BEST_HOST", 1)
    assert one.why.startswith("4096 MiB were free for the 1024 it needs")
    assert [(r.option, r.why) for r in one.rejected] == [("h1", "2048 MiB are free, on h2 4096")]


async def test_a_step_that_is_repeated_tells_its_place_once(engine: Engine) -> None:
    await engine.world.host("h1", memory_mib=4096)
    order = await start(engine, await engine.world.vm("db"))
    for _ in range(3):
        assert (await engine.runs.place(order)).run
    assert [one.times for one in await decided(engine, order.operation_id)] == [1]


async def test_a_wait_for_room_is_one_decision_with_its_newest_numbers(engine: Engine) -> None:
    host = await engine.world.host("h1", memory_mib=4096, memory_reserved_mib=3500)
    order = await start(engine, await engine.world.vm("db", memory_mib=1024))
    for reserved in (3500, 3600, 3700):
        await engine.world.put("host", host, memory_reserved_mib=reserved)
        engine.world.later(5)
        assert (await engine.runs.place(order)).no_room
    (wait,) = await decided(engine, order.operation_id)
    assert (wait.chosen, wait.rule, wait.times) == ("none", "NO_HOST", 3)
    assert wait.why.endswith("the largest gap on 1 usable hosts is 396 MiB")
    assert (wait.last_at - wait.first_at).total_seconds() == 10
    await engine.world.put("host", host, memory_reserved_mib=0)
    assert (await engine.runs.place(order)).run
    chosen = [(one.chosen, one.times) for one in await decided(engine, order.operation_id)]
    assert chosen == [("none", 3), ("h1", 1)]


async def test_a_start_that_names_its_host_tells_that_no_other_was_weighed(engine: Engine) -> None:
    small = await engine.world.host("h1", memory_mib=2048)
    await engine.world.host("h2", memory_mib=4096)
    order = await start(engine, await engine.world.vm("db"), host_id=small)
    assert (await engine.runs.place(order)).run
    (one,) = await decided(engine, order.operation_id)
    assert (one.chosen, one.rule) == ("h1", "HOST_NAMED")
    assert [r.option for r in one.rejected] == ["any other host"]


async def test_a_place_that_somebody_else_took_meanwhile_is_not_told_as_chosen(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await engine.world.host("h1", memory_mib=4096)
    order = await start(engine, await engine.world.vm("db"))

    async def taken(*_: Any, **_more: Any) -> None:
        return None

    monkeypatch.setattr(runs, "place", taken)
    assert (await engine.runs.place(order)).no_room
    assert await decided(engine, order.operation_id) == ()


async def move(engine: Engine, vm_id: UUID, **values: Any) -> UUID:
    """A migration that has looked for a target three times."""
    world = engine.world
    mover = await world.operation(vm_id, kind="vm.migrate", **values.pop("operation", {}))
    await world.lock(vm_id, mover)
    order = ReserveOrder(
        operation_id=mover, attempt=1, vm_id=vm_id, host_id=None, per_host=1
    ).model_copy(update=values)
    records = MigrationRecords(world.database, engine.backend, world.clock)
    found = [await records.reserve(order) for _ in range(3)]
    assert found[0] == found[1] == found[2]
    return mover


async def test_a_drain_tells_where_each_vm_went_and_why_not_elsewhere(engine: Engine) -> None:
    world = engine.world
    source = await world.host("h1", memory_mib=8192)
    target = await world.host("h2", memory_mib=4096)
    await world.host("h3", memory_mib=2048)
    vm = await world.vm("db", memory_mib=1024)
    await world.running(vm, source)
    drain = await world.operation(source, kind="host.maintain", target_type="host")
    moved = await move(engine, vm, operation={"parent_id": drain})
    (one,) = await decided(engine, drain)
    assert (one,) == await decided(engine, moved)
    assert (one.question, one.subject_name, one.times) == ("vm_target", "db", 1)
    assert (one.chosen, one.rule, one.inputs["from"]) == ("h2", "BEST_HOST", "h1")
    assert [(r.option, r.why) for r in one.rejected] == [("h3", "2048 MiB are free, on h2 4096")]
    other = await world.vm("app", memory_mib=1024)
    await world.running(other, await world.host("h4", memory_mib=1024))
    await move(engine, other, operation={"parent_id": drain})
    _, one = await decided(engine, drain)
    assert one.chosen == "h1"  # which has the most room; the drain itself would have closed it
    assert one.rejected[0].option == "h2"
    assert one.rejected[0].why == "1 VMs are being moved there, 1 is the limit"
    assert (await world.do(migrating.under_way))[1][target] == 1


async def test_a_move_to_a_named_host_without_room_tells_its_numbers_once(engine: Engine) -> None:
    world = engine.world
    home = await world.host("h1", memory_mib=512)
    vm = await world.vm("db", memory_mib=1024, home_id=home)
    await world.running(vm, await world.host("h2", memory_mib=4096))
    moved = await move(engine, vm, host_id=home)
    (one,) = await decided(engine, moved)
    assert (one.chosen, one.rule, one.times) == ("none", "NO_HOST", 3)
    assert [r.option for r in one.rejected] == ["h1", "any other host"]
    await world.put("host", home, memory_mib=8192)
    records = MigrationRecords(world.database, engine.backend, world.clock)
    order = ReserveOrder(operation_id=moved, attempt=1, vm_id=vm, host_id=home)
    assert (await records.reserve(order)).migration
    _, gone = await decided(engine, moved)
    assert (gone.chosen, gone.rule) == ("h1", "HOST_NAMED")
    assert gone.why.startswith("it is its home; 8192 MiB were free")


async def test_what_becomes_of_an_ended_guest_and_where_it_starts_is_one_story(
    engine: Engine,
) -> None:
    case = await Case(engine).build(max_restart=2)
    order = await case.order()
    facts = await case.facts_of_crash()
    verdict = judge(facts)
    disarmed = facts.model_copy(update={"armed": False})
    for seen in (disarmed, disarmed, facts):
        engine.world.later(30)
        why = explain_verdict(seen, judge(seen), Trouble.ENDED)
        await case.records.note_decision(order.examine, why)
    started = await case.settle(verdict)
    assert started is not None
    place = PlaceOrder(
        operation_id=started, vm_id=case.vm, host_id=None, licence_id=None, incident_id=None,
        prefer_id=verdict.prefer_id, avoid=verdict.avoid,
    )  # fmt: skip
    engine.world.later(1)
    assert (await engine.runs.place(place)).run
    kept = await decided(engine, case.operation)
    assert [(one.question, one.chosen, one.rule, one.times) for one in kept] == [
        ("guest_fate", "wait", "DISARMED", 2),
        ("guest_fate", "restart", "WANTED_AND_PROTECTED", 1),
        ("vm_place", "h1", "BEST_HOST", 1),
    ]
    assert kept[1].inputs["reason"] == StateReason.CRASHED
    assert (kept[1].inputs["restarts"], kept[1].inputs["max_restart"]) == (0, 2)


async def test_a_restart_of_a_recovery_tells_what_its_incident_has_kept_on_its_vm(
    engine: Engine,
) -> None:
    dead = await engine.world.host("h1", memory_mib=8192)
    await engine.world.host("h2", memory_mib=8192)
    for name in ("db", "app"):
        await engine.world.running(await engine.world.vm(name, protected=True), dead)
    death = await Death(engine, dead).build()
    restarts = (await death.claim()).restarts
    mine = next(one for one in restarts if one.vm_name == "db")
    view = await told(engine, mine.operation_id)
    assert view.incident_id == death.incident
    kept = [(one.question, one.subject_name) for one in view.decisions]
    assert kept == [("vm_fate", "db"), ("vm_place", "db")]
    assert await engine.rows("operation_decision") == []


async def test_decisions_go_to_the_archive_with_their_operation_and_are_told_from_there(
    engine: Engine,
) -> None:
    world = engine.world
    await world.host("h1", memory_mib=4096)
    parent = await world.operation(kind="batch", state="succeeded", finished_at=world.now)
    vm = await world.vm("db")
    child = await world.operation(
        vm, parent_id=parent, state="succeeded", finished_at=world.now, kind="vm.start"
    )
    await world.take("vm", vm, child)
    order = PlaceOrder(
        operation_id=child, vm_id=vm, host_id=None, licence_id=None, incident_id=None
    )
    placed = (await engine.runs.place(order)).run
    assert placed is not None
    await world.do(runs.end, placed.run_id, "stopped", world.now)
    await world.running(vm, await world.host("h2"))  # its newest run is another's
    await world.do(locks.free, child)
    before = await told(engine, parent)
    assert len(before.decisions) == 1
    world.later(31 * DAY_S)
    await Retention(world.database, 30, world.clock).tidy()
    assert await engine.rows("operation_decision") == []
    assert await told(engine, parent) == before
    assert (await told(engine, child)).decisions == before.decisions


async def test_an_operation_that_never_was_is_not_explained(engine: Engine) -> None:
    with pytest.raises(NotFound, match="OPERATION_NOT_FOUND"):
        await told(engine, new_id())
