"""Many actions in one request: what is written, in which order, and what one key covers."""

import asyncio
from collections import Counter
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.context import PriorityClass
from domain.errors import Invalid
from domain.orders import RunBatchOrder
from engine.actions.clusters import ArmCluster, CreateCluster
from engine.actions.hosts import ActivateHost
from engine.actions.vm_config import CreateVm, EditVm
from engine.actions.vms import StartVm, StopVm
from engine.batches import BatchOptions
from store import operations
from store.ids import new_id
from store.rows import Row
from tests.store.engine_room import Engine, columns
from tests.store.many import Many, batch, children, several, starts
from tests.store.world import PERSON

pytestmark = pytest.mark.store


async def test_a_batch_is_a_parent_with_a_child_for_each_action(engine: Engine) -> None:
    vms = await several(engine, 5)
    receipt = await batch(engine, starts(vms), at_once=2)
    assert receipt.model_dump(exclude={"operation_id"}) == {
        "replayed": False,
        "accepted": 5,
        "refused": 0,
        "stopped": 0,
    }
    parent = await engine.world.do(operations.get, receipt.operation_id)
    assert parent is not None
    assert (parent["kind"], parent["state"], parent["workflow"]) == ("batch", "pending", "RunBatch")
    assert (parent["target_name"], parent["progress_total"]) == ("5 × vm.start", 5)
    assert parent["cluster_id"] == engine.world.cluster_id
    assert RunBatchOrder.model_validate(parent["order"]).operation_id == receipt.operation_id
    rows = await children(engine, receipt.operation_id)
    assert columns(rows, "target_id") == vms
    assert columns(rows, "state") == ["pending"] * 5
    assert columns(rows, "held") == [False, False, True, True, True]
    assert columns(await engine.rows("entity_lock"), "entity_id") == sorted(vms)


async def test_only_the_first_of_a_batch_and_its_parent_are_started_at_once(engine: Engine) -> None:
    vms = await several(engine, 5)
    receipt = await batch(engine, starts(vms), at_once=2)
    first, second, *_held = columns(await children(engine, receipt.operation_id), "id")
    wanted = {receipt.operation_id, first, second}
    assert set(columns(await engine.rows("outbox"), "operation_id")) == wanted
    assert sorted(engine.deliverer.delivered) == sorted(wanted)


async def test_each_child_and_the_batch_itself_have_their_event(engine: Engine) -> None:
    vms = await several(engine, 3)
    receipt = await batch(engine, starts(vms))
    events = await engine.rows("event")
    counted = Counter(columns(events, "type"))
    assert counted == {"vm.start.accepted": 3, "batch.accepted": 1}
    (own,) = [row for row in events if row["type"] == "batch.accepted"]
    assert own["operation_id"] == receipt.operation_id
    assert own["data"] == {
        "name": "3 × vm.start",
        "total": 3,
        "at_once": 50,
        "stop_on_error": False,
    }


async def test_an_item_that_may_wait_for_its_lock_waits_held_by_its_batch(engine: Engine) -> None:
    (vm, other) = await several(engine, 2)
    receipt = await batch(engine, starts([vm, vm, other]), at_once=2, lock_wait_s=60)
    rows = await children(engine, receipt.operation_id)
    assert columns(rows, "state", "reason_code", "held") == [
        ("pending", None, False),
        ("waiting", "LOCK_HELD", True),
        ("pending", None, False),
    ]
    progress = await engine.batches.advance(receipt.operation_id)
    assert (progress.open, progress.held) == (2, 1)


