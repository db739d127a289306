"""VMs are added, changed and deleted: their cards, what they wait for, and their versions."""

from asyncio import gather
from typing import Any
from uuid import UUID

import pytest
from pydantic import ValidationError

from domain.errors import EngineError, Invalid
from domain.inventory import mac_of
from engine.actions.base import Params
from engine.actions.vm_config import CreateVm, DeleteVm, EditVm
from engine.actions.vms import StartVm, StopVm
from store import affinity, incidents, inventory, operations, runs, vms
from store.ids import new_id
from store.rows import Row
from tests.store.engine_room import Engine, columns
from tests.store.world import World

pytestmark = pytest.mark.store

MAC = "52:54:00:aa:bb:cc"


async def network(world: World, name: str = "lan", **values: Any) -> UUID:
    row: Row = {"id": new_id(), "cluster_id": world.cluster_id, "name": name, "bridge": "br0"}
    await world.do(inventory.insert, "network", row | {"created_at": world.now} | values)
    network_id: UUID = row["id"]
    return network_id


async def other_cluster(world: World) -> UUID:
    row: Row = {"id": new_id(), "name": "c2", "profile": "balanced", "virt_type": "qemu"}
    await world.do(inventory.insert, "cluster", row | {"created_at": world.now})
    cluster_id: UUID = row["id"]
    return cluster_id


async def group(world: World, name: str, *vm_ids: UUID, **values: Any) -> UUID:
    row: Row = {"id": new_id(), "cluster_id": world.cluster_id, "name": name, "hard": True}
    row |= {"together": True, "created_at": world.now}
    await world.do(inventory.insert, "affinity_group", row | values)
    await world.do(affinity.put_vms, row["id"], vm_ids)
    group_id: UUID = row["id"]
    return group_id


def wish(world: World, name: str = "web", **more: Any) -> CreateVm:
    given = {"cluster_id": world.cluster_id, "name": name, "memory_mib": 64}
    return CreateVm.model_validate(given | more)


async def create(engine: Engine, name: str = "web", **more: Any) -> UUID:
    receipt = await engine.act(wish(engine.world, name, **more))
    row = await engine.world.do(operations.get, receipt.operation_id)
    assert row is not None
    vm_id: UUID = row["target_id"]
    return vm_id


async def summary(engine: Engine, params: Params) -> str:
    receipt = await engine.act(params)
    row = await engine.world.do(operations.get, receipt.operation_id)
    assert row is not None
    return str(row["summary"])


async def cards_of(engine: Engine, vm_id: UUID) -> list[str]:
    found = await engine.world.do(vms.nics_of, [vm_id])
    return [card["mac"] for card in found.get(vm_id, ())]


async def last_event(engine: Engine, kind: str) -> Row:
    return [row for row in await engine.rows("event") if row["type"] == kind][-1]


def codes(error: EngineError) -> list[str]:
    return [one.code for one in error.problems] or [error.code]


async def test_a_vm_is_added_with_everything_that_belongs_to_it(engine: Engine) -> None:
    world = engine.world
    db, lan = await world.vm("db"), await network(world)
    near = await group(world, "near", db)
    vm = await create(
        engine,
        budget_s=90,
        depends_on=(db, db),
        nics=({"network_id": lan, "mac": MAC.upper()}, {"network_id": lan}),
        disks=({"path": "/d/root.img"}, {"path": "/d/cd.iso", "bus": "sata", "device": "cdrom"}),
        affinity_group_ids=(near,),
    )
    row = await world.get("vm", vm)
    assert (row["budget_s"], row["generation"], row["wanted"]) == (90, 0, False)
    assert [disk.get("device", "disk") for disk in row["spec"]["disks"]] == ["disk", "cdrom"]
    assert await cards_of(engine, vm) == [MAC, mac_of(vm, 1)]
    assert await world.do(vms.depends_on, vm) == (db,)
    (found,) = await world.do(affinity.groups, id=near)
    assert (found["vm_ids"], found["version"]) == (tuple(sorted((db, vm))), 2)
    assert (await last_event(engine, "vm.create.done"))["after"]["nics"][0]["mac"] == MAC


async def test_a_second_vm_with_the_same_address_is_refused_by_name(engine: Engine) -> None:
    lan = await network(engine.world)
    await create(engine, "web", nics=({"network_id": lan, "mac": MAC},))
    error = await engine.refusal(
        wish(engine.world, "app", nics=({"network_id": lan, "mac": MAC.upper()},))
    )
    assert (error.code, error.context["vm"], error.context["mac"]) == ("MAC_TAKEN", "web", MAC)


