"""Requests that cannot come to anything: refused as early as that is known, and by themselves."""

from uuid import UUID

import pytest
from pydantic import ValidationError

from domain.context import PriorityClass
from domain.errors import Denied, EngineError, Refused
from domain.locks import exclusive
from domain.operations import OperationState, Outcome
from domain.permissions import Permission, Role
from engine.actions.base import Action, Done, Params, Plan, Problems, Target, Tx
from engine.actions.host_config import AddHost, EditHost
from engine.actions.operations import CancelOperation, PrioritiseOperation, RetryOperation
from engine.actions.vms import StartVm, StopVm
from engine.backend import Backend, Options
from engine.grants import Grants
from engine.registry import all_queries
from engine.roles import Roles
from store import operations
from store.ids import new_id
from store.rows import Row
from tests.store.engine_room import Engine, columns
from tests.store.many import batch, children, refusal, several, starts
from tests.store.world import PERSON

pytestmark = pytest.mark.store


async def row_of(engine: Engine, operation: UUID) -> Row:
    row = await engine.world.do(operations.get, operation)
    assert row is not None
    return row


async def wait_for(engine: Engine, params: Params) -> UUID:
    options = Options(lock_wait_s=600)
    operation = (await engine.backend.run_action(params, PERSON, options=options)).operation_id
    assert (await row_of(engine, operation))["reason_code"] == "LOCK_HELD"
    return operation


async def two_waiters(engine: Engine) -> tuple[UUID, UUID]:
    """Two operations that wait for VMs which are free by now, oldest first."""
    vms = await several(engine, 2)
    busy = [(await engine.act(StartVm(vm_id=vm))).operation_id for vm in vms]
    waiting = [await wait_for(engine, StartVm(vm_id=vm)) for vm in vms]
    for one in busy:
        await engine.operations.close(Outcome(operation_id=one, state=OperationState.FAILED))
    return waiting[0], waiting[1]


def roles(engine: Engine, **named: Role) -> None:
    """Another backend of the same engine, that knows these principals."""
    actions = tuple(engine.backend.acceptance.by_kind.values())
    engine.backend = Backend(
        engine.world.database,
        actions,
        all_queries(),
        engine.deliverer,
        clock=engine.world.clock,
        roles=Roles(named),
    )


STORED: tuple[Row, ...] = (
    {"params": {"vm_id": str(UUID(int=1)), "gone_field": 1}},
    {"params": {"vm_id": "no id"}},
    {"kind": "vm.teleport"},
)


@pytest.mark.parametrize("stored", STORED, ids=["a field more", "a wrong value", "no such kind"])
async def test_a_waiter_that_another_release_has_stored_ends_alone(
    engine: Engine, stored: Row
) -> None:
    old, other = await two_waiters(engine)
    await engine.world.put("operation", old, **stored)
    assert await Grants(engine.world.database, engine.backend).grant() == 2
    row = await row_of(engine, old)
    assert (row["state"], row["problem"]["code"]) == ("failed", "PARAMS_OUTDATED")
    assert (await row_of(engine, other))["state"] == "pending"


async def test_a_failed_operation_that_another_release_has_stored_is_not_retried(
    engine: Engine,
) -> None:
    (vm,) = await several(engine, 1)
    operation = (await engine.act(StartVm(vm_id=vm))).operation_id
    await engine.operations.close(Outcome(operation_id=operation, state=OperationState.FAILED))
    await engine.world.put("operation", operation, params={"vm_id": str(vm), "secret": "s3cret"})
    error = await engine.refusal(RetryOperation(operation_id=operation))
    assert error.code == "PARAMS_OUTDATED"
    assert "secret" in error.detail
    assert "s3cret" not in error.detail


class Sour(Params):
    """Ask for something that only turns out to be impossible when it is done."""

    vm_id: UUID