async def test_a_batch_of_many_kinds_does_at_once_what_needs_no_workflow(engine: Engine) -> None:
    (vm,) = await several(engine, 1)
    cluster_id = engine.world.cluster_id
    host = await engine.world.host("h9", state="maintenance")
    items: Many = [
        CreateVm(cluster_id=cluster_id, name="new", memory_mib=64),
        StartVm(vm_id=vm),
        ActivateHost(host_id=host),
        CreateCluster(name="c2"),
    ]
    receipt = await batch(engine, items, at_once=1)
    rows = await children(engine, receipt.operation_id)
    assert columns(rows, "kind", "state", "held") == [
        ("vm.create", "succeeded", False),
        ("vm.start", "pending", False),
        ("host.activate", "pending", True),
        ("cluster.create", "succeeded", False),
    ]
    assert "new" in columns(await engine.rows("vm"), "name")
    parent = await engine.world.do(operations.get, receipt.operation_id)
    assert parent is not None
    assert parent["target_name"] == "4 actions of 4 kinds"


async def test_an_item_sees_what_the_items_before_it_have_written(engine: Engine) -> None:
    same = CreateVm(cluster_id=engine.world.cluster_id, name="twice", memory_mib=64)
    receipt = await batch(engine, [same, same])
    rows = await children(engine, receipt.operation_id)
    assert columns(rows, "state") == ["succeeded", "failed"]
    assert rows[1]["problem"]["code"] == "NAME_TAKEN"
    assert columns(await engine.rows("vm"), "name") == ["twice"]


async def test_two_edits_of_one_vm_in_a_batch_follow_each_other(engine: Engine) -> None:
    (vm,) = await several(engine, 1)
    items: Many = [
        EditVm(vm_id=vm, priority=60, expected_version=1),
        EditVm(vm_id=vm, priority=70, expected_version=2),
    ]
    receipt = await batch(engine, items)
    assert receipt.refused == 0, columns(await children(engine, receipt.operation_id), "problem")
    row = await engine.world.get("vm", vm)
    assert (row["priority"], row["version"]) == (70, 3)


async def test_each_child_has_its_own_priority_and_the_parent_the_most_urgent(
    engine: Engine,
) -> None:
    plain = await several(engine, 1)
    protected = await engine.world.vm("vital", protected=True)
    created = CreateVm(cluster_id=engine.world.cluster_id, name="new", memory_mib=64)
    receipt = await batch(engine, [created, *starts([*plain, protected])])
    rows = await children(engine, receipt.operation_id)
    assert columns(rows, "priority") == [5, 3, 2]
    parent = await engine.world.do(operations.get, receipt.operation_id)
    assert parent is not None
    assert parent["priority"] == 2


async def test_the_first_turns_of_a_batch_go_to_the_most_urgent(engine: Engine) -> None:
    plain = await several(engine, 3)
    vital = [await engine.world.vm(name, protected=True) for name in ("vital-1", "vital-2")]
    receipt = await batch(engine, starts([*plain, *vital]), at_once=3)
    rows = await children(engine, receipt.operation_id)
    assert columns(rows, "target_id") == [*plain, *vital], "the list keeps its order"
    assert columns(rows, "held", "reason_code") == [
        (False, None),
        (True, "BATCH_TURN"),
        (True, "BATCH_TURN"),
        (False, None),
        (False, None),
    ]
    first = [rows[3]["id"], rows[4]["id"], rows[0]["id"]]
    assert engine.deliverer.delivered == [*first, receipt.operation_id]


async def test_a_batch_that_stops_on_error_begins_in_the_order_of_its_list(engine: Engine) -> None:
    plain = await several(engine, 2)
    vital = await engine.world.vm("vital", protected=True)
    receipt = await batch(engine, starts([*plain, vital]), at_once=1, stop_on_error=True)
    rows = await children(engine, receipt.operation_id)
    assert columns(rows, "held") == [False, True, True]


async def test_a_batch_may_ask_for_less_urgency_for_all_it_has(engine: Engine) -> None:
    vms = await several(engine, 2, protected=True)
    receipt = await batch(engine, starts(vms), priority=PriorityClass.BALANCE)
    assert columns(await children(engine, receipt.operation_id), "priority") == [4, 4]