async def test_of_two_vms_that_take_one_address_at_once_only_one_gets_it(engine: Engine) -> None:
    lan = await network(engine.world)
    cards = ({"network_id": lan, "mac": MAC},)
    wishes = [wish(engine.world, name, nics=cards) for name in ("web", "app", "api")]
    ends = await gather(*(engine.act(one) for one in wishes), return_exceptions=True)
    refused = [end for end in ends if isinstance(end, EngineError)]
    assert [error.code for error in refused] == ["MAC_TAKEN", "MAC_TAKEN"]
    assert columns(await engine.rows("vm_nic"), "mac") == [MAC]
    assert len(await engine.rows("vm")) == 1


async def test_an_address_that_another_vm_happens_to_have_is_not_given_again(
    engine: Engine,
) -> None:
    lan = await network(engine.world)
    vm = await create(engine, "web")
    await create(engine, "app", nics=({"network_id": lan, "mac": mac_of(vm, 0)},))
    await engine.act(EditVm.model_validate({"vm_id": vm, "nics": [{"network_id": lan}]}))
    assert await cards_of(engine, vm) == [mac_of(vm, 32)]


async def test_every_reason_against_a_new_vm_is_named_at_once(engine: Engine) -> None:
    world = engine.world
    await world.vm("web")
    far = await network(world, "far", cluster_id=await other_cluster(world))
    cards: list[dict[str, Any]] = [{"network_id": new_id()}, {"network_id": far}]
    cards += [{"network_id": far, "mac": MAC}, {"network_id": far, "mac": MAC}]
    error = await engine.refusal(
        wish(world, depends_on=(new_id(),), nics=cards, affinity_group_ids=(new_id(),))
    )
    assert sorted(codes(error)) == [
        *("AFFINITY_GROUP_NOT_FOUND", "CLUSTER_DIFFERS", "MAC_TWICE", "NAME_TAKEN"),
        *("NETWORK_NOT_FOUND", "VM_NOT_FOUND"),
    ]


@pytest.mark.parametrize("mac", ["01:00:5e:00:00:01", "52:54:00:aa:bb", "", "52-54-00-aa-bb-cc"])
def test_an_address_that_no_single_card_can_have_is_refused(mac: str) -> None:
    with pytest.raises(ValidationError):
        EditVm.model_validate({"vm_id": new_id(), "nics": [{"network_id": new_id(), "mac": mac}]})


async def test_a_change_writes_what_differs_and_the_event_says_what_it_was(engine: Engine) -> None:
    vm = await create(engine, "web", budget_s=60)
    wanted: dict[str, Any] = {
        "vm_id": vm,
        "vcpus": 4,
        "memory_mib": 64,
        "budget_s": None,
        "name": "www",
    }
    assert await summary(engine, EditVm.model_validate(wanted)) == "changed budget_s, name, vcpus"
    row = await engine.world.get("vm", vm)
    assert (row["name"], row["vcpus"], row["budget_s"], row["version"]) == ("www", 4, None, 2)
    event = await last_event(engine, "vm.edit.done")
    assert event["before"] == {"name": "web", "vcpus": 1, "budget_s": 60}
    assert event["after"] == {"name": "www", "vcpus": 4, "budget_s": None}


async def test_a_change_that_finds_everything_as_wanted_changes_nothing(engine: Engine) -> None:
    lan = await network(engine.world)
    parts: dict[str, Any] = {"nics": [{"network_id": lan}]}
    parts["disks"] = [{"path": "/d/a.img", "format": "qcow2"}]
    vm = await create(engine, **parts)
    same = {"vm_id": vm, "memory_mib": 64, "boot": None, "depends_on": [], "protected": False}
    edit = EditVm.model_validate(same | parts | {"affinity_group_ids": []})
    assert await summary(engine, edit) == "nothing to change"
    assert (await engine.world.get("vm", vm))["version"] == 1


@pytest.mark.parametrize("build", [EditVm, DeleteVm])
async def test_a_request_about_an_older_version_is_refused_with_both(
    engine: Engine, build: type[EditVm | DeleteVm]
) -> None:
    vm = await create(engine)
    await engine.act(EditVm(vm_id=vm, vcpus=2))
    error = await engine.refusal(build(vm_id=vm, expected_version=1))
    assert (error.code, error.context["version"], error.context["expected"]) == (
        *("VERSION_STALE", 2),
        1,
    )
    await engine.act(build(vm_id=vm, expected_version=2))


async def test_what_a_running_guest_is_made_of_waits_for_its_next_start(engine: Engine) -> None:
    world = engine.world
    vm, lan = await create(engine), await network(world)
    run = await world.running(vm, await world.host())
    edit = {"vm_id": vm, "memory_mib": 128, "priority": 9, "nics": [{"network_id": lan}]}
    said = await summary(engine, EditVm.model_validate(edit))
    assert said == (
        "changed memory_mib, nics, priority; it runs: memory_mib, nics will be seen at its next "
        "start"
    )
    assert (await world.run(run["id"]))["memory_mib"] == 64