class SourAction(Action[Sour, None]):
    """Plans well, and refuses once it is carried out after a wait."""

    params = Sour
    kind = "vm.sour"
    permission = Permission.VM_OPERATE
    workflow = "Sour"

    async def plan(self, tx: Tx, params: Sour, problems: Problems) -> Plan[None]:
        target = Target("vm", params.vm_id, "db")
        return Plan(target=target, facts=None, locks=(exclusive("vm", params.vm_id),))

    async def execute(self, tx: Tx, params: Sour, plan: Plan[None]) -> Done:
        raise Refused("GONE_SOUR", "it went sour meanwhile")


async def test_a_waiter_that_is_refused_when_it_is_carried_out_ends_alone(
    engine: Engine,
) -> None:
    actions = (*engine.backend.acceptance.by_kind.values(), SourAction())
    world = engine.world
    engine.backend = Backend(world.database, actions, all_queries(), clock=world.clock)
    vms = await several(engine, 2)
    busy = [(await engine.act(StartVm(vm_id=vm))).operation_id for vm in vms]
    sour = await wait_for(engine, Sour(vm_id=vms[0]))
    other = await wait_for(engine, StartVm(vm_id=vms[1]))
    for one in busy:
        await engine.operations.close(Outcome(operation_id=one, state=OperationState.FAILED))
    assert await Grants(world.database, engine.backend).grant() == 2
    row = await row_of(engine, sour)
    assert (row["state"], row["problem"]["code"]) == ("failed", "GONE_SOUR")
    assert (await row_of(engine, other))["state"] == "pending"


async def test_no_wait_for_a_lock_makes_a_wrong_request_right(engine: Engine) -> None:
    (vm,) = await several(engine, 1)
    await engine.act(StartVm(vm_id=vm))
    nowhere = StartVm(vm_id=vm, host_id=new_id())
    with pytest.raises(EngineError) as refused:
        await engine.backend.run_action(nowhere, PERSON, options=Options(lock_wait_s=60))
    assert refused.value.code == "HOST_NOT_FOUND"


@pytest.mark.parametrize("lock_wait_s", [0.0, 60.0])
async def test_all_or_nothing_refuses_what_waiting_cannot_heal(
    engine: Engine, lock_wait_s: float
) -> None:
    first, second = await several(engine, 2)
    busy = await engine.world.operation(second)
    await engine.world.lock(second, busy)
    items: list[Params] = [StartVm(vm_id=first), StartVm(vm_id=second, host_id=new_id())]
    error = await refusal(engine, items, all_or_nothing=True, lock_wait_s=lock_wait_s)
    assert error.code == "BATCH_REFUSED"


async def test_what_waiting_may_heal_is_waited_for(engine: Engine) -> None:
    (vm,) = await several(engine, 1)
    await engine.act(StartVm(vm_id=vm))
    await wait_for(engine, StopVm(vm_id=vm))


async def test_a_batch_sees_what_it_has_done_to_operations_itself(engine: Engine) -> None:
    receipt = await batch(engine, starts(await several(engine, 2)))
    await engine.act(CancelOperation(operation_id=receipt.operation_id))
    first, second = columns(await children(engine, receipt.operation_id), "id")
    items: list[Params] = [
        RetryOperation(operation_id=receipt.operation_id),
        CancelOperation(operation_id=first),
        RetryOperation(operation_id=second),
    ]
    done = await batch(engine, items)
    ended = await children(engine, done.operation_id)
    assert columns(ended, "state") == ["succeeded", "succeeded", "failed"]
    assert ended[2]["problem"]["code"] == "OPERATION_STATE_FORBIDS"
    states = columns(await children(engine, receipt.operation_id), "state")
    assert states == ["cancelled", "pending"]


async def test_a_batch_sees_the_children_of_what_it_has_cancelled(engine: Engine) -> None:
    receipt = await batch(engine, starts(await several(engine, 2)))
    first, _second = columns(await children(engine, receipt.operation_id), "id")
    items: list[Params] = [
        CancelOperation(operation_id=receipt.operation_id),
        RetryOperation(operation_id=first),
    ]
    done = await batch(engine, items)
    assert columns(await children(engine, done.operation_id), "state") == ["succeeded"] * 2
    states = columns(await children(engine, receipt.operation_id), "state")
    assert states == ["pending", "cancelled"]