async def test_a_repeated_key_gives_the_same_batch_and_covers_all_items(engine: Engine) -> None:
    vms = await several(engine, 3)
    run = engine.backend.run_multiple_actions
    first = await run(starts(vms), PERSON, BatchOptions(), "k1")
    again = await run(starts(vms), PERSON, BatchOptions(), "k1")
    assert (again.operation_id, again.replayed) == (first.operation_id, True)
    assert len(await engine.rows("operation")) == 4
    for items, options in [
        (starts(vms[:2]), BatchOptions()),
        (starts([*vms[:2], vms[0]]), BatchOptions()),
        (starts([vms[1], vms[0], vms[2]]), BatchOptions()),
        ([*starts(vms[:2]), StopVm(vm_id=vms[2])], BatchOptions()),
        (starts(vms), BatchOptions(stop_on_error=True)),
    ]:
        with pytest.raises(Invalid) as raised:
            await run(items, PERSON, options, "k1")
        assert raised.value.code == "IDEMPOTENCY_KEY_REUSED"


async def test_the_same_batch_asked_for_at_once_is_accepted_once(engine: Engine) -> None:
    vms = await several(engine, 20)
    run = engine.backend.run_multiple_actions
    given = await asyncio.gather(*(run(starts(vms), PERSON, None, "k1") for _ in range(4)))
    assert len({receipt.operation_id for receipt in given}) == 1
    assert sum(receipt.replayed for receipt in given) == 3
    assert len(await engine.rows("operation")) == 21


async def test_batches_at_once_on_the_same_vms_give_each_vm_one_start(engine: Engine) -> None:
    vms = await several(engine, 30)
    run = engine.backend.run_multiple_actions
    given = await asyncio.gather(
        run(starts(vms), PERSON), run(starts(vms[::-1]), PERSON), run(starts(vms[10:]), PERSON)
    )
    assert sum(receipt.accepted for receipt in given) == 30
    assert sorted(columns(await engine.rows("entity_lock"), "entity_id")) == sorted(vms)


async def test_a_dry_run_of_a_batch_tells_each_item_and_changes_nothing(engine: Engine) -> None:
    vms = await several(engine, 2)
    items: Many = [
        StartVm(vm_id=vms[0]),
        StartVm(vm_id=vms[0]),
        StartVm(vm_id=new_id()),
        StopVm(vm_id=vms[1]),
        ArmCluster(cluster_id=engine.world.cluster_id, armed=False),
    ]
    before = await engine.everything()
    views = await engine.backend.dry_run_multiple(items, PERSON)
    assert await engine.everything() == before
    assert [(view.kind, view.allowed) for view in views] == [
        ("vm.start", True),
        ("vm.start", False),
        ("vm.start", False),
        ("vm.stop", False),
        ("cluster.arm", True),
    ]
    codes = [[problem.code for problem in view.problems] for view in views]
    assert codes == [[], ["OBJECT_BUSY"], ["VM_NOT_FOUND"], ["VM_NOT_RUNNING"], []]
    assert views[0].target_name == "vm-000"


async def test_an_audit_event_shows_what_an_earlier_item_has_changed(engine: Engine) -> None:
    cluster_id = engine.world.cluster_id
    items: Many = [ArmCluster(cluster_id=cluster_id, armed=wish) for wish in (False, True)]
    await batch(engine, items)
    events = [row for row in await engine.rows("event") if row["type"] == "cluster.arm.done"]
    assert [(row["before"]["armed"], row["after"]["armed"]) for row in events] == [
        (True, False),
        (False, True),
    ]


async def test_locks_are_taken_in_one_order_however_they_are_asked_for(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    vms = await several(engine, 4)
    taken: list[UUID] = []

    async def take(connection: AsyncConnection, rows: list[Row]) -> None:
        taken.extend(row["entity_id"] for row in rows)

    monkeypatch.setattr("store.locks.take", take)
    await batch(engine, starts([vms[2], vms[0], vms[3], vms[1]]))
    assert taken == sorted(vms)
