"""Waiting for locks: granted in order, ended when it became forbidden or takes too long."""

from functools import partial
from typing import Any
from uuid import UUID

import pytest

from domain.context import PriorityClass
from domain.locks import exclusive
from domain.operations import OperationState, Order, Outcome
from domain.permissions import Permission
from engine.actions.base import Action, Done, Params, Plan, Problems, Target, Tx
from engine.actions.hosts import ActivateHost
from engine.actions.operations import PrioritiseOperation, RetryOperation
from engine.actions.vms import StartVm, StopVm
from engine.backend import Backend, Options
from engine.grants import Grants, Line
from engine.queries.operations import GetOperation
from engine.registry import all_queries
from store import locks, operations, plumbing
from store.rows import Row
from tests.store.engine_room import POLICY, Engine
from tests.store.world import PERSON

pytestmark = pytest.mark.store


def grants(engine: Engine) -> Grants:
    return Grants(engine.world.database, engine.backend)


async def wait_for(engine: Engine, params: Params, seconds: float = 30, **options: Any) -> UUID:
    """Ask for something whose locks another operation holds."""
    receipt = await engine.backend.run_action(
        params, PERSON, options=Options(lock_wait_s=seconds, **options)
    )
    row = await row_of(engine, receipt.operation_id)
    assert (row["state"], row["reason_code"]) == ("waiting", "LOCK_HELD")
    return receipt.operation_id


async def row_of(engine: Engine, operation: UUID) -> Row:
    row = await engine.world.do(operations.get, operation)
    assert row is not None
    return row


async def ends(engine: Engine, operation: UUID, state: str = "succeeded") -> None:
    await engine.operations.close(Outcome(operation_id=operation, state=OperationState(state)))


async def a_busy_vm(engine: Engine) -> tuple[UUID, UUID]:
    """A VM and the start that holds it."""
    if not await engine.rows("host"):
        await engine.world.host()
    vm = await engine.world.vm()
    return vm, (await engine.act(StartVm(vm_id=vm))).operation_id


async def test_a_freed_lock_goes_to_the_one_that_waits_and_its_workflow_starts(
    engine: Engine,
) -> None:
    vm, first = await a_busy_vm(engine)
    waiting = await wait_for(engine, StartVm(vm_id=vm))
    assert await grants(engine).grant() == 0
    await ends(engine, first, "failed")
    engine.deliverer.delivered.clear()
    assert await grants(engine).grant() == 1
    await engine.backend.close()
    row = await row_of(engine, waiting)
    assert (row["state"], row["attempt"], row["reason_code"]) == ("pending", 1, None)
    assert row["lock_deadline_at"] is None
    assert row["order"]["operation_id"] == str(waiting)
    assert await engine.world.do(locks.holds, "vm", vm, waiting)
    posted = await engine.world.do(plumbing.posted, waiting)
    assert posted is not None
    assert posted["workflow"] == "StartVm"
    assert engine.deliverer.delivered == [waiting]
    assert await grants(engine).grant() == 0


async def test_waiters_get_the_lock_by_priority_and_then_by_age(engine: Engine) -> None:
    vm, holder = await a_busy_vm(engine)
    old, young, urgent = [await wait_for(engine, StartVm(vm_id=vm)) for _ in range(3)]
    wish = PrioritiseOperation(operation_id=urgent, priority=PriorityClass.PROTECTED)
    await engine.act(wish)
    for expected in (urgent, old, young):
        await ends(engine, holder, "failed")
        assert await grants(engine).grant() == 1
        owner = await engine.world.do(locks.holder, "vm", vm)
        assert owner is not None
        assert owner.operation_id == expected
        holder = expected


async def test_a_wait_for_one_object_does_not_hold_up_a_wait_for_another(engine: Engine) -> None:
    vm, _ = await a_busy_vm(engine)
    stuck = await wait_for(engine, StartVm(vm_id=vm))
    host = await engine.world.host("h2", state="down")
    busy = await engine.act(ActivateHost(host_id=host))
    free = await wait_for(engine, ActivateHost(host_id=host))
    await ends(engine, busy.operation_id, "failed")
    assert await grants(engine).grant() == 1
    states = [(await row_of(engine, one))["state"] for one in (stuck, free)]
    assert states == ["waiting", "pending"]


