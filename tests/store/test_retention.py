"""What is old goes to the archive whole; what anything kept refers to stays; ids still answer."""

from typing import Any
from uuid import UUID

import pytest

from domain.errors import NotFound
from engine.actions.clusters import CreateCluster
from engine.actions.operations import CancelOperation
from engine.actions.vms import StartVm
from engine.queries.operations import GetOperation
from engine.records.operations import StepRecords
from engine.retention import Retention
from engine.views import OperationView
from store import incidents, plumbing, runs
from store.ids import new_id
from tests.store.engine_room import Engine, columns

pytestmark = pytest.mark.store

DAY_S = 86400.0


async def tidy(engine: Engine) -> int:
    return await Retention(engine.world.database, 30, engine.world.clock).tidy()


async def shown(engine: Engine, operation: UUID) -> OperationView:
    view: OperationView = await engine.backend.run_query(GetOperation(operation_id=operation))
    return view


async def ended(engine: Engine, **values: Any) -> UUID:
    """An operation that ended now."""
    now = engine.world.now
    times = {"started_at": now, "finished_at": now}
    return await engine.world.operation(**({"state": "succeeded"} | times | values))


async def kept(engine: Engine) -> set[UUID]:
    return set(columns(await engine.rows("operation"), "id"))


async def test_an_old_operation_is_archived_with_its_steps_and_looks_the_same(
    engine: Engine,
) -> None:
    problem = {"code": "NO_ANSWER", "detail": "h1", "next_step": "", "retryable": True}
    operation = await ended(engine, state="failed", problem=problem, reason="Grüße")
    steps = StepRecords(engine.world.database, engine.world.clock)
    for number in ("1", "2"):
        await steps.begin(operation, 1, number, f"guest.{number}", 1, 10.0)
        await steps.finish(operation, 1, number, tries=1, detail="well")
    before = await shown(engine, operation)
    assert await tidy(engine) == 0
    engine.world.later(30 * DAY_S + 1)
    young = await ended(engine)
    assert await tidy(engine) == 1
    assert await kept(engine) == {young}
    assert await engine.rows("step") == []
    assert await shown(engine, operation) == before
    (row,) = await engine.rows("archive")
    assert (row["id"], row["kind"], row["archived_at"]) == (operation, "vm.start", engine.world.now)
    assert await tidy(engine) == 0


async def test_a_tree_goes_leaf_by_leaf_and_is_shown_whole_in_between(engine: Engine) -> None:
    world = engine.world
    parent = await world.operation(kind="batch", state="running")
    children = [await ended(engine, parent_id=parent) for _ in range(3)]
    grandchild = await ended(engine, parent_id=children[0])
    world.later(31 * DAY_S)
    assert await tidy(engine) == 4
    view = await shown(engine, parent)
    assert [child.id for child in view.children] == children
    assert [child.id for child in view.children[0].children] == [grandchild]
    await world.put("operation", parent, state="succeeded", finished_at=world.now)
    world.later(31 * DAY_S)
    assert await tidy(engine) == 1
    assert await kept(engine) == set()
    assert [child.id for child in (await shown(engine, parent)).children] == children


async def test_a_parent_stays_while_a_part_of_it_is_young(engine: Engine) -> None:
    parent = await ended(engine, kind="batch")
    engine.world.later(31 * DAY_S)
    child = await ended(engine, parent_id=parent)
    assert await tidy(engine) == 0
    engine.world.later(31 * DAY_S)
    assert await tidy(engine) == 2
    assert [part.id for part in (await shown(engine, parent)).children] == [child]


async def test_what_an_incident_a_lock_or_a_post_refers_to_is_kept(engine: Engine) -> None:
    world = engine.world
    host = await world.host()
    recovery, locked, told = [await ended(engine) for _ in range(3)]
    incident = await world.incident(host)
    await world.do(incidents.link_operation, incident, recovery)
    await world.do(incidents.close, incident, "returned", world.now)
    await world.lock(await world.vm(), locked)
    await world.do(plumbing.post, new_id(), told, world.now, plumbing.CANCEL)
    open_one = await world.operation(state="waiting")
    world.later(400 * DAY_S)
    await tidy(engine)
    assert await kept(engine) == {recovery, locked, told, open_one}


async def test_ended_runs_go_with_their_operation_but_never_a_vms_newest(engine: Engine) -> None:
    world = engine.world
    host, vm = await world.host(), await world.vm()
    past = []
    for _ in range(3):
        operation = await ended(engine)
        run = await world.running(vm, host, operation_id=operation)
        assert await world.do(runs.end, run["id"], "stopped", world.now)
        past.append(operation)
    world.later(31 * DAY_S)
    assert await tidy(engine) == 2
    assert await kept(engine) == {past[2]}
    assert columns(await engine.rows("vm_run"), "operation_id") == [past[2]]
    documents = columns(await engine.rows("archive"), "document")
    assert [len(document["runs"]) for document in documents] == [1, 1]


async def test_no_run_after_a_lost_one_is_archived(engine: Engine) -> None:
    world = engine.world
    host, vm = await world.host(), await world.vm()
    lost = await world.running(vm, host, operation_id=await ended(engine))
    certificate = await world.certificate(host)
    assert await world.do(runs.lose, lost["id"], certificate, world.now)
    other = await world.host("h2")
    for _ in range(2):
        run = await world.running(vm, other, operation_id=await ended(engine))
        assert await world.do(runs.end, run["id"], "stopped", world.now)
    world.later(400 * DAY_S)
    assert await tidy(engine) == 0
    assert len(await engine.rows("vm_run")) == 3


async def test_an_idempotency_key_is_known_for_a_day(engine: Engine) -> None:
    first = await engine.act(CreateCluster(name="c2"), "key-1")
    engine.world.later(DAY_S - 1)
    await tidy(engine)
    again = await engine.act(CreateCluster(name="c2"), "key-1")
    assert (again.operation_id, again.replayed) == (first.operation_id, True)
    engine.world.later(2)
    await tidy(engine)
    assert await engine.rows("idempotency_key") == []
    assert (await engine.refusal(CreateCluster(name="c2"), "key-1")).code == "NAME_TAKEN"


async def test_a_real_operation_goes_with_its_posts_and_its_events_stay(engine: Engine) -> None:
    await engine.world.host()
    vm = await engine.world.vm()
    start = (await engine.act(StartVm(vm_id=vm))).operation_id
    await engine.act(CancelOperation(operation_id=start))
    for row in await engine.rows("outbox"):
        await engine.world.do(plumbing.delivered, row["id"], engine.world.now)
    events = await engine.rows("event")
    before = await shown(engine, start)
    engine.world.later(31 * DAY_S)
    assert await tidy(engine) == 2
    assert await engine.rows("outbox") == []
    assert await engine.rows("event") == events
    assert await shown(engine, start) == before


async def test_many_go_in_several_transactions(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.retention.TOGETHER", 4)
    wanted = {await ended(engine) for _ in range(10)}
    engine.world.later(31 * DAY_S)
    assert await tidy(engine) == 10
    assert set(columns(await engine.rows("archive"), "id")) == wanted


async def test_an_operation_that_never_was_is_not_found_in_the_archive_either(
    engine: Engine,
) -> None:
    with pytest.raises(NotFound):
        await shown(engine, new_id())