async def test_a_batch_takes_the_lock_that_its_own_cancel_has_freed(engine: Engine) -> None:
    (vm,) = await several(engine, 1)
    operation = (await engine.act(StartVm(vm_id=vm))).operation_id
    items: list[Params] = [CancelOperation(operation_id=operation), StartVm(vm_id=vm)]
    done = await batch(engine, items)
    assert columns(await children(engine, done.operation_id), "state") == ["succeeded", "pending"]
    held = columns(await engine.rows("entity_lock"), "operation_id")
    assert held == [(await children(engine, done.operation_id))[1]["id"]]


async def test_what_was_never_allowed_is_not_allowed_by_another_try(engine: Engine) -> None:
    roles(engine, eve=Role.VIEWER, ann=Role.ADMIN)
    (vm,) = await several(engine, 1)
    never = await engine.world.operation(
        vm, principal="eve", state="failed", params={"vm_id": str(vm)}, order=None
    )
    with pytest.raises(Denied, match="PERMISSION_DENIED"):
        await engine.act(RetryOperation(operation_id=never))
    assert (await row_of(engine, never))["attempt"] == 1


async def test_what_was_allowed_once_is_tried_again_whoever_asked_first(engine: Engine) -> None:
    (vm,) = await several(engine, 1)
    operation = (await engine.act(StartVm(vm_id=vm), principal="eve")).operation_id
    await engine.operations.close(Outcome(operation_id=operation, state=OperationState.FAILED))
    roles(engine, eve=Role.VIEWER, ann=Role.ADMIN)
    await engine.act(RetryOperation(operation_id=operation))
    assert (await row_of(engine, operation))["attempt"] == 2


@pytest.mark.parametrize(
    ("role", "wish", "code"),
    [
        (Role.AUTOMATION, PriorityClass.PROTECTED, "PRIORITY_DENIED"),
        (Role.AUTOMATION, PriorityClass.PERSON, "PRIORITY_DENIED"),
        (Role.AUTOMATION, PriorityClass.BALANCE, None),
        (Role.OPERATOR, PriorityClass.PROTECTED, None),
        (Role.OPERATOR, PriorityClass.RECOVERY, "PRIORITY_RESERVED"),
        (Role.AUTOMATION, PriorityClass.RECOVERY, "PRIORITY_RESERVED"),
    ],
)
async def test_nobody_gives_a_more_urgent_class_than_the_table_allows_them(
    engine: Engine, role: Role, wish: PriorityClass, code: str | None
) -> None:
    roles(engine, bot=role)
    operation = await engine.world.operation(priority=int(PriorityClass.INVENTORY))
    asked = PrioritiseOperation(operation_id=operation, priority=wish)
    got: str | None = None
    try:
        await engine.act(asked, principal="bot")
    except EngineError as error:
        got = error.code
    now = (await row_of(engine, operation))["priority"]
    assert (got, now) == (code, PriorityClass.INVENTORY if code else wish)


@pytest.mark.parametrize(
    "uri", ["qemu+ssh://root:hunter2@h1/system", "qemu+tcp://ann:@h1:16509/system"]
)
def test_a_password_in_a_hosts_address_is_refused_before_anything_keeps_it(uri: str) -> None:
    wishes: tuple[tuple[type[Params], Row], ...] = (
        (AddHost, {"cluster_id": new_id(), "name": "h1"}),
        (EditHost, {"host_id": new_id(), "expected_version": 1}),
    )
    for params, others in wishes:
        with pytest.raises(ValidationError) as refused:
            params.model_validate(others | {"uri": uri})
        (wrong,) = refused.value.errors(include_input=False)
        assert (wrong["loc"], wrong["type"]) == (("uri",), "uri_with_password")
        assert "auth file" in wrong["msg"]
        assert "hunter2" not in wrong["msg"]


def test_a_user_alone_may_stand_in_a_hosts_address() -> None:
    uri = "qemu+ssh://root@h1/system?keyfile=/etc/key"
    assert AddHost(cluster_id=new_id(), name="h1", uri=uri).uri == uri