class Both(Params):
    """Something that needs two VMs for itself."""

    vm_ids: tuple[UUID, UUID]


class BothAction(Action[Both, None]):
    """Orders a start in which nothing matters but the locks."""

    params = Both
    kind = "vm.both"
    permission = Permission.VM_OPERATE
    workflow = "StartVm"

    async def plan(self, tx: Tx, params: Both, problems: Problems) -> Plan[None]:
        """Two locks."""
        wanted = tuple(exclusive("vm", vm_id) for vm_id in params.vm_ids)
        return Plan(target=Target("vm", params.vm_ids[0], "both"), facts=None, locks=wanted)

    async def execute(self, tx: Tx, params: Both, plan: Plan[None]) -> Done:
        """An order."""
        return Done(order=Order(operation_id=tx.operation_id, context=tx.context, policy=POLICY))


async def test_a_later_wait_does_not_overtake_an_earlier_one_on_the_same_object(
    engine: Engine,
) -> None:
    actions = (*engine.backend.acceptance.by_kind.values(), BothAction())
    engine.backend = Backend(
        engine.world.database, actions, all_queries(), clock=engine.world.clock
    )
    vm, holder = await a_busy_vm(engine)
    other = await engine.world.vm("app")
    second = (await engine.act(StartVm(vm_id=other))).operation_id
    both = await wait_for(engine, Both(vm_ids=(vm, other)))
    later = await wait_for(engine, StartVm(vm_id=other))
    await ends(engine, second, "failed")
    assert await grants(engine).grant() == 0, "the free one is as good as taken by the earlier wait"
    await ends(engine, holder, "failed")
    assert await grants(engine).grant() == 1
    assert [(await row_of(engine, one))["state"] for one in (both, later)] == ["pending", "waiting"]
    await ends(engine, both, "failed")
    assert await grants(engine).grant() == 1
    assert (await row_of(engine, later))["state"] == "pending"


async def test_what_became_forbidden_while_it_waited_ends_with_that_reason(
    engine: Engine,
) -> None:
    vm, first = await a_busy_vm(engine)
    waiting = await wait_for(engine, StartVm(vm_id=vm))
    host = (await engine.rows("host"))[0]["id"]
    await engine.world.running(vm, host, operation_id=first)
    assert await grants(engine).grant() == 0, "while the lock is held, the state may still change"
    await ends(engine, first)
    assert await grants(engine).grant() == 1
    row = await row_of(engine, waiting)
    assert (row["state"], row["problem"]["code"]) == ("failed", "VM_NOT_DOWN")
    assert await engine.rows("entity_lock") == []


async def test_what_became_possible_while_it_waited_is_done(engine: Engine) -> None:
    vm, first = await a_busy_vm(engine)
    waiting = await wait_for(engine, StopVm(vm_id=vm))
    host = (await engine.rows("host"))[0]["id"]
    await engine.world.running(vm, host, operation_id=first)
    await ends(engine, first)
    assert await grants(engine).grant() == 1
    assert (await row_of(engine, waiting))["order"]["run"]["host_name"] == "h1"


async def test_a_wait_that_takes_too_long_ends_and_names_who_holds_the_lock(
    engine: Engine,
) -> None:
    vm, first = await a_busy_vm(engine)
    waiting = await wait_for(engine, StartVm(vm_id=vm), seconds=30)
    engine.world.later(29.9)
    assert await grants(engine).grant() == 0
    engine.world.later(0.2)
    assert await grants(engine).grant() == 1
    row = await row_of(engine, waiting)
    assert (row["state"], row["problem"]["code"]) == ("failed", "LOCK_WAIT_TIMED_OUT")
    assert "waited 30.1 s for this vm" in row["problem"]["detail"]
    assert str(first) in row["problem"]["detail"]
    assert row["problem"]["context"]["holder_operation_id"] == str(first)
    await ends(engine, first, "failed")
    await engine.act(RetryOperation(operation_id=waiting))
    assert await engine.world.do(locks.holds, "vm", vm, waiting, 2)


