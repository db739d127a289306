"""The audit trail and the stream of events: who did what, when, why, and what it changed."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from engine.actions.affinity import CreateAffinityGroup, EditAffinityGroup
from engine.actions.clusters import ArmCluster
from engine.actions.hosts import ActivateHost, RecoverHost
from engine.actions.imports import ImportVm
from engine.actions.operations import RetryOperation
from engine.actions.vms import StartVm, StopVm
from engine.backend import Options
from engine.grants import Grants
from engine.queries.events import AuditEvents, ListEvents
from store import plumbing
from store.ids import new_id
from store.rows import Row
from tests.store.engine_room import Engine
from tests.store.many import batch, children, ends
from tests.store.world import PERSON, START

pytestmark = pytest.mark.store


async def event(engine: Engine, **values: Any) -> UUID:
    """An event, at the world's time unless told otherwise; its operation names it."""
    name = new_id()
    row: Row = {"id": new_id(), "type": "vm.start.accepted", "subject_type": "vm"}
    row |= {"subject_id": new_id(), "principal": "ann", "correlation_id": "c-1"}
    row |= {"operation_id": name, "data": {}, "at": engine.world.now}
    await engine.world.do(plumbing.append_event, row | values)
    operation_id: UUID = values.get("operation_id", name)
    return operation_id


async def found(engine: Engine, **filters: Any) -> list[UUID]:
    """The operations of the events that the trail gives for filters, newest first."""
    page = await engine.backend.run_query(AuditEvents(**filters))
    return [item.operation_id for item in page.items]


async def test_an_action_tells_who_did_what_why_and_what_it_changed(engine: Engine) -> None:
    cluster = engine.world.cluster_id
    receipt = await engine.act(
        ArmCluster(cluster_id=cluster, armed=False), reason="maintenance", correlation_id="chg-7"
    )
    query = AuditEvents(entity_type="cluster", entity_id=cluster)
    (view,) = (await engine.backend.run_query(query)).items
    assert (view.principal, view.type) == ("ann", "cluster.arm.done")
    assert (view.reason, view.correlation_id) == ("maintenance", "chg-7")
    assert view.operation_id == receipt.operation_id
    assert (view.before["armed"], view.after["armed"]) == (True, False)
    assert view.at == engine.world.now
    assert view.seq is None, "nobody has numbered it yet"


async def the_event(engine: Engine, kind: str) -> Row:
    """The one event of a kind."""
    (row,) = [row for row in await engine.rows("event") if row["type"] == kind]
    return row


async def changed(engine: Engine, kind: str) -> tuple[Any, Any]:
    """Before and after, as the one event of a kind tells them."""
    row = await the_event(engine, kind)
    return row["before"], row["after"]


async def test_what_becomes_an_operation_tells_at_once_what_its_acceptance_has_changed(
    engine: Engine,
) -> None:
    world = engine.world
    host, down = await world.host("h1"), await world.host("h2", state="down")
    failing = await world.host("h3", state="connecting")
    off, on = await world.vm("off", wanted=False), await world.vm("on")
    await world.running(on, host)
    await engine.act(StartVm(vm_id=off))
    await engine.act(StopVm(vm_id=on))
    await engine.act(ActivateHost(host_id=down))
    recovery = RecoverHost(host_id=failing, epoch=1, why="silent", reported_by="m1")
    await engine.act(recovery, principal="monitor:m1")
    for kind, before, after in (
        ("vm.start", {"wanted": False}, {"wanted": True}),
        ("vm.stop", {"wanted": True}, {"wanted": False}),
        ("host.activate", {"state": "down"}, {"state": "reconciling"}),
        ("host.recover", {"state": "connecting"}, {"state": "non_responsive"}),
    ):
        assert await changed(engine, f"{kind}.accepted") == (before, after), kind
    assert (await world.get("vm", off))["wanted"]
    assert not (await world.get("vm", on))["wanted"]
    states = {row["name"]: row["state"] for row in await engine.rows("host")}
    assert states == {"h1": "up", "h2": "reconciling", "h3": "non_responsive"}


async def test_a_request_that_got_its_locks_is_told_of_like_one_that_never_waited(
    engine: Engine,
) -> None:
    world = engine.world
    host = await world.host("h1")
    holder = await world.operation(host, kind="host.edit", target_type="host")
    await world.take("host", host, holder)
    wish = ImportVm(host_id=host, guest_id=new_id(), name="old")
    waiting = (
        await engine.backend.run_action(wish, PERSON, options=Options(lock_wait_s=30))
    ).operation_id
    assert (await the_event(engine, "vm.import.waiting"))["data"] == {"name": "old"}
    await ends(engine, holder)
    assert await Grants(world.database, engine.backend).grant() == 1
    event = await the_event(engine, "vm.import.accepted")
    assert (event["operation_id"], event["principal"]) == (waiting, "ann")
    assert event["data"] == {"name": "old", "host": "h1"}


