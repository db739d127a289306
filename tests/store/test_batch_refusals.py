"""Items that are refused: what becomes of them, of the others, and of what they had written."""

from uuid import UUID

import pytest

from domain.errors import Conflict, Denied, Invalid
from domain.locks import exclusive
from domain.operations import Order
from domain.permissions import Permission, Role
from domain.profiles import Policy
from engine.actions.base import Action, Done, Params, Plan, Problems, Target, Tx
from engine.actions.clusters import CreateCluster
from engine.actions.vms import StartVm, StopVm
from engine.backend import Backend
from engine.registry import all_queries
from engine.roles import Roles
from store import inventory, plumbing
from store.ids import new_id
from store.rows import Row
from tests.store.engine_room import Engine, columns
from tests.store.many import Many, batch, children, refusal, several, starts
from tests.store.world import PERSON

pytestmark = pytest.mark.store


class Half(Params):
    """Write half of something, and then find out that it cannot be."""

    network_id: UUID
    fails: bool = True


class HalfAction(Action[Half, None]):
    """Writes a row, collects another, takes a lock, and refuses in the middle if it is told to."""

    params = Half
    kind = "network.half"
    permission = Permission.VM_OPERATE
    workflow = "Half"

    async def plan(self, tx: Tx, params: Half, problems: Problems) -> Plan[None]:
        target = Target("network", params.network_id, "n1")
        return Plan(target=target, facts=None, locks=(exclusive("network", params.network_id),))

    async def execute(self, tx: Tx, params: Half, plan: Plan[None]) -> Done:
        row: Row = {"id": new_id(), "name": f"half-{params.fails}", "profile": "balanced"}
        row |= {"virt_type": "qemu", "created_at": tx.now}
        await inventory.insert(tx.connection, "cluster", row)
        tx.writes.update(inventory.WANT_VM, {"key": VM, "wish": not params.fails})
        if params.fails:
            raise Conflict("HALF_WAY", "half of it was done")
        order = Order(operation_id=tx.operation_id, context=tx.context, policy=Policy())
        return Done(order=order)


class HalfOfCollected(HalfAction):
    """The same as an action that declares that it only collects."""

    collects = True

    async def execute(self, tx: Tx, params: Half, plan: Plan[None]) -> Done:
        tx.writes.update(inventory.WANT_VM, {"key": VM, "wish": not params.fails})
        tx.writes.post(plumbing.posting(new_id(), tx.operation_id, tx.now))
        raise Conflict("HALF_WAY", "half of it was done")


class TakeOverAction(HalfAction):
    """Takes a VM over from its start, and refuses in the middle."""

    preempts = frozenset({"vm.start"})

    async def plan(self, tx: Tx, params: Half, problems: Problems) -> Plan[None]:
        target = Target("vm", params.network_id, "db")
        return Plan(target=target, facts=None, locks=(exclusive("vm", params.network_id),))


VM = new_id()


async def test_a_refused_item_is_a_failed_child_and_the_others_go_on(engine: Engine) -> None:
    vms = await several(engine, 2)
    gone = new_id()
    receipt = await batch(engine, [*starts(vms), StartVm(vm_id=gone), StopVm(vm_id=vms[0])])
    assert (receipt.accepted, receipt.refused) == (2, 2)
    rows = await children(engine, receipt.operation_id)
    assert columns(rows, "state") == ["pending", "pending", "failed", "failed"]
    missing, wrong = rows[2:]
    assert missing["problem"]["code"] == "VM_NOT_FOUND"
    assert (missing["target_type"], missing["target_id"]) == ("vm", gone)
    assert (wrong["problem"]["code"], wrong["target_name"]) == ("VM_NOT_RUNNING", "vm-000")
    assert missing["finished_at"] is not None
    refused = [row for row in await engine.rows("event") if row["type"].endswith(".refused")]
    assert sorted(columns(refused, "operation_id")) == sorted([missing["id"], wrong["id"]])


async def test_a_second_action_on_the_same_vm_in_one_batch_is_refused_as_busy(
    engine: Engine,
) -> None:
    (vm,) = await several(engine, 1)
    receipt = await batch(engine, starts([vm, vm]))
    first, second = await children(engine, receipt.operation_id)
    assert (first["state"], second["state"]) == ("pending", "failed")
    assert second["problem"]["code"] == "OBJECT_BUSY"
    assert second["problem"]["context"]["holder_operation_id"] == str(first["id"])


async def test_a_lock_that_another_operation_holds_refuses_one_item_alone(engine: Engine) -> None:
    vms = await several(engine, 2)
    await engine.act(StartVm(vm_id=vms[0]))
    receipt = await batch(engine, starts(vms))
    rows = await children(engine, receipt.operation_id)
    assert columns(rows, "state") == ["failed", "pending"]
    assert rows[0]["problem"]["code"] == "OBJECT_BUSY"


@pytest.mark.parametrize("last_fails", [True, False])
async def test_an_item_that_is_refused_half_way_leaves_nothing_but_its_refusal(
    engine: Engine, last_fails: bool
) -> None:
    await engine.world.vm("db", id=VM, wanted=True)
    network = new_id()
    backend = Backend(engine.world.database, [HalfAction()], (), engine.deliverer)
    items = [Half(network_id=network), Half(network_id=network, fails=last_fails)]
    receipt = await backend.run_multiple_actions(items, PERSON)
    await backend.close()
    states = columns(await children(engine, receipt.operation_id), "state")
    assert states == ["failed", "failed" if last_fails else "pending"]
    named = sorted(columns(await engine.rows("cluster"), "name"))
    assert named == ["c1"] + ([] if last_fails else ["half-False"])
    assert (await engine.world.get("vm", VM))["wanted"] is True
    assert len(await engine.rows("entity_lock")) == (0 if last_fails else 1)