async def test_a_wait_on_what_is_gone_ends(engine: Engine) -> None:
    vm, first = await a_busy_vm(engine)
    waiting = await wait_for(engine, StartVm(vm_id=vm))
    gone = {"vm_id": str(UUID(int=7)), "host_id": None, "licence_id": None}
    await engine.world.put("operation", waiting, params=gone)
    await ends(engine, first, "failed")
    assert await grants(engine).grant() == 1
    row = await row_of(engine, waiting)
    assert (row["state"], row["problem"]["code"]) == ("failed", "VM_NOT_FOUND")


async def test_two_that_grant_at_once_grant_once(engine: Engine) -> None:
    vm, first = await a_busy_vm(engine)
    one, two = [await wait_for(engine, StartVm(vm_id=vm)) for _ in range(2)]
    await ends(engine, first, "failed")
    world = engine.world
    due, _ = await world.database.read(partial(grants(engine)._look, line=Line()))
    assert [row["id"] for row, _ in due] == [one]
    settle = grants(engine)._settle

    async def once(connection: Any) -> bool:
        return await settle(due[0][0], due[0][1], connection)

    assert sorted(await world.together(once, once)) == [False, True]
    starts = [row for row in await engine.rows("outbox") if row["operation_id"] == one]
    assert len(starts) == 1
    assert (await row_of(engine, two))["state"] == "waiting"


async def test_an_operation_shows_who_holds_its_lock_and_how_many_go_before_it(
    engine: Engine,
) -> None:
    vm, first = await a_busy_vm(engine)
    await wait_for(engine, StartVm(vm_id=vm))
    waiting = await wait_for(engine, StartVm(vm_id=vm))
    view = await engine.backend.run_query(GetOperation(operation_id=waiting))
    holder, before = view.blocked_by
    assert (holder.what, holder.operation_id, holder.kind) == ("lock", first, "vm.start")
    assert (before.what, before.position) == ("lock", 1)


async def test_an_operation_shows_how_many_are_started_before_it(engine: Engine) -> None:
    _, first = await a_busy_vm(engine)
    other = await engine.world.vm("app")
    second = (await engine.act(StartVm(vm_id=other))).operation_id
    for operation, position in ((first, 0), (second, 1)):
        view = await engine.backend.run_query(GetOperation(operation_id=operation))
        (block,) = view.blocked_by
        assert (block.what, block.position) == ("queue", position)


async def test_a_running_operation_is_blocked_by_nothing_and_is_predicted_by_its_kind(
    engine: Engine,
) -> None:
    world = engine.world
    for took in (2, 4, 60):
        times: Row = {"started_at": world.now, "finished_at": world.later(took)}
        await world.operation(state="succeeded", **times)
    _, operation = await a_busy_vm(engine)
    assert await world.do(operations.claim, operation, 1, "run-1", world.now)
    began = world.now
    world.later(1)
    view = await engine.backend.run_query(GetOperation(operation_id=operation))
    assert view.blocked_by == ()
    assert (view.predicted_end_at - began).total_seconds() == 4
    world.later(9)
    view = await engine.backend.run_query(GetOperation(operation_id=operation))
    assert view.predicted_end_at is None, "it takes longer than the others did"


async def test_what_is_counted_is_predicted_by_its_pace(engine: Engine) -> None:
    world = engine.world
    batch = await world.operation(
        kind="batch", state="running", started_at=world.now, progress_done=0, progress_total=40
    )
    began = world.now
    world.later(10)
    view = await engine.backend.run_query(GetOperation(operation_id=batch))
    assert view.predicted_end_at is None
    await world.put("operation", batch, progress_done=10)
    view = await engine.backend.run_query(GetOperation(operation_id=batch))
    assert (view.predicted_end_at - began).total_seconds() == 40