async def test_a_running_vm_keeps_its_name(engine: Engine) -> None:
    world = engine.world
    vm = await create(engine)
    await world.running(vm, await world.host())
    error = await engine.refusal(EditVm(vm_id=vm, name="www"))
    assert (error.code, error.context["state"]) == ("VM_NOT_DOWN", "up")


async def test_while_a_start_is_under_way_only_what_it_does_not_use_is_changed(
    engine: Engine,
) -> None:
    vm = await create(engine)
    await engine.world.host()
    await engine.act(StartVm(vm_id=vm))
    assert (await engine.refusal(EditVm(vm_id=vm, memory_mib=128))).code == "OBJECT_BUSY"
    await engine.act(EditVm(vm_id=vm, protected=True, priority=90, budget_s=30))
    assert (await engine.world.get("vm", vm))["protected"] is True


@pytest.mark.parametrize("field", ["name", "memory_mib", "disks", "nics", "depends_on"])
def test_what_a_vm_always_has_cannot_be_made_null(field: str) -> None:
    with pytest.raises(ValidationError, match="cannot be null"):
        EditVm.model_validate({"vm_id": new_id(), field: None})


async def test_a_card_keeps_its_address_when_its_model_or_network_changes(engine: Engine) -> None:
    world = engine.world
    lan, wan = await network(world), await network(world, "wan", bridge=None)
    vm = await create(engine, nics=({"network_id": lan, "mac": MAC}, {"network_id": lan}))
    cards = [{"network_id": wan, "model": "e1000"}, {"network_id": wan}, {"network_id": lan}]
    await engine.act(EditVm.model_validate({"vm_id": vm, "nics": cards}))
    assert await cards_of(engine, vm) == [MAC, mac_of(vm, 1), mac_of(vm, 2)]
    swapped = [{"network_id": wan}, {"network_id": wan, "mac": MAC}]
    await engine.act(EditVm.model_validate({"vm_id": vm, "nics": swapped}))
    assert await cards_of(engine, vm) == [mac_of(vm, 0), MAC]


async def test_vms_that_would_wait_for_one_another_are_refused_in_order(engine: Engine) -> None:
    world = engine.world
    db = await world.vm("db")
    app = await world.vm("app", depends_on=(db,))
    web = await world.vm("web", depends_on=(app,))
    error = await engine.refusal(EditVm(vm_id=db, depends_on=(web,)))
    assert (error.code, type(error)) == ("DEPENDENCY_CYCLE", Invalid)
    assert error.context["vms"] == 3
    circle = error.detail.partition(": ")[2].split(" → ")
    turned = circle[circle.index("db") : -1] + circle[: circle.index("db")]
    assert (circle[0], turned) == (circle[-1], ["db", "web", "app"])


async def test_a_vm_cannot_wait_for_itself(engine: Engine) -> None:
    db = await engine.world.vm("db")
    error = await engine.refusal(EditVm(vm_id=db, depends_on=(db,)))
    assert (error.code, "db → db" in error.detail) == ("DEPENDENCY_CYCLE", True)


async def test_two_changes_that_only_together_close_a_circle_do_not_both_pass(
    engine: Engine,
) -> None:
    world = engine.world
    db, web = await world.vm("db"), await world.vm("web")
    edits = (EditVm(vm_id=db, depends_on=(web,)), EditVm(vm_id=web, depends_on=(db,)))
    ends = await gather(*(engine.act(edit) for edit in edits), return_exceptions=True)
    refused = [end for end in ends if isinstance(end, EngineError)]
    assert [error.code for error in refused] == ["DEPENDENCY_CYCLE"]
    assert len(await engine.rows("vm_dependency")) == 1


async def test_a_dependency_on_another_cluster_is_refused(engine: Engine) -> None:
    far = await engine.world.vm("far", cluster_id=await other_cluster(engine.world))
    error = await engine.refusal(wish(engine.world, depends_on=(far,)))
    assert (error.code, error.context["name"]) == ("CLUSTER_DIFFERS", "far")


async def test_a_vm_that_joins_groups_that_contradict_each_other_is_refused(
    engine: Engine,
) -> None:
    world = engine.world
    db = await world.vm("db")
    near = await group(world, "near", db)
    apart = await group(world, "apart", db, together=False)
    error = await engine.refusal(wish(world, affinity_group_ids=(near, apart)))
    assert (error.code, error.context["rules"]) == ("AFFINITY_CONTRADICTION", "apart, near")
    assert "web" in error.detail
    vm = await create(engine, affinity_group_ids=(near,))
    error = await engine.refusal(EditVm(vm_id=vm, affinity_group_ids=(near, apart)))
    assert error.code == "AFFINITY_CONTRADICTION"


