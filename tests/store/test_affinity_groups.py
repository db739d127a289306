"""Affinity groups: changed by their versions, never contradicting, and kept by every placement."""

import asyncio
from typing import Any
from uuid import UUID

import pytest

from activities.guests import PlaceOrder
from domain.errors import EngineError, Invalid
from domain.orders import Placement
from engine.actions.affinity import CreateAffinityGroup, DeleteAffinityGroup, EditAffinityGroup
from engine.actions.base import Params
from store import affinity, operations
from store.ids import new_id
from store.rows import Row
from tests.store.engine_room import Engine, columns
from tests.store.test_recovery_records import Death

pytestmark = pytest.mark.store


def wish(engine: Engine, name: str, *vms: UUID, **more: Any) -> CreateAffinityGroup:
    given: dict[str, Any] = {"cluster_id": engine.world.cluster_id, "name": name, "hard": True}
    return CreateAffinityGroup.model_validate(given | {"together": True, "vm_ids": vms} | more)


async def ended(engine: Engine, params: Params) -> Row:
    receipt = await engine.act(params)
    row = await engine.world.do(operations.get, receipt.operation_id)
    assert row is not None
    return row


async def create(engine: Engine, name: str, *vms: UUID, **more: Any) -> UUID:
    group_id: UUID = (await ended(engine, wish(engine, name, *vms, **more)))["target_id"]
    return group_id


async def place(engine: Engine, vm: UUID, host: UUID | None = None) -> Placement:
    operation = await engine.world.operation(vm)
    await engine.world.lock(vm, operation)
    order: Row = {"operation_id": operation, "vm_id": vm, "host_id": host, "licence_id": None}
    return await engine.runs.place(PlaceOrder(**order, incident_id=None))


async def vms_of(engine: Engine, *names: str) -> list[UUID]:
    return [await engine.world.vm(name) for name in names]


async def test_a_group_is_created_changed_and_deleted_with_its_members(engine: Engine) -> None:
    world = engine.world
    db, web = await vms_of(engine, "db", "web")
    host = await world.host()
    group = await create(engine, "near", db, db, host_ids=(host,))
    (row,) = await world.do(affinity.groups)
    assert (row["vm_ids"], row["host_ids"], row["version"]) == ((db,), (host,), 1)
    edit = EditAffinityGroup(affinity_group_id=group, hard=False, vm_ids=(web, db), host_ids=())
    said = await ended(engine, edit)
    assert said["summary"] == "changed hard, host_ids, vm_ids; VMs that run stay where they are"
    (row,) = await world.do(affinity.groups, id=group)
    assert (row["vm_ids"], row["host_ids"]) == (tuple(sorted((db, web))), ())
    assert (row["hard"], row["version"]) == (False, 2)
    await ended(engine, DeleteAffinityGroup(affinity_group_id=group, expected_version=2))
    for table in ("affinity_group", "affinity_vm", "affinity_host"):
        assert await engine.rows(table) == [], table


async def test_a_change_that_finds_a_group_as_wanted_changes_nothing(engine: Engine) -> None:
    db, web = await vms_of(engine, "db", "web")
    group = await create(engine, "near", db, web)
    same = EditAffinityGroup(affinity_group_id=group, vm_ids=(web, db, web), name="near")
    assert (await ended(engine, same))["summary"] == "nothing to change"
    assert columns(await engine.rows("affinity_group"), "version") == [1]


@pytest.mark.parametrize("build", [EditAffinityGroup, DeleteAffinityGroup])
async def test_a_request_about_an_older_group_is_refused(
    engine: Engine, build: type[EditAffinityGroup | DeleteAffinityGroup]
) -> None:
    group = await create(engine, "near")
    await engine.act(EditAffinityGroup(affinity_group_id=group, hard=False))
    error = await engine.refusal(build(affinity_group_id=group, expected_version=1))
    assert (error.code, error.context["version"]) == ("VERSION_STALE", 2)


async def test_members_that_are_not_there_or_elsewhere_are_all_named(engine: Engine) -> None:
    error = await engine.refusal(wish(engine, "near", new_id(), host_ids=(new_id(),)))
    assert [one.code for one in error.problems] == ["VM_NOT_FOUND", "HOST_NOT_FOUND"]


async def test_rules_that_cannot_all_be_kept_are_refused_with_their_vms(engine: Engine) -> None:
    db, web, app = await vms_of(engine, "db", "web", "app")
    await create(engine, "near", db, web)
    await create(engine, "close", web, app)
    error = await engine.refusal(wish(engine, "apart", db, app, together=False))
    assert (error.code, type(error)) == ("AFFINITY_CONTRADICTION", Invalid)
    assert "app and db" in error.detail or "db and app" in error.detail
    soft = await create(engine, "apart", db, app, together=False, hard=False)
    harder = EditAffinityGroup(affinity_group_id=soft, hard=True)
    assert (await engine.refusal(harder)).code == "AFFINITY_CONTRADICTION"