async def test_another_try_tells_what_it_has_changed_and_which_try_it_is(engine: Engine) -> None:
    await engine.world.host()
    vm = await engine.world.vm(wanted=False)
    start = (await engine.act(StartVm(vm_id=vm))).operation_id
    await ends(engine, start, "failed")
    await engine.world.put("vm", vm, wanted=False)
    await engine.act(RetryOperation(operation_id=start))
    told = [row for row in await engine.rows("event") if row["type"] == "vm.start.accepted"]
    assert [row["after"] for row in told] == [{"wanted": True}] * 2
    assert [row["data"].get("attempt") for row in told] == [None, 2]


async def test_a_refusal_is_found_under_the_object_it_was_about(engine: Engine) -> None:
    host = await engine.world.host(state="up")
    error = await engine.refusal(ActivateHost(host_id=host))
    query = AuditEvents(entity_type="host", entity_id=host)
    (view,) = (await engine.backend.run_query(query)).items
    assert (view.type, view.data["code"]) == ("host.activate.refused", error.code)


@pytest.mark.parametrize("many", [False, True], ids=["alone", "in a batch"])
async def test_a_refused_change_of_a_group_is_found_under_the_group(
    engine: Engine, many: bool
) -> None:
    wish = CreateAffinityGroup(cluster_id=engine.world.cluster_id, name="near", together=True)
    await engine.act(wish)
    (group,) = await engine.rows("affinity_group")
    stale = EditAffinityGroup(affinity_group_id=group["id"], expected_version=77, hard=True)
    if many:
        receipt = await batch(engine, [stale])
        (child,) = await children(engine, receipt.operation_id)
        said = (child["target_type"], child["target_id"], child["target_name"])
        assert said == ("affinity_group", group["id"], "near")
    else:
        assert (await engine.refusal(stale)).code == "VERSION_STALE"
    query = AuditEvents(entity_type="affinity_group", entity_id=group["id"])
    (view, *_) = (await engine.backend.run_query(query)).items
    assert (view.type, view.data["code"]) == ("affinity.edit.refused", "VERSION_STALE")


async def test_events_are_found_by_each_thing_that_tells_them_apart(engine: Engine) -> None:
    subject, one = new_id(), new_id()
    mine = await event(
        engine,
        type="host.fence.accepted",
        subject_type="host",
        subject_id=subject,
        principal="bob",
        correlation_id="c-2",
        operation_id=one,
    )
    other = await event(engine)
    assert await found(engine) == [other, mine]
    for filters in (
        {"entity_type": "host"},
        {"entity_id": subject},
        {"entity_type": "host", "entity_id": subject},
        {"type": "host.fence.accepted"},
        {"principal": "bob"},
        {"correlation_id": "c-2"},
        {"operation_id": one},
    ):
        assert await found(engine, **filters) == [mine], filters
    assert await found(engine, principal="bob", correlation_id="c-1") == []
    page = await engine.backend.run_query(AuditEvents(principal="ann", limit=1, count=True))
    assert page.total == 1


async def test_a_time_span_includes_its_beginning_and_not_its_end(engine: Engine) -> None:
    made = []
    for _ in range(3):
        made.append(await event(engine))
        engine.world.later(10)
    first, middle, last = (START + timedelta(seconds=10 * n) for n in range(3))
    assert await found(engine, since=middle) == [made[2], made[1]]
    assert await found(engine, until=middle) == [made[0]]
    assert await found(engine, since=first, until=last) == [made[1], made[0]]
    assert await found(engine, since=last + timedelta(microseconds=1)) == []


async def test_events_of_one_moment_are_paged_without_gap_or_repeat(engine: Engine) -> None:
    made = [await event(engine) for _ in range(5)]
    walked: list[UUID] = []
    cursor: str | None = None
    for _ in range(3):
        query = AuditEvents(limit=2, cursor=cursor, entity_type="vm")
        page = await engine.backend.run_query(query)
        walked += [item.operation_id for item in page.items]
        cursor = page.next_cursor
    assert cursor is None
    assert walked == made[::-1]


async def test_the_stream_gives_what_is_numbered_in_the_order_of_numbers(engine: Engine) -> None:
    made = [await event(engine) for _ in range(3)]
    await engine.world.do(plumbing.number_events, 2)
    page = await engine.backend.run_query(ListEvents())
    assert [(item.seq, item.operation_id) for item in page.items] == [(1, made[0]), (2, made[1])]
    assert page.next_cursor == "2"
    await engine.world.do(plumbing.number_events, 2)
    page = await engine.backend.run_query(ListEvents(after=2))
    assert [item.operation_id for item in page.items] == [made[2]]
    assert (await engine.backend.run_query(ListEvents(after=3))).next_cursor is None