async def test_a_vm_that_leaves_a_group_makes_a_new_version_of_it_alone(engine: Engine) -> None:
    world = engine.world
    vm = await create(engine)
    near, far = await group(world, "near", vm), await group(world, "far", hard=False)
    kept = await group(world, "kept", vm)
    await engine.act(EditVm(vm_id=vm, affinity_group_ids=(far, kept)))
    found = {row["id"]: row for row in await world.do(affinity.groups)}
    assert [found[one]["vm_ids"] for one in (near, far, kept)] == [(), (vm,), (vm,)]
    assert [found[one]["version"] for one in (near, far, kept)] == [2, 2, 1]


async def test_a_deleted_vm_is_gone_and_its_name_and_address_are_free(engine: Engine) -> None:
    world, lan = engine.world, await network(engine.world)
    parts: dict[str, Any] = {"nics": ({"network_id": lan, "mac": MAC},)}
    parts["disks"] = ({"path": "/d/root.img"},)
    vm = await create(engine, **parts, depends_on=(await world.vm("db"),))
    await group(world, "near", vm)
    said = await summary(engine, DeleteVm(vm_id=vm))
    assert said == "deleted; its 1 disk stays where it is"
    assert (await engine.refusal(StartVm(vm_id=vm))).code == "VM_NOT_FOUND"
    for table in ("vm_nic", "vm_dependency", "affinity_vm"):
        assert await engine.rows(table) == [], table
    again = await create(engine, **parts)
    assert again != vm
    assert await world.do(inventory.find, "vm", "web") == await world.get("vm", again)
    assert (await last_event(engine, "vm.delete.done"))["before"]["name"] == "web"


async def test_what_a_deleted_vm_ran_and_lost_stays_in_the_incidents(engine: Engine) -> None:
    world = engine.world
    vm, host = await create(engine), await world.host()
    run = await world.running(vm, host)
    certificate = await world.certificate(host)
    assert await world.do(runs.lose, run["id"], certificate, world.now)
    await engine.act(DeleteVm(vm_id=vm))
    (incident,) = await engine.rows("incident")
    (lost,) = await world.do(incidents.runs_lost, incident["id"])
    known = await world.do(inventory.listing, "vm", removed=True)
    assert (lost["vm_id"], [row["name"] for row in known]) == (vm, [f"web~{vm.hex[-12:]}"])
    assert await world.do(runs.lost_without_successor, host, 1) == []
    assert await world.do(runs.revive, vm, host, 1) is False


async def test_a_vm_that_runs_or_may_run_is_not_deleted(engine: Engine) -> None:
    world = engine.world
    vm, host = await create(engine), await world.host()
    run = await world.running(vm, host)
    error = await engine.refusal(DeleteVm(vm_id=vm))
    assert (error.code, error.context["state"]) == ("VM_NOT_DOWN", "up")
    await world.put("host", host, state="non_responsive")
    error = await engine.refusal(DeleteVm(vm_id=vm))
    assert (error.code, error.context["state"]) == ("VM_NOT_DOWN", "unknown")
    await world.do(runs.lose, run["id"], await world.certificate(host), world.now)
    await world.do(incidents.void_certificate, host, 1, "heard again", world.now)
    error = await engine.refusal(DeleteVm(vm_id=vm))
    assert (error.code, error.context["host"]) == ("CERTIFICATE_VOID", "h1")


async def test_a_vm_that_was_placed_meanwhile_is_not_removed_by_the_statement(
    engine: Engine,
) -> None:
    world = engine.world
    vm, host = await create(engine), await world.host()
    row = await world.get("vm", vm)
    await world.placed(vm, host)
    assert await world.do(vms.remove, row, world.now) is False
    assert (await world.get("vm", vm))["name"] == "web"


async def test_a_vm_that_others_wait_for_is_not_deleted(engine: Engine) -> None:
    world = engine.world
    db = await world.vm("db")
    for number in range(12):
        await world.vm(f"app{number:02}", depends_on=(db,))
    error = await engine.refusal(DeleteVm(vm_id=db))
    assert (error.code, error.context["count"]) == ("VM_IN_USE", 12)
    assert "app00" in error.detail
    assert error.detail.endswith("and 2 more")


async def test_the_order_of_a_stop_names_the_cards_with_their_bridges(engine: Engine) -> None:
    world = engine.world
    lan, nat = await network(world), await network(world, "nat", bridge=None)
    cards = ({"network_id": lan, "mac": MAC}, {"network_id": nat, "model": "e1000"})
    vm = await create(engine, nics=cards)
    await world.running(vm, await world.host())
    receipt = await engine.act(StopVm(vm_id=vm))
    row = await world.do(operations.get, receipt.operation_id)
    assert row is not None
    nics = row["order"]["run"]["spec"]["nics"]
    assert [(nic["network"], nic["bridge"], nic["model"]) for nic in nics] == [
        ("lan", "br0", "virtio"),
        ("nat", None, "e1000"),
    ]