async def test_two_groups_that_contradict_each_other_are_not_both_made(engine: Engine) -> None:
    db, web = await vms_of(engine, "db", "web")
    wishes = [wish(engine, "near", db, web), wish(engine, "apart", db, web, together=False)]
    ends = await asyncio.gather(*(engine.act(one) for one in wishes), return_exceptions=True)
    refused = [end for end in ends if isinstance(end, EngineError)]
    assert [error.code for error in refused] == ["AFFINITY_CONTRADICTION"]
    assert len(await engine.rows("affinity_group")) == 1


async def test_an_old_contradiction_among_others_is_no_reason_against_a_new_group(
    engine: Engine,
) -> None:
    world = engine.world
    db, web, app = await vms_of(engine, "db", "web", "app")
    host, other = await world.host("h1"), await world.host("h2")
    await create(engine, "here", db, host_ids=(host,))
    far = await create(engine, "not-there", db, host_ids=(other,), together=False)
    await world.do(affinity.put_hosts, far, (host, other))
    await create(engine, "near", web, app)
    error = await engine.refusal(EditAffinityGroup(affinity_group_id=far, name="nowhere"))
    assert error.code == "AFFINITY_CONTRADICTION"
    await engine.act(EditAffinityGroup(affinity_group_id=far, hard=False))


async def test_a_hard_rule_decides_where_a_vm_goes(engine: Engine) -> None:
    world = engine.world
    db, web = await vms_of(engine, "db", "web")
    small = await world.host("small", memory_mib=600)
    await world.host("big", memory_mib=4096)
    await world.running(db, small)
    await create(engine, "near", db, web)
    placement = await place(engine, web)
    assert placement.run is not None
    assert (placement.run.host_name, placement.run.gave_way) == ("small", ())


async def test_a_vm_that_hard_rules_leave_no_host_waits_and_says_which(engine: Engine) -> None:
    world = engine.world
    db, web = await vms_of(engine, "db", "web")
    await world.running(db, await world.host())
    await create(engine, "apart", db, web, together=False)
    placement = await place(engine, web)
    assert placement.run is None
    assert placement.no_room is not None
    assert "hard rule apart (apart)" in placement.no_room


async def test_a_place_that_breaks_a_soft_rule_keeps_its_name_with_the_run(
    engine: Engine,
) -> None:
    world = engine.world
    db, web = await vms_of(engine, "db", "web")
    await world.running(db, await world.host())
    await create(engine, "apart", db, web, together=False, hard=False)
    placement = await place(engine, web)
    assert placement.run is not None
    assert placement.run.gave_way == ("apart",)
    assert (await world.run(placement.run.run_id))["gave_way"] == ["apart"]


async def test_vms_that_are_to_be_apart_and_start_at_once_are_put_apart(engine: Engine) -> None:
    world = engine.world
    for name in ("h1", "h2"):
        await world.host(name)
    db, web = await vms_of(engine, "db", "web")
    await create(engine, "apart", db, web, together=False)
    places = await asyncio.gather(place(engine, db), place(engine, web))
    hosts = {one.run.host_name for one in places if one.run is not None}
    assert hosts == {"h1", "h2"}


async def test_a_recovery_keeps_the_rules_and_says_what_gave_way(engine: Engine) -> None:
    world = engine.world
    dead, full = await world.host("dead"), await world.host("full")
    await world.host("free", memory_mib=400)
    web = await world.vm("web")
    await world.running(web, full)
    db, app = [await world.vm(name, protected=True) for name in ("db", "app")]
    for vm in (db, app):
        await world.running(vm, dead)
    await create(engine, "apart", db, web, together=False)
    await create(engine, "split", db, app, together=False)
    await create(engine, "close", app, db, hard=False)
    plan = await (await Death(engine, dead).build()).claim()
    places = {restart.vm_name: restart.run for restart in plan.restarts}
    assert places["db"] is not None
    assert places["app"] is not None
    assert (places["db"].host_name, places["app"].host_name) == ("free", "full")
    assert {places[name].gave_way for name in ("db", "app")} == {("close",), ()}  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("other", "busy", "host"),
    [
        ({"protected": True}, False, "h2"),
        ({"protected": False}, True, "h2"),
        ({"protected": False}, False, "h1"),
        ({"protected": True, "wanted": False}, False, "h1"),
    ],
    ids=["the engine starts it", "somebody starts it", "nobody starts it", "nobody wants it"],
)
async def test_a_vm_goes_where_those_that_will_join_it_may_be(
    engine: Engine, other: Row, busy: bool, host: str
) -> None:
    world = engine.world
    h1, _h2 = await world.host("h1", memory_mib=4096), await world.host("h2")
    app, foe = await vms_of(engine, "app", "foe")
    cache = await world.vm("cache", **other)
    await world.running(foe, h1)
    await create(engine, "pair", app, cache)
    await create(engine, "spread", cache, foe, together=False)
    if busy:
        await world.lock(cache, await world.operation(cache))
    run = (await place(engine, app)).run
    assert run is not None
    assert run.host_name == host