async def test_what_a_refused_item_has_collected_is_not_written(engine: Engine) -> None:
    await engine.world.vm("db", id=VM, wanted=True)
    backend = Backend(engine.world.database, [HalfOfCollected()], (), engine.deliverer)
    receipt = await backend.run_multiple_actions([Half(network_id=new_id())] * 2, PERSON)
    await backend.close()
    assert (await engine.world.get("vm", VM))["wanted"] is True
    assert engine.deliverer.delivered == [receipt.operation_id]
    assert columns(await engine.rows("outbox"), "operation_id") == [receipt.operation_id]


async def test_a_refused_item_that_had_taken_over_a_lock_leaves_it_to_its_holder(
    engine: Engine,
) -> None:
    (vm,) = await several(engine, 1)
    holder = (await engine.act(StartVm(vm_id=vm))).operation_id
    actions = [TakeOverAction(), *engine.backend.acceptance.by_kind.values()]
    backend = Backend(engine.world.database, actions, (), clock=engine.world.clock)
    items: Many = [Half(network_id=vm), *starts([vm])]
    receipt = await backend.run_multiple_actions(items, PERSON)
    half_way, busy = columns(await children(engine, receipt.operation_id), "problem")
    assert (half_way["code"], busy["code"]) == ("HALF_WAY", "OBJECT_BUSY")
    assert columns(await engine.rows("entity_lock"), "operation_id") == [holder]


async def test_with_all_or_nothing_one_refusal_writes_nothing_and_lists_all(engine: Engine) -> None:
    vms = await several(engine, 2)
    created = CreateCluster(name="c2")
    items: Many = [created, StopVm(vm_id=vms[0]), StartVm(vm_id=vms[1]), StartVm(vm_id=new_id())]
    error = await refusal(engine, items, all_or_nothing=True, stop_on_error=True)
    assert isinstance(error, Invalid)
    assert (error.code, error.context["refused"]) == ("BATCH_REFUSED", 2)
    assert error.next_step
    assert [(one.context["index"], one.context["kind"], one.code) for one in error.problems] == [
        (1, "vm.stop", "VM_NOT_RUNNING"),
        (3, "vm.start", "VM_NOT_FOUND"),
    ]


async def test_with_all_or_nothing_a_batch_without_a_refusal_is_accepted(engine: Engine) -> None:
    vms = await several(engine, 3)
    receipt = await batch(engine, starts(vms), all_or_nothing=True)
    assert receipt.accepted == 3


async def test_with_stop_on_error_the_items_after_a_refusal_never_begin(engine: Engine) -> None:
    vms = await several(engine, 5)
    items = [*starts(vms[:2]), StopVm(vm_id=vms[2]), *starts(vms[3:])]
    receipt = await batch(engine, items, stop_on_error=True, at_once=1)
    assert (receipt.accepted, receipt.refused, receipt.stopped) == (2, 1, 2)
    rows = await children(engine, receipt.operation_id)
    assert columns(rows, "state", "reason_code", "held") == [
        ("pending", None, False),
        ("pending", "BATCH_TURN", True),
        ("failed", None, False),
        ("cancelled", "stopped_on_error", False),
        ("cancelled", "stopped_on_error", False),
    ]
    assert rows[3]["summary"] == "never began: action 3 of 5 was refused"
    assert rows[3]["target_name"] == "vm-003"
    progress = await engine.batches.advance(receipt.operation_id)
    assert (progress.held, progress.cancelled, progress.stopped) == (1, 2, True)


@pytest.mark.parametrize(("count", "code"), [(0, "BATCH_EMPTY"), (1001, "BATCH_TOO_LARGE")])
async def test_a_batch_of_a_wrong_size_is_refused(engine: Engine, count: int, code: str) -> None:
    items: Many = [StartVm(vm_id=new_id())] * count
    with pytest.raises(Invalid) as raised:
        await batch(engine, items)
    assert raised.value.code == code
    assert await engine.rows("operation") == []
    with pytest.raises(Invalid):
        await engine.backend.dry_run_multiple(items, PERSON)


async def test_a_thousand_refused_items_are_a_thousand_failed_children(engine: Engine) -> None:
    receipt = await batch(engine, starts([new_id() for _ in range(1000)]))
    assert (receipt.accepted, receipt.refused) == (0, 1000)
    progress = await engine.batches.advance(receipt.operation_id)
    assert (progress.total, progress.failed, progress.open, progress.held) == (1000, 1000, 0, 0)


async def test_whoever_may_do_nothing_of_a_batch_gets_no_operation(engine: Engine) -> None:
    vms = await several(engine, 2)
    backend = _of_role(engine, Role.VIEWER)
    with pytest.raises(Denied):
        await backend.run_multiple_actions(starts(vms), PERSON)
    assert await engine.rows("operation") == []
    assert columns(await engine.rows("event"), "type") == ["batch.refused"]


async def test_whoever_may_do_some_of_a_batch_is_refused_the_rest(engine: Engine) -> None:
    (vm,) = await several(engine, 1)
    backend = _of_role(engine, Role.OPERATOR)
    receipt = await backend.run_multiple_actions([*starts([vm]), CreateCluster(name="c2")], PERSON)
    rows = await children(engine, receipt.operation_id)
    assert columns(rows, "state") == ["pending", "failed"]
    assert rows[1]["problem"]["code"] == "PERMISSION_DENIED"


def _of_role(engine: Engine, role: Role) -> Backend:
    actions = engine.backend.acceptance.by_kind.values()
    roles = Roles(everybody=role)
    return Backend(
        engine.world.database, actions, all_queries(), clock=engine.world.clock, roles=roles
    )
