"""Clusters and networks are changed and removed, and every kind of object by its version alone."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import pytest
from pydantic import ValidationError

from domain.errors import EngineError
from domain.inventory import Nic
from engine.actions.base import Params
from engine.actions.clusters import ArmCluster, CreateCluster, EditCluster, RemoveCluster
from engine.actions.fence_devices import EditFenceDevice, RemoveFenceDevice
from engine.actions.host_config import EditHost, RemoveHost
from engine.actions.networks import BRIDGE, CreateNetwork, EditNetwork, RemoveNetwork
from store import edits, inventory, operations
from store.ids import new_id
from store.rows import Row, changed
from store.schema import vm_nic
from tests.store.engine_room import Engine
from tests.store.world import World

pytestmark = pytest.mark.store

Maker = Callable[[World], Awaitable[UUID]]


async def network(world: World, name: str = "lan", bridge: str | None = "br0") -> UUID:
    network_id = new_id()
    row: Row = {"id": network_id, "cluster_id": world.cluster_id, "name": name, "bridge": bridge}
    await world.do(inventory.insert, "network", row | {"created_at": world.now})
    return network_id


async def card(world: World, vm_id: UUID, network_id: UUID, number: int = 0) -> None:
    row: Row = {"vm_id": vm_id, "position": 0, "network_id": network_id, "model": "virtio"}
    row["mac"] = f"52:54:00:00:00:{number:02x}"
    await world.do(changed, vm_nic.insert().values(**row))


async def new_cluster(world: World) -> UUID:
    return world.cluster_id


async def new_host(world: World) -> UUID:
    return await world.host(state="maintenance")


async def new_device(world: World) -> UUID:
    return await world.device(await world.host(state="maintenance"))


async def event_of(engine: Engine, operation_id: UUID) -> Row:
    (found,) = [r for r in await engine.rows("event") if r["operation_id"] == operation_id]
    return found


async def summary_of(engine: Engine, params: Params) -> str:
    receipt = await engine.act(params)
    row = await engine.world.do(operations.get, receipt.operation_id)
    assert row is not None
    assert row["state"] == "succeeded"
    return str(row["summary"])


KINDS: dict[str, tuple[Maker, Callable[..., Params], Callable[..., Params]]] = {
    "cluster": (
        new_cluster,
        lambda i, **more: EditCluster(cluster_id=i, **more),
        lambda i, **more: RemoveCluster(cluster_id=i, **more),
    ),
    "network": (
        network,
        lambda i, **more: EditNetwork(network_id=i, **more),
        lambda i, **more: RemoveNetwork(network_id=i, **more),
    ),
    "host": (
        new_host,
        lambda i, **more: EditHost(host_id=i, **more),
        lambda i, **more: RemoveHost(host_id=i, **more),
    ),
    "fence_device": (
        new_device,
        lambda i, **more: EditFenceDevice(fence_device_id=i, **more),
        lambda i, **more: RemoveFenceDevice(fence_device_id=i, **more),
    ),
}
EACH = pytest.mark.parametrize("entity", list(KINDS))


@EACH
async def test_a_change_raises_the_version_and_keeps_what_was_before(
    engine: Engine, entity: str
) -> None:
    make, edit, _ = KINDS[entity]
    object_id = await make(engine.world)
    before = await engine.world.get(entity, object_id)
    receipt = await engine.act(edit(object_id, name="other", expected_version=1))
    assert await engine.world.get(entity, object_id) == before | {"name": "other", "version": 2}
    event = await event_of(engine, receipt.operation_id)
    assert (event["before"], event["after"]) == ({"name": before["name"]}, {"name": "other"})
    assert (event["subject_type"], event["subject_id"]) == (entity, object_id)


@EACH
async def test_a_change_to_what_is_there_already_changes_nothing(
    engine: Engine, entity: str
) -> None:
    make, edit, _ = KINDS[entity]
    object_id = await make(engine.world)
    before = await engine.world.get(entity, object_id)
    for params in (edit(object_id), edit(object_id, name=before["name"], expected_version=1)):
        assert await summary_of(engine, params) == "nothing to change"
    assert await engine.world.get(entity, object_id) == before
    assert {row["after"] for row in await engine.rows("event")} == {None}


@EACH
async def test_an_old_version_is_refused_for_changes_and_removals(
    engine: Engine, entity: str
) -> None:
    make, edit, remove = KINDS[entity]
    object_id = await make(engine.world)
    await engine.world.put(entity, object_id, version=7)
    for params in (
        edit(object_id, name="x", expected_version=6),
        edit(object_id, expected_version=8),
    ):
        assert (await engine.refusal(params)).code == "VERSION_STALE"
    stale = await engine.refusal(remove(object_id, expected_version=6))
    assert "VERSION_STALE" in [stale.code, *(one.code for one in stale.problems)]


@EACH
async def test_a_change_that_lost_a_race_touches_no_row(engine: Engine, entity: str) -> None:
    object_id = await KINDS[entity][0](engine.world)
    row = await engine.world.get(entity, object_id)
    assert await engine.world.do(edits.edit, entity, object_id, 1, {"name": "first"})
    assert not await engine.world.do(edits.edit, entity, object_id, 1, {"name": "second"})
    assert not await _removed(engine.world, entity, row)
    assert (await engine.world.get(entity, object_id))["name"] == "first"


async def _removed(world: World, entity: str, row: Row) -> bool:
    if entity == "cluster":
        return await world.do(edits.remove_cluster, row, world.now)
    if entity == "host":
        return await world.do(edits.remove_host, row, world.now)
    if entity == "network":
        return await world.do(edits.delete_network, row["id"], row["version"])
    return await world.do(edits.delete, entity, row["id"], row["version"])


@EACH
async def test_of_two_changes_at_once_from_one_version_one_is_refused(
    engine: Engine, entity: str
) -> None:
    make, edit, _ = KINDS[entity]
    object_id = await make(engine.world)
    both = [engine.act(edit(object_id, name=name, expected_version=1)) for name in ("a", "b")]
    ends = await asyncio.gather(*both, return_exceptions=True)
    refused = [end for end in ends if isinstance(end, EngineError)]
    assert [error.code for error in refused] == ["VERSION_STALE"], ends
    row = await engine.world.get(entity, object_id)
    assert (row["version"], row["name"]) == (2, "a" if ends[1] in refused else "b")


async def test_nothing_is_created_in_a_cluster_that_is_removed_at_the_same_time(
    engine: Engine,
) -> None:
    world = engine.world
    for number in range(5):
        await engine.act(CreateCluster(name=f"x{number}"))
    rows = {row["name"]: row["id"] for row in await engine.rows("cluster")}
    race = []
    for number in range(5):
        cluster_id = rows[f"x{number}"]
        race.append(engine.act(RemoveCluster(cluster_id=cluster_id)))
        race.append(engine.act(CreateNetwork(cluster_id=cluster_id, name=f"n{number}")))
    ends = await asyncio.gather(*race, return_exceptions=True)
    codes = [end.code if isinstance(end, EngineError) else "" for end in ends]
    pairs = {tuple(codes[at : at + 2]) for at in range(0, 10, 2)}
    assert pairs <= {("CLUSTER_NOT_EMPTY", ""), ("", "CLUSTER_NOT_FOUND")}, ends
    there = {row["id"] for row in await world.do(inventory.listing, "cluster")}
    assert {row["cluster_id"] for row in await engine.rows("network")} <= there


@EACH
async def test_a_name_that_is_taken_is_refused_to_a_change(engine: Engine, entity: str) -> None:
    make, edit, _ = KINDS[entity]
    object_id = await make(engine.world)
    row = await engine.world.get(entity, object_id)
    other = row | {"id": new_id(), "name": "taken"}
    if entity == "host":
        other["uri"] = "qemu+tcp://taken/system"
    await engine.world.do(inventory.insert, entity, other)
    assert (await engine.refusal(edit(object_id, name="taken"))).code == "NAME_TAKEN"


@EACH
async def test_what_is_not_there_is_not_found(engine: Engine, entity: str) -> None:
    _, edit, remove = KINDS[entity]
    for params in (edit(new_id(), name="x"), remove(new_id())):
        assert (await engine.refusal(params)).code == f"{entity.upper()}_NOT_FOUND"


@EACH
async def test_an_object_that_another_operation_works_on_is_busy(
    engine: Engine, entity: str
) -> None:
    make, edit, remove = KINDS[entity]
    object_id = await make(engine.world)
    await engine.world.take(entity, object_id, await engine.world.operation())
    assert (await engine.refusal(edit(object_id, name="x"))).code == "OBJECT_BUSY"
    if entity != "cluster":
        assert (await engine.refusal(remove(object_id))).code == "OBJECT_BUSY"


@EACH
@pytest.mark.parametrize("field", ["name", "expected"])
def test_null_is_no_value_of_a_field_that_always_has_one(entity: str, field: str) -> None:
    edit = KINDS[entity][1]
    values: dict[str, Any] = {"name": None} if field == "name" else {"expected_version": 0}
    with pytest.raises(ValidationError):
        edit(new_id(), **values)


@pytest.mark.parametrize("bridge", ["br0", "_x", "br-lan.12", "a" * 15, "a" * 16, "-x", "a b", ""])
def test_a_network_takes_exactly_the_bridges_that_a_card_takes(bridge: str) -> None:
    def fine(make: Callable[[], object]) -> bool:
        try:
            make()
        except ValidationError:
            return False
        return True

    mac = "52:54:00:00:00:01"
    card_takes_it = fine(lambda: Nic(network="lan", bridge=bridge, mac=mac))
    assert fine(lambda: CreateNetwork(cluster_id=new_id(), name="lan", bridge=bridge)) is (
        card_takes_it
    ), BRIDGE


async def test_a_clusters_profile_and_type_say_when_they_take_effect(engine: Engine) -> None:
    cluster_id = engine.world.cluster_id
    params = EditCluster(cluster_id=cluster_id, profile="fast", virt_type="kvm")
    summary = await summary_of(engine, params)
    assert summary.startswith("changed profile, virt_type; ")
    assert "next round" in summary
    assert "next start" in summary
    row = await engine.world.get("cluster", cluster_id)
    assert (row["profile"], row["virt_type"], row["armed"]) == ("fast", "kvm", True)


async def test_a_cluster_that_holds_anything_is_not_removed_and_says_all_of_it(
    engine: Engine,
) -> None:
    world = engine.world
    await world.host("h1")
    for number in range(12):
        await world.vm(f"vm{number:02}")
    await network(world)
    error = await engine.refusal(RemoveCluster(cluster_id=world.cluster_id))
    assert error.code == "CLUSTER_NOT_EMPTY"
    assert [(one.context["what"], one.context["count"]) for one in error.problems] == [
        ("host", 1),
        ("vm", 12),
        ("network", 1),
    ]
    assert "vm00, vm01" in error.detail
    assert "vm09 and 2 more" in error.detail


async def test_a_removed_cluster_frees_its_name_and_leaves_its_history(engine: Engine) -> None:
    world = engine.world
    past = await engine.act(ArmCluster(cluster_id=world.cluster_id, armed=False))
    assert await summary_of(engine, RemoveCluster(cluster_id=world.cluster_id)) == "removed"
    assert await world.do(inventory.get, "cluster", world.cluster_id) is None
    assert await world.do(inventory.listing, "cluster") == []
    await engine.act(CreateCluster(name="c1"))
    again = await engine.refusal(RemoveCluster(cluster_id=world.cluster_id))
    assert again.code == "CLUSTER_NOT_FOUND"
    row = await world.do(operations.get, past.operation_id)
    assert row is not None
    assert row["cluster_id"] == world.cluster_id


async def test_a_cluster_that_got_a_host_meanwhile_is_not_removed(engine: Engine) -> None:
    world = engine.world
    row = await world.get("cluster", world.cluster_id)
    host_id = await world.host()
    assert not await world.do(edits.remove_cluster, row, world.now)
    await world.put("host", host_id, removed_at=world.now)
    assert await world.do(edits.remove_cluster, row, world.now)


async def test_a_network_is_created_in_a_cluster_that_nobody_is_removing(engine: Engine) -> None:
    world = engine.world
    params = CreateNetwork(cluster_id=world.cluster_id, name="lan", bridge="br0")
    assert await summary_of(engine, params) == "created"
    (row,) = await engine.rows("network")
    assert (row["name"], row["bridge"], row["version"]) == ("lan", "br0", 1)
    assert (await engine.refusal(params)).code == "NAME_TAKEN"
    await world.take("cluster", world.cluster_id, await world.operation())
    other = CreateNetwork(cluster_id=world.cluster_id, name="wan")
    assert (await engine.refusal(other)).code == "OBJECT_BUSY"


async def test_a_bridge_of_null_is_qemus_own_nat_and_absence_leaves_the_bridge(
    engine: Engine,
) -> None:
    world = engine.world
    network_id = await network(world)
    await card(world, await world.vm(), network_id)
    assert await summary_of(engine, EditNetwork(network_id=network_id, name="lan2")) == (
        "changed name"
    )
    assert (await world.get("network", network_id))["bridge"] == "br0"
    summary = await summary_of(engine, EditNetwork(network_id=network_id, bridge=None))
    assert summary == "changed bridge; 1 VM has it from its next start on: db"
    assert (await world.get("network", network_id))["bridge"] is None


async def test_a_network_is_not_removed_while_a_card_is_on_it(engine: Engine) -> None:
    world = engine.world
    network_id = await network(world)
    for number in range(12):
        await card(world, await world.vm(f"vm{number:02}"), network_id, number)
    error = await engine.refusal(RemoveNetwork(network_id=network_id))
    assert (error.code, error.context["count"]) == ("NETWORK_IN_USE", 12)
    assert "vm00, vm01" in error.detail
    assert "vm09 and 2 more" in error.detail
    assert not await world.do(edits.delete_network, network_id, 1)
    await world.do(changed, vm_nic.delete())
    assert await summary_of(engine, RemoveNetwork(network_id=network_id)) == "removed"
    assert await engine.rows("network") == []
